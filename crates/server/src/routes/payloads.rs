//! Inference tables, for those who manage the endpoint.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use super::MANAGE;
use super::attachment::{CSV, attachment};
use super::extract::{PathName, QueryFields};
use super::serving::allow;
use super::table::Route;
use super::usage::cut;
use crate::error::ApiError;
use crate::gate::{Caller, Manage};
use crate::payloads::{ExportError, payloads_as_csv, payloads_as_parquet};
use crate::serve::App;
use crate::store::{PayloadFilter, PayloadPlace, Store};
use crate::wire::FieldError;
use crate::wire::payloads::{PayloadFormat, PayloadPage, PayloadQuestion};

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    vec![Route::get("/api/2.0/serving-endpoints/{name}/inference-table", MANAGE, get)]
}

/// `GET /api/2.0/serving-endpoints/{name}/inference-table`: pages of JSON, or all of it as CSV or Parquet.
async fn get(
    State(app): State<App>,
    PathName(name): PathName,
    caller: Caller,
    QueryFields(fields): QueryFields,
) -> Result<Response, ApiError> {
    let allowed = allow::<Manage>(&app, &caller, &name)?;
    let store = app.control()?.store();
    let question = PayloadQuestion::read(&fields)?;
    let endpoint_id = allowed.endpoint().id().to_owned();
    let filter = PayloadFilter { endpoint_id, from: question.start_time, until: question.end_time };
    match question.format {
        PayloadFormat::Json => page(store, &filter, &question).await,
        PayloadFormat::Csv => attachment(payloads_as_csv(store.clone(), filter), CSV, &format!("{name}.csv")).await,
        PayloadFormat::Parquet => {
            let pieces = payloads_as_parquet(store.clone(), filter);
            attachment(pieces, "application/vnd.apache.parquet", &format!("{name}.parquet")).await
        }
    }
}

async fn page(store: &Store, filter: &PayloadFilter, question: &PayloadQuestion) -> Result<Response, ApiError> {
    let after = question.page_token.as_deref().map(|token| {
        let place = token.split_once('.').and_then(|(time, id)| Some(PayloadPlace(time.parse().ok()?, id.to_owned())));
        place.ok_or_else(|| FieldError::value("page_token", "the `next_page_token` of the page before", token))
    });
    // One more tells whether there is another page.
    let results = question.results();
    let mut payloads = store.payloads(filter, after.transpose()?.as_ref(), results + 1).await?;
    let last = cut(&mut payloads, results).and_then(|()| payloads.last().map(PayloadPlace::of));
    let next_page_token = last.map(|PayloadPlace(time, id)| format!("{time}.{id}"));
    Ok(Json(PayloadPage { payloads, next_page_token }).into_response())
}

impl From<ExportError> for ApiError {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::Store(error) => error.into(),
            error @ ExportError::Parquet(_) => Self::internal("the file cannot be written", error.to_string()),
        }
    }
}
