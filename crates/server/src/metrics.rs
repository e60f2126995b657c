//! Numbers about the server's work, for Prometheus.
//!
//! Owns the names of the metrics and the recorder. Knows no request but for its route, status and tokens.

use std::future::Future;
use std::sync::OnceLock;
use std::time::Instant;

use futures::StreamExt;
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing::Span;

use crate::models::{ModelState, ModelStatus};
use crate::providers::{Answer, AnswerEvent, ProviderError, ProviderLoad};
use crate::wire::options::{FinishReason, Usage};

const REQUESTS: &str = "hearth_http_requests_total";
const REQUEST_SECONDS: &str = "hearth_http_request_seconds";
const PROMPT_TOKENS: &str = "hearth_prompt_tokens_total";
const COMPLETION_TOKENS: &str = "hearth_completion_tokens_total";
const FIRST_TOKEN_SECONDS: &str = "hearth_time_to_first_token_seconds";
const ANSWER_SECONDS: &str = "hearth_request_seconds";
const FINISHED: &str = "hearth_requests_finished_total";
const RUNNING: &str = "hearth_requests_running";
const WAITING: &str = "hearth_requests_waiting";
const CONNECTIONS: &str = "hearth_connections";
const BLOCKS_USED: &str = "hearth_kv_blocks_used";
const BLOCKS_CACHED: &str = "hearth_kv_blocks_cached";
const BLOCKS_TOTAL: &str = "hearth_kv_blocks";
const PREEMPTIONS: &str = "hearth_preemptions_total";
const PREFIX_QUERIED: &str = "hearth_prefix_cache_queries_total";
const PREFIX_HIT: &str = "hearth_prefix_cache_hits_total";
const MODEL_LOADED: &str = "hearth_model_loaded";
const MODEL_LOADS: &str = "hearth_model_loads";
const MODEL_LOAD_SECONDS: &str = "hearth_model_load_seconds";
const MODEL_MEMORY: &str = "hearth_model_memory_bytes";
const MEMORY_RESERVED: &str = "hearth_memory_reserved_bytes";
const MEMORY_TOTAL: &str = "hearth_memory_total_bytes";
const USAGE_LOST: &str = "hearth_usage_lost_total";
const USAGE_WAITING: &str = "hearth_usage_waiting_bytes";

/// Upper bounds of the histograms' buckets, in seconds: from the time of a token to that of a long answer.
const SECONDS: [f64; 18] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];
/// Upper bounds where tokens are counted.
const TOKENS: [f64; 14] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0];

/// The numbers as text. One recorder serves the process, however many servers it holds.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// The process's metrics; the first call starts the recording.
    pub fn of_process() -> Self {
        static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
        Self(HANDLE.get_or_init(install).clone())
    }

    /// The text form that Prometheus reads.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Folds what was recorded since the last call, which bounds the memory while nobody reads the metrics.
    pub fn fold(&self) {
        self.0.run_upkeep();
    }
}

