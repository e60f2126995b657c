//! What handlers take out of a request: the caller, and the body as a JSON object.

use axum::body::{Body, HttpBody};
use axum::extract::{FromRequest, FromRequestParts, Path, Query as UrlQuery, Request};
use axum::http::request::Parts;
use futures::StreamExt;

use crate::connections::BodyLate;
use crate::endpoints::Task;
use crate::error::{ApiError, ErrorKind};
use crate::gate::{Allowed, Caller, Query};
use crate::room::Part;
use crate::serve::App;
use crate::usage::Draft;
use crate::wire::{self, FieldError, JsonObject};

/// Longest body that is parsed on the spot; longer ones are parsed where they stop nobody else.
const PARSED_AT_ONCE: usize = 64 << 10;

impl FromRequestParts<App> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let principal = app.gate().authenticate(&parts.headers)?;
        let draft = parts.extensions.get::<Draft>();
        let missing =
            || ApiError::internal("the request cannot be accounted for", "no draft stands around the handlers");
        Ok(Self::new(principal, draft.cloned().ok_or_else(missing)?))
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
        let mut part = app.bodies().part();
        let bytes = read(request.into_body(), app.limits().body, &mut part).await?;
        if bytes.len() <= PARSED_AT_ONCE {
            return Ok(Self(wire::parse_object(&bytes)?));
        }
        let parsed = tokio::task::spawn_blocking(move || wire::parse_object(&bytes)).await;
        let parsed = parsed.map_err(|error| ApiError::internal("the body could not be read", error.to_string()))?;
        Ok(Self(parsed?))
    }
}

/// The whole of a body that is no longer than `most` bytes, held in `part`.
async fn read(body: Body, most: usize, part: &mut Part) -> Result<Vec<u8>, ApiError> {
    // Where its length is told beforehand, nothing of it is read.
    if body.size_hint().lower() > most as u64 {
        return Err(too_long(most));
    }
    let mut pieces = body.into_data_stream();
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| match BodyLate::among(&error) {
            Some(late) => ApiError::new(ErrorKind::SlowBody, late.to_string()),
            None => ApiError::new(ErrorKind::BadRequest, format!("the body could not be read: {error}")),
        })?;
        let length = bytes.len() + piece.len();
        if length > most {
            return Err(too_long(most));
        }
        // Waiting for room would only hold what is there already.
        if !part.grow_to(length) {
            let text = "the server is reading as many long request bodies as it has room for";
            return Err(ApiError::new(ErrorKind::Unavailable, text));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// The parameters of the URL as an object of texts, each given once.
pub(super) struct QueryFields(pub(super) JsonObject);

impl FromRequestParts<App> for QueryFields {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let pairs = UrlQuery::<Vec<(String, String)>>::from_request_parts(parts, app).await;
        let UrlQuery(pairs) = pairs.map_err(|error| ApiError::new(ErrorKind::BadRequest, error.body_text()))?;
        let mut fields = JsonObject::new();
        for (name, value) in pairs {
            if fields.contains_key(&name) {
                return Err(FieldError::conflict(name, "given twice").into());
            }
            fields.insert(name, value.into());
        }
        Ok(Self(fields))
    }
}

/// A body that may be left out: nothing is an object without fields.
pub(super) struct OptionalBody(pub(super) JsonObject);

impl FromRequest<App> for OptionalBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        if request.body().is_end_stream() {
            return Ok(Self(JsonObject::new()));
        }
        JsonBody::from_request(request, app).await.map(|JsonBody(fields)| Self(fields))
    }
}

fn too_long(most: usize) -> ApiError {
    ApiError::new(ErrorKind::PayloadTooLarge, format!("the body is longer than the {most} bytes allowed"))
}

impl JsonBody {
    /// The endpoint that the body names as its `model`, if the caller may call it, and the rest of the body.
    pub(super) fn open(mut self, app: &App, caller: &Caller) -> Result<(Allowed<Query>, JsonObject), ApiError> {
        let model = wire::take_text(&mut self.0, "model")?;
        let model = model.ok_or_else(|| FieldError::Missing { field: "model".into() })?;
        Ok((app.gate().allow(caller, &model)?, self.0))
    }

    /// As [`JsonBody::open`], but the body may leave out its `model` where [`named_or_only`] can tell which is meant.
    pub(super) fn open_or_only(
        mut self,
        app: &App,
        caller: &Caller,
        task: Option<Task>,
    ) -> Result<(Allowed<Query>, JsonObject), ApiError> {
        let model = wire::take_text(&mut self.0, "model")?;
        Ok((named_or_only(app, caller, model.as_deref(), task)?, self.0))
    }
}

/// The endpoint `model`, or where none is named the only one of `task` (of any task, where that is `None`) that
/// the caller may call.
///
/// # Errors
/// 400 where there is no such endpoint, or several, with their names; 503 while a model is loading, since more than one may
/// be meant then.
pub(super) fn named_or_only(
    app: &App,
    caller: &Caller,
    model: Option<&str>,
    task: Option<Task>,
) -> Result<Allowed<Query>, ApiError> {
    if let Some(model) = model {
        return app.gate().allow(caller, model);
    }
    let fail = |kind, text: String| Err(ApiError::new(kind, text).with_field("model"));
    if app.endpoints().is_loading() {
        let text = "a model is still loading, so `model` must say which one is meant";
        return fail(ErrorKind::Unavailable, text.to_owned());
    }
    let mut endpoints = app.gate().all::<Query>(caller);
    // One whose task is not known yet may be meant too.
    let may_do = |own: Option<Task>| own.is_none() || task.is_none() || own == task;
    endpoints.retain(|allowed| may_do(allowed.endpoint().task()));
    match (endpoints.pop(), endpoints.is_empty()) {
        (Some(only), true) => Ok(only),
        (None, _) => {
            let task = task.map_or_else(|| "any task".to_owned(), |task| task.to_string());
            fail(ErrorKind::BadRequest, format!("`model` is not given, and no endpoint serves {task}"))
        }
        (Some(last), false) => {
            let names: Vec<&str> = endpoints.iter().chain([&last]).map(|one| one.endpoint().name()).collect();
            let text = format!("the field `model` is required, since there are several: {}", names.join(", "));
            fail(ErrorKind::MissingField, text)
        }
    }
}
