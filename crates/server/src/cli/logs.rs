//! Where the program's words about itself go: lines on stderr, and spans to a collector if one is named.

use std::future::Future;
use std::io::{self, IsTerminal};
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context, Result};
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// How long a collector may take for a batch of spans, and at the program's end for the last ones.
const EXPORT: Duration = Duration::from_secs(5);

/// How lines of the log are written.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Arguments about the log.
#[derive(clap::Args, Clone, Debug, Default)]
pub(super) struct LogArguments {
    /// How the log is written; HEARTH_LOG says what is, as in `info,hearth=debug`
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    log_format: LogFormat,
    /// Collector of spans (OTLP over HTTP), as in http://127.0.0.1:4318; without one, none are sent
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    otlp_endpoint: Option<String>,
}

/// The log while it is written. Dropping it sends the last spans.
pub(super) struct Log(Option<SdkTracerProvider>);

impl Drop for Log {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.0.take().map(|spans| spans.shutdown_with_timeout(EXPORT)) {
            super::terminal::say(format_args!("the last spans were not sent: {error}"));
        }
    }
}

impl LogArguments {
    /// Begins the log of what `filter` lets through.
    ///
    /// # Errors
    /// When the collector's address is none.
    pub(super) fn begin(&self, filter: EnvFilter) -> Result<Log> {
        let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
        let lines = match self.log_format {
            LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).boxed(),
            LogFormat::Json => lines.json().boxed(),
        };
        // A variable that is empty counts as one that is not there.
        let endpoint = self.otlp_endpoint.as_deref().filter(|endpoint| !endpoint.is_empty());
        let spans = endpoint.map(exported).transpose()?;
        let exporting = spans.as_ref().map(|spans| {
            let layer = tracing_opentelemetry::layer().with_tracer(spans.tracer("hearth"));
            layer.with_location(false).with_threads(false).with_tracked_inactivity(false)
        });
        tracing_subscriber::registry().with(filter).with(lines).with(exporting).init();
        Ok(Log(spans))
    }
}

/// Spans that go to a collector, in batches, from a thread of their own.
fn exported(endpoint: &str) -> Result<SdkTracerProvider> {
    let agent = ureq::Agent::config_builder().timeout_global(Some(EXPORT)).http_status_as_error(false).build();
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Collector(agent.into()))
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
        .with_timeout(EXPORT)
        .build()
        .with_context(|| format!("--otlp-endpoint {endpoint}"))?;
    let resource = Resource::builder().with_service_name("hearth").build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

/// The collector. Waiting for it holds up nobody: the exporter has a thread of its own.
#[derive(Debug)]
struct Collector(ureq::Agent);

impl HttpClient for Collector {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let sent = self.0.run(request.map(|bytes| bytes.to_vec())).map_err(HttpError::from).and_then(|answer| {
                let (head, mut body) = answer.into_parts();
                Ok(Response::from_parts(head, body.read_to_vec()?.into()))
            });
            // The exporter keeps it to itself.
            match &sent {
                Err(error) => tracing::warn!(%error, "spans could not be sent"),
                Ok(answer) if !answer.status().is_success() => {
                    tracing::warn!(status = answer.status().as_u16(), "the collector takes no spans");
                }
                Ok(_) => {}
            }
            sent
        })
    }
}
