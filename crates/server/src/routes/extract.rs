//! What handlers take out of a request: the caller, and the body as a JSON object.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::IntoResponse;

use crate::error::{ApiError, ErrorKind};
use crate::gate::{Allowed, Principal, Query};
use crate::serve::App;
use crate::wire::{self, FieldError, JsonObject};

/// Longest body that is parsed on the spot; longer ones are parsed where they stop nobody else.
const PARSED_AT_ONCE: usize = 64 << 10;

impl FromRequestParts<App> for Principal {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        app.gate().access().authenticate(&parts.headers)
    }
}

/// The one name in a path.
pub(super) struct PathName(pub(super) String);

impl FromRequestParts<App> for PathName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let name = Path::<String>::from_request_parts(parts, app).await;
        name.map(|Path(name)| Self(name))
            .map_err(|rejection| ApiError::new(ErrorKind::BadRequest, rejection.body_text()))
    }
}

/// A body that is a JSON object, whatever its content type says.
pub(super) struct JsonBody(pub(super) JsonObject);

impl FromRequest<App> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let bytes = Bytes::from_request(request, app).await.map_err(|rejection| {
            let text = rejection.body_text();
            if rejection.into_response().status() == StatusCode::PAYLOAD_TOO_LARGE {
                let text = format!("the body is longer than the {} bytes allowed", app.limits().body);
                return ApiError::new(ErrorKind::PayloadTooLarge, text);
            }
            ApiError::new(ErrorKind::BadRequest, text)
        })?;
        if bytes.len() <= PARSED_AT_ONCE {
            return Ok(Self(wire::parse_object(&bytes)?));
        }
        let parsed = tokio::task::spawn_blocking(move || wire::parse_object(&bytes)).await;
        let parsed = parsed.map_err(|error| ApiError::internal("the body could not be read", error.to_string()))?;
        Ok(Self(parsed?))
    }
}

impl JsonBody {
    /// The endpoint that the body names as its `model`, if `principal` may call it, and the rest of the body.
    pub(super) fn open(mut self, app: &App, principal: &Principal) -> Result<(Allowed<Query>, JsonObject), ApiError> {
        let model = wire::take_text(&mut self.0, "model")?;
        let model = model.ok_or_else(|| FieldError::Missing { field: "model".into() })?;
        Ok((app.gate().allow(principal, &model)?, self.0))
    }
}
