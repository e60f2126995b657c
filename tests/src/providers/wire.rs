//! What all stubs do alike: keys, faults, and answers in one piece or in events.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, Uri, header};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::script::{Asked, Reply, reply};
use super::{STUB_KEY, STUB_TOKEN, State, StubRequest};

/// An error of a provider: its status and what it says.
#[derive(Debug)]
pub(super) struct Refusal(pub(super) u16, pub(super) String);

pub(super) fn refuse<T>(message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal(400, message.into()))
}

/// How a provider writes.
pub(super) trait Wire {
    /// An error.
    fn error(status: u16, message: &str) -> Value;
    /// An error inside a stream: a whole event.
    fn stream_error(message: &str) -> String;
    /// An answer.
    fn plain(model: &str, replies: &[Reply]) -> Value;
    /// The same in events, of which each is complete, blank line and all.
    fn events(model: &str, replies: &[Reply]) -> Vec<String>;
}

/// Writes the request down and reads it; what is not known in it is refused.
pub(super) fn read<T: DeserializeOwned>(
    state: &State,
    uri: &Uri,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<(T, Value), Refusal> {
    let value: Value = serde_json::from_slice(body).or_else(|error| refuse(format!("no JSON: {error}")))?;
    let path = uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    state.record(StubRequest { path, headers: headers.clone(), body: value.clone() });
    if headers.get(header::CONTENT_TYPE).is_none_or(|kind| kind != "application/json") {
        return Err(Refusal(415, "JSON is wanted".to_owned()));
    }
    let read = serde_json::from_value(value.clone()).or_else(|error| refuse(error.to_string()))?;
    Ok((read, value))
}

/// Refuses a request without the key. The message repeats what was given.
pub(super) fn check_key(headers: &HeaderMap, name: &str, expected: &str) -> Result<(), Refusal> {
    let given = headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if given == expected { Ok(()) } else { Err(Refusal(401, format!("Incorrect API key provided: {given}"))) }
}

/// The answer to a chat request.
pub(super) async fn chat<W: Wire>(
    state: &Arc<State>,
    headers: &HeaderMap,
    asked: Result<Asked, Refusal>,
) -> Response<Body> {
    let asked = match asked {
        Ok(asked) => asked,
        Err(Refusal(status, message)) => return json(status, &W::error(status, &message)),
    };
    let replies = vec![reply(&asked); asked.choices.max(1)];
    let (model, fault) = asked.model.split_once("--").unwrap_or((&asked.model, ""));
    if let Some(failure) = failure::<W>(state, headers, &asked.model, fault).await {
        return failure;
    }
    if asked.stream {
        let events = W::events(model, &replies);
        return events_with::<W>(state, events, fault);
    }
    match fault {
        "malformed" => text(200, "application/json", "{\"id\": \"1\", \"cho".to_owned()),
        "shape" => json(200, &serde_json::json!({"hello": "world"})),
        "error-in-200" => json(200, &W::error(500, "the model is on fire")),
        "cut" | "cut-clean" => broken(state, vec![W::plain(model, &replies).to_string()[..20].to_owned()]),
        "stall" => stalled(state, vec![W::plain(model, &replies).to_string()[..20].to_owned()], "application/json"),
        _ => json(200, &W::plain(model, &replies)),
    }
}

/// What goes wrong before there is an answer.
async fn failure<W: Wire>(state: &State, headers: &HeaderMap, model: &str, fault: &str) -> Option<Response<Body>> {
    let first = state.count(model) == 0;
    let failed = |status: u16, message: &str| Some(json(status, &W::error(status, message)));
    let after = |mut response: Response<Body>, seconds: &'static str| {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(seconds));
        Some(response)
    };
    match fault {
        "busy" => after(failed(429, "too many requests")?, "30"),
        "busy-once" if first => after(failed(429, "too many requests")?, "0"),
        "down" => failed(500, "out of order"),
        "down-once" if first => failed(503, "out of order"),
        "overloaded-once" if first => failed(529, "overloaded"),
        "unknown" => failed(404, "no such model"),
        "html" => Some(text(502, "text/html", "<html>Bad gateway</html>".to_owned())),
        "echo" => {
            let keys = ["authorization", "x-api-key", "api-key"].map(|name| headers.get(name));
            let keys: Vec<&str> = keys.into_iter().flatten().filter_map(|key| key.to_str().ok()).collect();
            failed(400, &format!("what is {}?", keys.join(" or ")))
        }
        "redirect" => {
            let mut response = text(307, "text/plain", String::new());
            response.headers_mut().insert(header::LOCATION, HeaderValue::from_static("/stolen"));
            Some(response)
        }
        "slow" => {
            // Nobody waits for that long.
            tokio::time::sleep(Duration::from_secs(600)).await;
            None
        }
        _ => None,
    }
}

