//! Who used what, for those who may know: administrators all of it, others what they asked for themselves and what endpoints
//! answered that they manage.

use std::collections::HashSet;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures::Stream;

use super::VIEW;
use super::attachment::{CSV, attachment};
use super::extract::{PathName, QueryFields};
use super::serving::allow;
use super::table::{Needs, Route};
use crate::error::ApiError;
use crate::gate::{Caller, Manage, View};
use crate::serve::App;
use crate::store::{Grouping, ServedEntityRow, Store, StoreError, UsageFilter, UsagePlace, Visible};
use crate::usage::{place_of, sum, sums_as_csv, usage_as_csv};
use crate::wire::FieldError;
use crate::wire::usage::{GroupBy, ServedEntityList, ServedEntityVersion, UsageFormat, UsagePage, UsageQuestion};

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::get("/api/2.0/serving/endpoint-usage", Needs::Caller, list),
        Route::get("/api/2.0/serving/served-entities", Needs::Caller, served_entities),
        Route::get("/api/2.0/serving-endpoints/{name}/metrics", VIEW, metrics),
    ]
}

/// `GET /api/2.0/serving/endpoint-usage`: rows, or sums of groups of them; pages of JSON, or CSV in one piece.
async fn list(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    QueryFields(fields): QueryFields,
) -> Result<Response, ApiError> {
    let store = app.control()?.store();
    let question = UsageQuestion::read(&fields)?;
    let wanted = headers.get(header::ACCEPT).is_some_and(|accept| accept.as_bytes().starts_with(b"text/csv"));
    let format = question.format.unwrap_or(if wanted { UsageFormat::Csv } else { UsageFormat::Json });
    let filter = UsageFilter {
        from: question.start_time,
        until: question.end_time,
        endpoint_name: question.endpoint_name.clone(),
        requester: question.requester.clone(),
        status_code: question.status_code,
        visible: visible(&app, &caller),
    };
    let groupings = question.group_by.iter().copied().map(grouping).collect::<Vec<_>>();
    match format {
        UsageFormat::Csv => {
            question.check_whole()?;
            match groupings.is_empty() {
                true => csv(usage_as_csv(store.clone(), filter)).await,
                false => csv(sums_as_csv(store.clone(), filter, groupings)).await,
            }
        }
        UsageFormat::Json if groupings.is_empty() => rows(store, &filter, &question).await,
        UsageFormat::Json => sums(store, &filter, &groupings, &question).await,
    }
}

/// `GET /api/2.0/serving/served-entities`: what has answered under which id, of endpoints that the caller may see. Of those that
/// are deleted, administrators do.
async fn served_entities(
    State(app): State<App>,
    caller: Caller,
    QueryFields(fields): QueryFields,
) -> Result<Json<ServedEntityList>, ApiError> {
    let store = app.control()?.store();
    if let Some(field) = fields.keys().next().cloned() {
        return Err(FieldError::Unknown { field }.into());
    }
    let seen = app.gate().all::<View>(&caller);
    let seen: HashSet<&str> = seen.iter().map(|allowed| allowed.endpoint().id()).collect();
    let all = app.gate().admin(&caller).is_ok();
    let rows = store.served_entities().await?.into_iter();
    let rows = rows.filter(|row| all || seen.contains(row.endpoint_id.as_str()));
    Ok(Json(ServedEntityList { served_entities: rows.map(version).collect() }))
}

/// `GET /api/2.0/serving-endpoints/{name}/metrics`: the numbers of one endpoint, for Prometheus.
async fn metrics(State(app): State<App>, PathName(name): PathName, caller: Caller) -> Result<Response, ApiError> {
    let allowed = allow::<View>(&app, &caller, &name)?;
    let (_, memory) = app.models().memory();
    let text = app.usage().counts().render(allowed.endpoint(), memory);
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

/// What the caller may see; `None`: everything.
fn visible(app: &App, caller: &Caller) -> Option<Visible> {
    if app.gate().admin(caller).is_ok() {
        return None;
    }
    let managed = app.gate().all::<Manage>(caller);
    Some(Visible {
        requester_id: caller.principal().id().to_owned(),
        endpoint_ids: managed.iter().map(|allowed| allowed.endpoint().id().to_owned()).collect(),
    })
}

fn grouping(by: GroupBy) -> Grouping {
    match by {
        GroupBy::Endpoint => Grouping::Endpoint,
        GroupBy::Requester => Grouping::Requester,
        GroupBy::ServedEntity => Grouping::ServedEntity,
        GroupBy::Day => Grouping::Day,
    }
}

async fn rows(store: &Store, filter: &UsageFilter, question: &UsageQuestion) -> Result<Response, ApiError> {
    let after = question.page_token.as_deref().map(|token| {
        let (time, id) = token.split_once('.')?;
        Some(UsagePlace(time.parse().ok()?, id.to_owned()))
    });
    let after = after.map(|after| after.ok_or_else(|| not_a_page(question))).transpose()?;
    // One more tells whether there is another page.
    let results = question.results();
    let mut usage = store.usage(filter, after.as_ref(), results + 1).await?;
    let next_page_token = cut(&mut usage, results).and_then(|()| {
        let UsagePlace(time, id) = usage.last().map(place_of)?;
        Some(format!("{time}.{id}"))
    });
    Ok(Json(UsagePage { usage, next_page_token }).into_response())
}

async fn sums(
    store: &Store,
    filter: &UsageFilter,
    groupings: &[Grouping],
    question: &UsageQuestion,
) -> Result<Response, ApiError> {
    let skipped = question.page_token.as_deref().map(|token| token.parse::<u32>().map(i64::from));
    let skipped = skipped.transpose().map_err(|_| not_a_page(question))?.unwrap_or(0);
    let results = question.results();
    let mut found = store.usage_sums(filter, groupings, skipped, results + 1).await?;
    let next_page_token = cut(&mut found, results).map(|()| (skipped + results).to_string());
    Ok(Json(UsagePage { usage: found.into_iter().map(sum).collect(), next_page_token }).into_response())
}

/// Cuts off what is beyond the page, where something is.
pub(super) fn cut<T>(found: &mut Vec<T>, results: i64) -> Option<()> {
    let results = usize::try_from(results).ok().filter(|results| found.len() > *results)?;
    found.truncate(results);
    Some(())
}

fn not_a_page(question: &UsageQuestion) -> FieldError {
    let given = question.page_token.clone().unwrap_or_default();
    FieldError::value("page_token", "the `next_page_token` of the page before", given)
}

/// The response of usage in these pieces of CSV.
async fn csv(pieces: impl Stream<Item = Result<Vec<u8>, StoreError>> + Send + 'static) -> Result<Response, ApiError> {
    attachment(pieces, CSV, "endpoint_usage.csv").await
}

fn version(row: ServedEntityRow) -> ServedEntityVersion {
    ServedEntityVersion {
        served_entity_id: row.served_entity_id,
        endpoint_config_version: row.endpoint_config_version,
        change_time: row.change_time,
        endpoint_delete_time: row.endpoint_delete_time,
        endpoint_id: row.endpoint_id,
        endpoint_name: row.endpoint_name,
        served_entity_name: row.served_entity_name,
        entity_type: row.entity_type,
        entity_name: row.entity_name,
        entity_version: row.entity_version,
        task: row.task,
        created_by: row.created_by,
        external_model_config: row.external_model_config,
        foundation_model_config: row.foundation_model_config,
    }
}
