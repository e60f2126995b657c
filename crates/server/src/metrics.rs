//! Numbers about the server's work, for Prometheus.
//!
//! Owns the names of the metrics and the recorder. Knows no request but for its route, status and tokens.

use std::sync::OnceLock;
use std::time::Instant;

use futures::StreamExt;
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use crate::models::{ModelState, ModelStatus};
use crate::providers::{Answer, AnswerEvent, ProviderLoad};
use crate::wire::options::Usage;

const REQUESTS: &str = "hearth_http_requests_total";
const REQUEST_SECONDS: &str = "hearth_http_request_seconds";
const PROMPT_TOKENS: &str = "hearth_prompt_tokens_total";
const COMPLETION_TOKENS: &str = "hearth_completion_tokens_total";
const FIRST_TOKEN_SECONDS: &str = "hearth_time_to_first_token_seconds";
const UNFINISHED: &str = "hearth_unfinished_answers_total";
const RUNNING: &str = "hearth_requests_running";
const WAITING: &str = "hearth_requests_waiting";
const BLOCKS_USED: &str = "hearth_kv_blocks_used";
const BLOCKS_TOTAL: &str = "hearth_kv_blocks";
const MODEL_LOADED: &str = "hearth_model_loaded";
const MODEL_LOADS: &str = "hearth_model_loads";
const MODEL_LOAD_SECONDS: &str = "hearth_model_load_seconds";
const MODEL_MEMORY: &str = "hearth_model_memory_bytes";
const MEMORY_RESERVED: &str = "hearth_memory_reserved_bytes";
const MEMORY_TOTAL: &str = "hearth_memory_total_bytes";

/// Upper bounds of the histograms' buckets, in seconds.
const BUCKETS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];

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
    let builder = PrometheusBuilder::new();
    // Refused only for an empty list of buckets.
    let builder = builder.set_buckets(&BUCKETS).unwrap_or_else(|_| PrometheusBuilder::new());
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    if metrics::set_global_recorder(recorder).is_err() {
        tracing::warn!("another recorder of metrics is installed; /metrics stays empty");
    }
    describe_counter!(REQUESTS, "HTTP requests by route and status");
    describe_histogram!(REQUEST_SECONDS, "Seconds from a request's arrival to the head of its answer");
    describe_counter!(PROMPT_TOKENS, "Tokens read, by model");
    describe_counter!(COMPLETION_TOKENS, "Tokens generated in finished answers, by model");
    describe_histogram!(
        FIRST_TOKEN_SECONDS,
        "Seconds from a request's arrival at its model to the first of its answer"
    );
    describe_counter!(UNFINISHED, "Answers that failed or whose caller went away, by model");
    describe_gauge!(RUNNING, "Sequences in the batch, by model");
    describe_gauge!(WAITING, "Sequences in the queue, by model");
    describe_gauge!(BLOCKS_USED, "Blocks of the cache that hold tokens, by model");
    describe_gauge!(BLOCKS_TOTAL, "Blocks of the cache, by model");
    describe_gauge!(MODEL_LOADED, "1 where the model is in memory and answers, by model");
    describe_gauge!(MODEL_LOADS, "Times the model was loaded since the start, by model");
    describe_gauge!(MODEL_LOAD_SECONDS, "Seconds that the model's last load took, by model");
    describe_gauge!(MODEL_MEMORY, "Bytes that are reserved for the model, by model");
    describe_gauge!(MEMORY_RESERVED, "Bytes that are reserved for all models");
    describe_gauge!(MEMORY_TOTAL, "Bytes that there are for models");
    handle
}

/// One answered request. `route` is the pattern and not the path, so that callers cannot make new series.
pub fn request(route: &str, method: &str, status: u16, seconds: f64) {
    let route = route.to_owned();
    let labels = [("route", route.clone()), ("method", method.to_owned()), ("status", status.to_string())];
    counter!(REQUESTS, &labels).increment(1);
    histogram!(REQUEST_SECONDS, "route" => route).record(seconds);
}

/// The tokens of a finished request.
pub fn usage(endpoint: &str, usage: Usage) {
    counter!(PROMPT_TOKENS, "model" => endpoint.to_owned()).increment(usage.prompt_tokens as u64);
    counter!(COMPLETION_TOKENS, "model" => endpoint.to_owned()).increment(usage.completion_tokens as u64);
}

/// How busy an endpoint's model is right now.
pub fn load(endpoint: &str, load: ProviderLoad) {
    let numbers = [
        (RUNNING, load.running),
        (WAITING, load.waiting),
        (BLOCKS_USED, load.blocks_used),
        (BLOCKS_TOTAL, load.blocks_total),
    ];
    for (name, number) in numbers {
        gauge!(name, "model" => endpoint.to_owned()).set(number as f64);
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

/// Counts an answer while it goes by. `asked` is when its model was called.
pub fn measured(answer: Answer, endpoint: &str, asked: Instant) -> Answer {
    let mut meter = Meter {
        endpoint: endpoint.to_owned(),
        asked,
        begun: false,
        unfinished: answer.choices,
        usage: Usage::default(),
    };
    let events = answer.events.inspect(move |event| {
        if let Ok(event) = event {
            meter.count(event);
        }
    });
    Answer { choices: answer.choices, events: events.boxed() }
}

/// The count of one answer; it is settled when the answer's stream is dropped, however far that came.
struct Meter {
    endpoint: String,
    asked: Instant,
    begun: bool,
    unfinished: usize,
    usage: Usage,
}

impl Meter {
    fn count(&mut self, event: &AnswerEvent) {
        if !self.begun {
            self.begun = true;
            let seconds = self.asked.elapsed().as_secs_f64();
            histogram!(FIRST_TOKEN_SECONDS, "model" => self.endpoint.clone()).record(seconds);
        }
        if let AnswerEvent::Finished { usage, .. } = event {
            self.unfinished = self.unfinished.saturating_sub(1);
            self.usage = *usage;
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        usage(&self.endpoint, self.usage);
        if self.unfinished > 0 {
            counter!(UNFINISHED, "model" => self.endpoint.clone()).increment(1);
        }
    }
}