fn install() -> PrometheusHandle {
    // Refused only for an empty list of buckets.
    let builder = buckets().unwrap_or_else(|_| PrometheusBuilder::new());
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    if metrics::set_global_recorder(recorder).is_err() {
        tracing::warn!("another recorder of metrics is installed; /metrics stays empty");
    }
    describe_counter!(REQUESTS, "HTTP requests by route and status");
    describe_histogram!(REQUEST_SECONDS, "Seconds from a request's arrival to the head of its answer");
    describe_counter!(PROMPT_TOKENS, "Tokens read, by model");
    describe_counter!(COMPLETION_TOKENS, "Tokens generated in finished choices, by model");
    describe_histogram!(
        FIRST_TOKEN_SECONDS,
        "Seconds from a request's arrival at its model to the first of its answer"
    );
    describe_histogram!(ANSWER_SECONDS, "Seconds from a request's arrival at its model to the end of its answer");
    describe_counter!(
        FINISHED,
        "Choices that a model ended, by model and reason: stop, length, tool_calls, content_filter, deadline, error, or cancelled by the \
         caller; an embedding or reranking call counts as one"
    );
    describe_gauge!(RUNNING, "Sequences in the batch, or calls that have begun, by model");
    describe_gauge!(WAITING, "Sequences or calls in the queue, by model");
    describe_gauge!(BLOCKS_USED, "Blocks of the cache that sequences hold, by model");
    describe_gauge!(BLOCKS_CACHED, "Blocks of the cache that are kept for prompts that begin alike, by model");
    describe_gauge!(CONNECTIONS, "Open connections");
    describe_gauge!(BLOCKS_TOTAL, "Blocks of the cache, by model");
    describe_counter!(PREEMPTIONS, "Times a sequence lost its cache to an older one, by model");
    describe_counter!(PREFIX_QUERIED, "Tokens of prompts that were looked up in the cache, by model");
    describe_counter!(PREFIX_HIT, "Tokens of prompts that were found in the cache and not computed, by model");
    describe_gauge!(MODEL_LOADED, "1 where the model is in memory and answers, by model");
    describe_gauge!(MODEL_LOADS, "Times the model was loaded since the start, by model");
    describe_gauge!(MODEL_LOAD_SECONDS, "Seconds that the model's last load took, by model");
    describe_gauge!(MODEL_MEMORY, "Bytes that are reserved for the model, by model");
    describe_gauge!(MEMORY_RESERVED, "Bytes that are reserved for all models");
    describe_gauge!(MEMORY_TOTAL, "Bytes that there are for models");
    describe_counter!(USAGE_LOST, "Requests that were answered and could not be written down in the usage");
    describe_gauge!(USAGE_WAITING, "Bytes of usage that are in the journal and not in the store yet");
    counter!(USAGE_LOST).absolute(0);
    handle
}

fn buckets() -> Result<PrometheusBuilder, BuildError> {
    let builder = PrometheusBuilder::new().set_buckets(&SECONDS)?;
    builder.set_buckets_for_metric(Matcher::Suffix("_tokens".to_owned()), &TOKENS)
}

/// One answered request. `route` is the pattern and not the path, so that callers cannot make new series.
pub fn request(route: &str, method: &str, status: u16, seconds: f64) {
    let route = route.to_owned();
    let labels = [("route", route.clone()), ("method", method.to_owned()), ("status", status.to_string())];
    counter!(REQUESTS, &labels).increment(1);
    histogram!(REQUEST_SECONDS, "route" => route).record(seconds);
}

/// The tokens of a finished request.
fn usage(endpoint: &str, usage: Usage) {
    counter!(PROMPT_TOKENS, "model" => endpoint.to_owned()).increment(usage.prompt_tokens as u64);
    counter!(COMPLETION_TOKENS, "model" => endpoint.to_owned()).increment(usage.completion_tokens as u64);
}

/// How busy an endpoint's model is right now.
pub fn load(endpoint: &str, load: ProviderLoad) {
    let numbers = [
        (RUNNING, load.running),
        (WAITING, load.waiting),
        (BLOCKS_USED, load.blocks_used),
        (BLOCKS_CACHED, load.blocks_cached),
        (BLOCKS_TOTAL, load.blocks_total),
    ];
    for (name, number) in numbers {
        gauge!(name, "model" => endpoint.to_owned()).set(number as f64);
    }
    let counts =
        [(PREEMPTIONS, load.preemptions), (PREFIX_QUERIED, load.prefix_queried), (PREFIX_HIT, load.prefix_hit)];
    for (name, count) in counts {
        counter!(name, "model" => endpoint.to_owned()).absolute(count);
    }
}

/// Whether an endpoint's model is loaded, and what it holds.
pub fn hosted(endpoint: &str, status: &ModelStatus) {
    let set = |name: &'static str, number: f64| gauge!(name, "model" => endpoint.to_owned()).set(number);
    set(MODEL_LOADED, f64::from(u8::from(status.state == ModelState::Ready)));
    set(MODEL_LOADS, status.loads as f64);
    set(MODEL_MEMORY, status.memory as f64);
    if let Some(seconds) = status.load_seconds {
        set(MODEL_LOAD_SECONDS, seconds);
    }
}

/// The memory that models share: bytes reserved, and bytes in all.
pub fn memory((reserved, total): (u64, u64)) {
    gauge!(MEMORY_RESERVED).set(reserved as f64);
    gauge!(MEMORY_TOTAL).set(total as f64);
}