/// A stream, or one that goes wrong.
fn events_with<W: Wire>(state: &Arc<State>, events: Vec<String>, fault: &str) -> Response<Body> {
    let error = || W::stream_error("the model is on fire");
    // Behind the beginning of the answer.
    let some = || events[..events.len() * 3 / 4].to_vec();
    match fault {
        "malformed" => streamed(state, [some(), vec!["data: {\"id\": \n\n".to_owned()]].concat()),
        "error-in-200" => streamed(state, vec![error()]),
        "error-in-200-once" if state.count("error-in-200-once") == 0 => streamed(state, vec![error()]),
        "error-later" => streamed(state, [some(), vec![error()]].concat()),
        "echo-later" => {
            let error = W::stream_error(&format!("{STUB_KEY} and {STUB_TOKEN} are on fire"));
            streamed(state, [some(), vec![error]].concat())
        }
        "cut" => broken(state, some()),
        "cut-clean" => streamed(state, some()),
        "stall" => stalled(state, some(), "text/event-stream"),
        _ => streamed(state, events),
    }
}

/// Bytes as they are.
type Pieces = BoxStream<'static, Result<Bytes, std::io::Error>>;

fn streamed(state: &Arc<State>, events: Vec<String>) -> Response<Body> {
    body(state, "text/event-stream; charset=utf-8", pieces(events))
}

/// Ends in the middle of a chunk.
fn broken(state: &Arc<State>, events: Vec<String>) -> Response<Body> {
    let kind = if events[0].starts_with('{') { "application/json" } else { "text/event-stream" };
    let cut = stream::once(async {
        // What was said before is to arrive.
        tokio::time::sleep(Duration::from_millis(50)).await;
        Err(std::io::Error::other("cut"))
    });
    body(state, kind, pieces(events).chain(cut).boxed())
}

/// Never ends.
fn stalled(state: &Arc<State>, events: Vec<String>, kind: &'static str) -> Response<Body> {
    body(state, kind, pieces(events).chain(stream::pending()).boxed())
}

fn pieces(events: Vec<String>) -> Pieces {
    let pieces = stream::iter(events).then(|event| async {
        // So that each comes alone.
        tokio::task::yield_now().await;
        Ok::<_, Infallible>(Bytes::from(event))
    });
    pieces.map(|piece| piece.map_err(|never| match never {})).boxed()
}

/// A body that counts as open until it is read or given up.
fn body(state: &Arc<State>, kind: &'static str, pieces: Pieces) -> Response<Body> {
    let guard = Open::new(state);
    let pieces = pieces.map(move |piece| {
        let _open = &guard;
        piece
    });
    let mut response = Response::new(Body::from_stream(pieces));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

struct Open(Arc<State>);

impl Open {
    fn new(state: &Arc<State>) -> Self {
        state.open.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(state))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

pub(super) fn json(status: u16, value: &Value) -> Response<Body> {
    text(status, "application/json", value.to_string())
}

pub(super) fn text(status: u16, kind: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// An event without a name.
pub(super) fn data(value: &Value) -> String {
    format!("data: {value}\n\n")
}
