//! `hearth serve`: models over HTTP.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use hearth::config::ConfigError;
use hearth::connections::{self, within_open_files};
use hearth::endpoints::Endpoint;
use hearth::models::{Models, Residence};
use hearth::serve::{App, ConnectionLimits, ServeSettings, serve};
use tokio::signal::unix::{SignalKind, signal};

use super::limits::LimitArguments;
use super::load::{LoadArguments, ModelArgument, ModelArguments, free_memory, shares};
use super::logs::LogArguments;
use super::state::{StateArguments, open_store};
use super::terminal::say;

/// What is served when no model is named: a small one of each kind.
const DEFAULT_PAIR: [&str; 2] = ["smollm2-135m-instruct", "all-minilm-l6-v2"];

/// Arguments of `hearth serve`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Model to serve, under its own name or another; may be repeated [default: a small chat and an embedding model]
    #[arg(long = "model", value_name = "[NAME=]MODEL")]
    models: Vec<String>,
    /// Address to listen on; one that other machines reach needs a token, of `hearth token create` or in HEARTH_TOKEN
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,
    /// Port to listen on; 0 takes any free one
    #[arg(long, default_value_t = 8080)]
    port: u16,
    #[command(flatten)]
    state: StateArguments,
    /// Seconds that answers get to come to their end after SIGINT or SIGTERM
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    drain_timeout: u64,
    /// Load each model at its first request, and not at the start; one that nobody uses goes when another needs its memory
    #[arg(long)]
    on_demand: bool,
    /// Seconds after which a model that was loaded on demand and is not used is unloaded [default: it stays]
    #[arg(long, value_name = "SECONDS", requires = "on_demand", value_parser = clap::value_parser!(u64).range(1..))]
    keep_alive: Option<u64>,
    /// Most connections that are answered at a time; with more, health checks are answered and the rest gets 503
    #[arg(long, default_value_t = ConnectionLimits::default().most, value_name = "COUNT")]
    max_connections: usize,
    #[command(flatten)]
    pub(super) log: LogArguments,
    #[command(flatten)]
    limits: LimitArguments,
    #[command(flatten)]
    load: LoadArguments,
}

/// Listens at once, loads the models, and answers until SIGINT or SIGTERM.
pub(super) fn main(mut arguments: Arguments) -> Result<()> {
    if arguments.models.is_empty() {
        arguments.models = DEFAULT_PAIR.map(str::to_owned).to_vec();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(listen(&arguments));
    // A model that is still loading does not hold up the end of the program.
    runtime.shutdown_background();
    served
}

async fn listen(arguments: &Arguments) -> Result<()> {
    let connections = ConnectionLimits { most: arguments.max_connections, ..ConnectionLimits::default() };
    let settings =
        ServeSettings { host: arguments.host, port: arguments.port, connections, ..ServeSettings::from_environment() };
    let config = arguments.limits.settings(arguments.state.settings(settings)).check()?;
    let connections = ConnectionLimits { most: within_open_files(config.connections.most), ..config.connections };
    let options = arguments.load.options();
    let keep_alive = arguments.keep_alive.map(Duration::from_secs);
    let models = Models::new(free_memory(&options)?, options.overcommit, keep_alive);
    let store = open_store(&config).await?;
    let hosting = Arc::new(ModelArguments::new(arguments.limits.clone(), options));
    let app = App::with_store(config.access, config.limits, models, store, hosting).await?;
    if !app.gate().is_open_to_somebody() {
        return Err(ConfigError::TokenRequired { host: arguments.host }.into());
    }
    let models: Vec<(String, String)> = arguments.models.iter().map(|model| named(model)).collect();
    for (name, _) in &models {
        app.endpoints().announce(name)?;
    }
    let listener =
        connections::listen(config.address).with_context(|| format!("cannot listen on {}", config.address))?;
    say(format_args!("listening on http://{}", listener.local_addr()?));
    let loading = host_all(&app, models, arguments);
    let drain = Duration::from_secs(arguments.drain_timeout);
    let serving = serve(listener, app.clone(), connections, drain, stopped()?);
    tokio::pin!(loading, serving);
    tokio::select! {
        () = &mut serving => return Ok(()),
        loaded = &mut loading => loaded?,
    }
    say(format_args!("ready"));
    serving.await;
    Ok(())
}

/// Puts every model behind its endpoint; those that are not loaded on demand one after the other, as soon as they answer.
async fn host_all(app: &App, models: Vec<(String, String)>, arguments: &Arguments) -> Result<()> {
    let options = arguments.load.options();
    let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let shares = match arguments.on_demand {
        true => vec![None; models.len()],
        false => {
            let all: Vec<&str> = models.iter().map(|(_, model)| model.as_str()).collect();
            shares(&all, &options)?
        }
    };
    for ((name, model), share) in models.into_iter().zip(shares) {
        let options = arguments.limits.options(&name, options.clone());
        let source = Arc::new(ModelArgument::new(name.clone(), model, options, share)?);
        let residence = if arguments.on_demand { Residence::OnDemand } else { Residence::Kept };
        let key = source.key();
        let hosted = app.models().host(&name, source, residence);
        app.control()?.adopt(key, hosted.clone());
        if residence == Residence::Kept && hosted.load().await.is_err() {
            let reason = hosted.failure().map_or_else(|| "unknown".to_owned(), |failure| failure.to_string());
            bail!("{reason}");
        }
        app.endpoints().insert(Endpoint::new(name, Arc::new(hosted), created)?)?;
    }
    Ok(())
}

/// Endpoint name and model of a `--model` argument. Without `NAME=` the endpoint is called as the model, or as the
/// last part of its path.
fn named(argument: &str) -> (String, String) {
    if let Some((name, model)) = argument.split_once('=') {
        return (name.to_owned(), model.to_owned());
    }
    let last = argument.trim_end_matches('/').rsplit('/').next().unwrap_or(argument);
    (last.strip_suffix(".gguf").unwrap_or(last).to_owned(), argument.to_owned())
}

/// Done on the first SIGINT or SIGTERM. A second one ends the program at once.
fn stopped() -> Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        say(format_args!("stopping: answers that have begun come to their end; a second signal stops at once"));
        tokio::spawn(async move {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            std::process::exit(130);
        });
    })
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn an_endpoint_is_named_by_its_model_or_by_name() {
        let pair = |name: &str, model: &str| (name.to_owned(), model.to_owned());
        assert_eq!(named("smollm2-135m-instruct"), pair("smollm2-135m-instruct", "smollm2-135m-instruct"));
        assert_eq!(named("chat=models/a.gguf"), pair("chat", "models/a.gguf"));
        assert_eq!(named("models/SmolLM2.Q4_1.gguf"), pair("SmolLM2.Q4_1", "models/SmolLM2.Q4_1.gguf"));
        assert_eq!(named("BAAI/bge-small-en-v1.5"), pair("bge-small-en-v1.5", "BAAI/bge-small-en-v1.5"));
        assert_eq!(named("./folder/"), pair("folder", "./folder/"));
    }
}
