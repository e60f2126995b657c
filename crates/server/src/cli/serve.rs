//! `hearth serve`: models over HTTP.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use hearth::config::{ConfigError, ConfigFile, DeclaredEndpoint};
use hearth::connections::{self, Listener, Tls, TlsFiles, within_open_files};
use hearth::control::Sources;
use hearth::endpoints::Endpoint;
use hearth::gate::Origin;
use hearth::models::{Models, Residence};
use hearth::secrets::Secrets;
use hearth::serve::{App, ConnectionLimits, ServeConfig, ServeSettings, serve};
use hearth::usage::{Ingest, Retention, record_lasting};
use hearth::wire::serving::AiGateway;
use tokio::signal::unix::{SignalKind, signal};

use super::external::ExternalArguments;
use super::file::{budgets, check_policies};
use super::guardrails::GuardrailArguments;
use super::limits::LimitArguments;
use super::load::{LoadArguments, ModelArgument, ModelArguments, free_memory, shares};
use super::logs::LogArguments;
use super::state::{StateArguments, open_journal, open_store};
use super::terminal::say;

/// What is served when no model is named: a small one of each kind.
const DEFAULT_PAIR: [&str; 2] = ["smollm2-135m-instruct", "all-minilm-l6-v2"];

/// Arguments of `hearth serve`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Configuration file: settings, which flags go before, endpoints and principals; `hearth check-config` checks one
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The file, once it was read
    #[arg(skip)]
    pub(super) file: Option<Box<ConfigFile>>,
    /// Model to serve, under its own name or another; may be repeated [default: a small chat and an embedding model]
    #[arg(long = "model", value_name = "[NAME=]MODEL")]
    models: Vec<String>,
    /// Address to listen on; one that other machines reach needs a token, of `hearth token create` or in HEARTH_TOKEN
    #[arg(long, default_value = "127.0.0.1")]
    pub(super) host: IpAddr,
    /// Port to listen on; 0 takes any free one
    #[arg(long, default_value_t = 8080)]
    pub(super) port: u16,
    #[command(flatten)]
    state: StateArguments,
    /// Days after which usage is removed from the store [default: it stays]
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    usage_days: Option<u32>,
    /// Days after which rows of inference tables are removed from the store [default: they stay]
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    payload_days: Option<u32>,
    /// Certificate for TLS (PEM), with those between it and an authority that clients know; read again at SIGHUP
    #[arg(long, value_name = "FILE")]
    pub(super) tls_certificate: Option<PathBuf>,
    /// Private key of the certificate (PEM)
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Site whose pages may call from a browser, as in https://app.example.org; may be repeated [default: none]
    #[arg(long = "cors-origin", value_name = "ORIGIN")]
    pub(super) cors_origins: Vec<Origin>,
    /// Seconds that answers get to come to their end after SIGINT or SIGTERM
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    drain_timeout: u64,
    /// Load each model at its first request, and not at the start; one that nobody uses goes when another needs its memory
    #[arg(long)]
    pub(super) on_demand: bool,
    /// Seconds after which a model that was loaded on demand and is not used is unloaded [default: it stays]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    keep_alive: Option<u64>,
    /// Most connections that are answered at a time; with more, health checks are answered and the rest gets 503
    #[arg(long, default_value_t = 4096, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    max_connections: u32,
    #[command(flatten)]
    pub(super) log: LogArguments,
    #[command(flatten)]
    limits: LimitArguments,
    #[command(flatten)]
    external: ExternalArguments,
    #[command(flatten)]
    guardrails: GuardrailArguments,
    #[command(flatten)]
    load: LoadArguments,
}

/// An endpoint that is there from the start.
struct Served {
    name: String,
    model: String,
    on_demand: bool,
    gateway: AiGateway,
}

impl Arguments {
    /// The settings, checked.
    ///
    /// # Errors
    /// What cannot be used.
    pub(super) fn check(&self) -> Result<ServeConfig> {
        let tls = match (self.tls_certificate.clone(), self.tls_key.clone()) {
            (Some(certificate), Some(key)) => Some(TlsFiles { certificate, key }),
            (None, None) => None,
            _ => bail!("TLS takes both a certificate (--tls-certificate) and its key (--tls-key)"),
        };
        let (host, port, origins) = (self.host, self.port, self.cors_origins.clone());
        let connections = ConnectionLimits { most: self.max_connections as usize, ..ConnectionLimits::default() };
        let settings = ServeSettings { host, port, connections, tls, origins, ..ServeSettings::from_environment() };
        Ok(self.guardrails.settings(self.limits.settings(self.state.settings(settings))).check()?)
    }

    /// What is declared in the configuration file, with the models that are named here; where neither names any, the default.
    fn served(&self) -> Vec<Served> {
        let declared = self.file.as_ref().and_then(|file| file.declared.endpoints.as_ref());
        let of_file = |endpoint: &DeclaredEndpoint| Served {
            name: endpoint.name.clone(),
            model: endpoint.model.clone(),
            on_demand: endpoint.on_demand.unwrap_or(self.on_demand),
            gateway: endpoint.gateway.clone().map(|(_, gateway)| gateway).unwrap_or_default(),
        };
        let mut served: Vec<Served> = declared.into_iter().flatten().map(of_file).collect();
        let of_file = served.len();
        let of_flag = |argument: &str| {
            let (name, model) = named(argument);
            Served { name, model, on_demand: self.on_demand, gateway: AiGateway::default() }
        };
        for flag in self.models.iter().map(|argument| of_flag(argument)) {
            match served[..of_file].iter_mut().find(|endpoint| endpoint.name == flag.name) {
                Some(endpoint) => endpoint.model = flag.model,
                None => served.push(flag),
            }
        }
        if served.is_empty() && declared.is_none() {
            served.extend(DEFAULT_PAIR.map(of_flag));
        }
        served
    }
}