/// How many connections are open.
pub(crate) fn connections(open: usize) {
    gauge!(CONNECTIONS).set(open as f64);
}

/// Requests that are not accounted for.
pub(crate) fn usage_lost(requests: u64) {
    counter!(USAGE_LOST).increment(requests);
}

/// How much usage has not come to the store.
pub(crate) fn usage_waiting(bytes: u64) {
    gauge!(USAGE_WAITING).set(bytes as f64);
}

/// Counts an answer while it goes by, in the current span, which is the request's. `asked` is when its model was called.
pub fn measured(answer: Answer, endpoint: &str, asked: Instant) -> Answer {
    let mut meter = Meter::new(endpoint, asked, answer.choices);
    let events = answer.events.inspect(move |event| meter.count(event));
    Answer { choices: answer.choices, events: events.boxed() }
}

/// Counts a call that is answered in one piece, with the tokens that `tokens` finds in the answer.
///
/// # Errors
/// The call's own.
pub async fn measured_call<T>(
    call: impl Future<Output = Result<T, ProviderError>>,
    endpoint: &str,
    tokens: impl FnOnce(&T) -> usize,
) -> Result<T, ProviderError> {
    let mut meter = Meter::new(endpoint, Instant::now(), 1);
    let answer = call.await;
    match &answer {
        Ok(answer) => {
            meter.usage = Usage::new(tokens(answer), 0);
            meter.finish(1, "stop");
        }
        Err(error) => meter.fail(error),
    }
    answer
}

/// The count of one answer; it is settled when the answer's stream is dropped, however far that came.
struct Meter {
    endpoint: String,
    asked: Instant,
    begun: bool,
    unfinished: usize,
    usage: Usage,
    request: Span,
}

impl Meter {
    /// Of an answer in the current span, which is the request's.
    fn new(endpoint: &str, asked: Instant, choices: usize) -> Self {
        let request = Span::current();
        request.record("model", endpoint);
        Self {
            endpoint: endpoint.to_owned(),
            asked,
            begun: false,
            unfinished: choices,
            usage: Usage::default(),
            request,
        }
    }

    fn count(&mut self, event: &Result<AnswerEvent, ProviderError>) {
        let event = match event {
            Ok(event) => event,
            Err(error) => return self.fail(error),
        };
        if !self.begun {
            self.begun = true;
            self.record(FIRST_TOKEN_SECONDS);
        }
        if let AnswerEvent::Finished { usage, reason, .. } = event {
            self.usage = *usage;
            let reason = match reason {
                FinishReason::Stop => "stop",
                FinishReason::Length => "length",
                FinishReason::ToolCalls => "tool_calls",
                FinishReason::ContentFilter => "content_filter",
            };
            self.finish(1, reason);
        }
    }

    /// An error ends all choices that are left. What the caller was refused for is no work of the model.
    fn fail(&mut self, error: &ProviderError) {
        match error {
            ProviderError::Late { .. } => self.finish(self.unfinished, "deadline"),
            ProviderError::Failed(_) | ProviderError::Stopped(_) => self.finish(self.unfinished, "error"),
            ProviderError::Upstream(error) if !error.is_refusal() => self.finish(self.unfinished, "error"),
            _ => self.unfinished = 0,
        }
    }

    fn finish(&mut self, choices: usize, reason: &'static str) {
        let choices = choices.min(self.unfinished);
        self.unfinished -= choices;
        counter!(FINISHED, "model" => self.endpoint.clone(), "reason" => reason).increment(choices as u64);
        if self.unfinished == 0 && choices > 0 {
            self.record(ANSWER_SECONDS);
        }
    }

    fn record(&self, name: &'static str) {
        histogram!(name, "model" => self.endpoint.clone()).record(self.asked.elapsed().as_secs_f64());
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        usage(&self.endpoint, self.usage);
        // Collectors know signed numbers only.
        self.request.record("prompt_tokens", self.usage.prompt_tokens as i64);
        self.request.record("completion_tokens", self.usage.completion_tokens as i64);
        if self.unfinished > 0 {
            self.finish(self.unfinished, "cancelled");
        }
    }
}
