//! The way out: one pool of connections for all providers, made when the first request goes out and not before.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Request, Response, Uri};
use hyper_rustls::{ConfigBuilderExt, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls::crypto::ring;
use tokio::net::TcpStream;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

use super::ExternalSettings;
use super::protocol::Outgoing;
use crate::providers::{UpstreamError, UpstreamFailure};

/// How long a connection is kept that nobody uses: shorter than APIs keep theirs, so that no request goes into one that is
/// being closed.
const KEPT: Duration = Duration::from_secs(30);
/// What this server calls itself.
const NAME: HeaderValue = HeaderValue::from_static(concat!("hearth/", env!("CARGO_PKG_VERSION")));

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Connector = BoxCloneSyncService<Uri, MaybeHttpsStream<TokioIo<TcpStream>>, Failure>;

/// Sends requests to providers. It follows no redirects: a key goes where it was configured to go.
#[derive(Default)]
pub(super) struct Client(OnceLock<Pool<Connector, Full<Bytes>>>);

impl Client {
    /// Sends a request and waits for the head of the answer.
    ///
    /// # Errors
    /// Where there is none. The messages name no address.
    pub(super) async fn send(
        &self,
        outgoing: &Outgoing,
        key: Option<(HeaderName, HeaderValue)>,
        settings: &ExternalSettings,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let mut request = Request::new(Full::new(outgoing.body.clone()));
        *request.method_mut() = hyper::Method::POST;
        *request.uri_mut() = outgoing.uri.clone();
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, NAME);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in outgoing.headers.iter().cloned().chain(key) {
            headers.insert(name, value);
        }
        let pool = self.0.get_or_init(|| pool(settings.connect_timeout));
        match tokio::time::timeout(settings.first_byte_timeout, pool.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => {
                tracing::debug!(error = ?error, "a provider does not answer");
                Err(match error.is_connect() {
                    true => UpstreamError::new(UpstreamFailure::Unreachable, "cannot be reached"),
                    false => UpstreamError::new(UpstreamFailure::Failed, "closed the connection before it answered"),
                })
            }
            Err(_) => {
                let text = format!("did not answer within {:?}", settings.first_byte_timeout);
                Err(UpstreamError::new(UpstreamFailure::TimedOut, text))
            }
        }
    }
}

fn pool(connect_timeout: Duration) -> Pool<Connector, Full<Bytes>> {
    let mut http = HttpConnector::new();
    http.set_nodelay(true);
    http.enforce_http(false);
    let https = HttpsConnectorBuilder::new().with_tls_config(tls()).https_or_http().enable_http1().wrap_connector(http);
    let connector = https.map_future(move |connecting| async move {
        let late = |_| Failure::from("no connection in time");
        tokio::time::timeout(connect_timeout, connecting).await.map_err(late)?
    });
    let mut builder = Pool::builder(TokioExecutor::new());
    builder.pool_timer(TokioTimer::new()).pool_idle_timeout(KEPT);
    builder.build(BoxCloneSyncService::new(connector))
}

/// The system's certificates have those of the house among them; where there are none, the web's have to do.
fn tls() -> ClientConfig {
    #[expect(clippy::expect_used, reason = "the provider has both versions of TLS")]
    let builder = || {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        builder.with_safe_default_protocol_versions().expect("TLS 1.2 and 1.3")
    };
    let builder = builder().with_native_roots().unwrap_or_else(|error| {
        tracing::warn!(%error, "the system has no certificates of authorities: the web's are used");
        builder().with_webpki_roots()
    });
    builder.with_no_client_auth()
}

/// The rest of an answer, of at most `most` bytes.
///
/// # Errors
/// Where it does not come, is longer, or nothing comes for the idle time.
pub(super) async fn whole(body: Incoming, most: usize, idle: Duration) -> Result<Bytes, UpstreamError> {
    let mut body = Limited::new(body, most);
    let mut whole = Vec::new();
    loop {
        let broken = |text: String| UpstreamError::new(UpstreamFailure::Failed, text);
        match tokio::time::timeout(idle, body.frame()).await {
            Ok(None) => return Ok(whole.into()),
            Ok(Some(Ok(frame))) => whole.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
            Ok(Some(Err(error))) if error.is::<http_body_util::LengthLimitError>() => {
                return Err(broken(format!("answered with more than {most} bytes")));
            }
            Ok(Some(Err(_))) => return Err(broken("broke off its answer".to_owned())),
            Err(_) => return Err(silent(idle)),
        }
    }
}

/// The error of an answer that has begun and does not go on.
pub(super) fn silent(idle: Duration) -> UpstreamError {
    UpstreamError::new(UpstreamFailure::TimedOut, format!("said nothing for {idle:?} in the middle of its answer"))
}