/// Listens at once, loads the models, and answers until SIGINT or SIGTERM.
pub(super) fn main(arguments: &Arguments) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(listen(arguments));
    // A model that is still loading does not hold up the end of the program.
    runtime.shutdown_background();
    served
}

async fn listen(arguments: &Arguments) -> Result<()> {
    let mut config = arguments.check()?;
    let tls = config.tls.take().map(Tls::load).transpose()?.map(Arc::new);
    let (address, most) = (config.address, within_open_files(config.connections.most));
    let connections = ConnectionLimits { most, ..config.connections };
    let app = begin(config, arguments).await?;
    let served = arguments.served();
    for Served { name, .. } in &served {
        app.endpoints().announce(name)?;
    }
    let socket = connections::listen(address).with_context(|| format!("cannot listen on {address}"))?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    say(format_args!("listening on {scheme}://{}", socket.local_addr()?));
    if let Some(tls) = &tls {
        reload_at_hangup(Arc::clone(tls))?;
    }
    let loading = host_all(&app, served, arguments);
    let drain = Duration::from_secs(arguments.drain_timeout);
    let serving = serve(Listener::new(socket, tls), app.clone(), connections, drain, stopped()?);
    tokio::pin!(loading, serving);
    tokio::select! {
        () = &mut serving => return Ok(()),
        loaded = &mut loading => loaded?,
    }
    say(format_args!("ready"));
    serving.await;
    Ok(())
}

/// The server with what its store has, and with what the configuration file declares.
async fn begin(config: ServeConfig, arguments: &Arguments) -> Result<App> {
    let options = arguments.load.options();
    let keep_alive = arguments.keep_alive.map(Duration::from_secs);
    let models = Models::new(free_memory(&options)?, options.overcommit, keep_alive);
    let store = open_store(&config).await?;
    let days = |days: u32| Duration::from_secs(u64::from(days) * 24 * 3600);
    let kept = Retention { usage: arguments.usage_days.map(days), payloads: arguments.payload_days.map(days) };
    let ingest = Ingest::new(open_journal(&config)?, store.clone(), kept);
    let secrets = Secrets::new(store, config.secrets_key);
    if let Err(error) = secrets.check().await {
        // What needs no secrets is served all the same.
        tracing::error!("secrets cannot be used: {error}");
    }
    let hosting = Arc::new(ModelArguments::new(arguments.limits.clone(), options));
    if let Some(file) = &arguments.file {
        check_policies(file, &config.access.aides)?;
    }
    let sources = Sources { models, hosting, external: arguments.external.settings() };
    let app = App::with_store(config.access, config.limits, secrets, sources).await?.with_usage(ingest);
    if let Some(file) = &arguments.file {
        app.gate().counters().declare(budgets(file)?);
        app.control()?.declare(&file.declared).await.with_context(|| file.path.display().to_string())?;
    }
    if !app.gate().is_open_to_somebody() {
        return Err(ConfigError::TokenRequired { host: arguments.host }.into());
    }
    Ok(app)
}

/// Puts every model behind its endpoint; those that are not loaded on demand one after the other, as soon as they answer.
async fn host_all(app: &App, served: Vec<Served>, arguments: &Arguments) -> Result<()> {
    let options = arguments.load.options();
    let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let kept: Vec<&str> = served.iter().filter(|one| !one.on_demand).map(|one| one.model.as_str()).collect();
    let mut shares = if kept.is_empty() { Vec::new() } else { shares(&kept, &options)? }.into_iter();
    for Served { name, model, on_demand, gateway } in served {
        let options = arguments.limits.options(&name, options.clone());
        let share = if on_demand { None } else { shares.next().flatten() };
        let source = Arc::new(ModelArgument::new(name.clone(), model, options, share)?);
        let residence = if on_demand { Residence::OnDemand } else { Residence::Kept };
        let key = source.key();
        let hosted = app.models().host(&name, source, residence);
        app.control()?.adopt(key, hosted.clone());
        if residence == Residence::Kept && hosted.load().await.is_err() {
            let reason = hosted.failure().map_or_else(|| "unknown".to_owned(), |failure| failure.to_string());
            bail!("{reason}");
        }
        let endpoint = Endpoint::new(name, Arc::new(hosted), created)?
            .with_usage(gateway.tracks_usage())
            .with_policies(app.policies(&gateway));
        record_lasting(app.control()?.store(), &endpoint).await?;
        app.endpoints().insert(endpoint)?;
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

/// Reads the certificate again at each SIGHUP.
fn reload_at_hangup(tls: Arc<Tls>) -> Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            match tls.reload() {
                Ok(()) => say(format_args!("the certificate was read again")),
                Err(error) => tracing::error!("{error}; the one that was read before stays"),
            }
        }
    });
    Ok(())
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
