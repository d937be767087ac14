//! Sends traces to a collector: OTLP over gRPC or HTTP, with a few retries. Must not depend on their contents.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use http_client::{AGENT, Client, HttpError, Limits, Trust};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message as _;
use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout};
use tonic::Code;
use tonic::metadata::MetadataMap;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use super::settings::{Protocol, Settings, shown};

/// Attempts per batch, and the first backoff, which doubles each time. All fit within the exporter's timeout.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(250);
/// Maximum bytes read of a response: it says how many spans were rejected, and why.
const ANSWER: usize = 64 << 10;
/// Maximum characters shown of a collector's message.
const WORDS: usize = 256;

/// The connection to a collector.
#[derive(Debug)]
pub(super) struct Transport {
    way: Way,
    endpoint: String,
    timeout: Duration,
    /// Sending runs here, on the exporter's own thread, independent of the service's runtimes.
    runtime: OwnRuntime,
}

/// A runtime that may be dropped anywhere: dropping the library's own within a task panics.
#[derive(Debug)]
struct OwnRuntime(Option<Runtime>);

impl OwnRuntime {
    fn new() -> std::io::Result<OwnRuntime> {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map(|runtime| OwnRuntime(Some(runtime)))
    }

    /// Runs work on it. Blocks the calling thread.
    fn run<T>(&self, work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
        self.0.as_ref().ok_or("the runtime has ended")?.block_on(work)
    }
}

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

#[derive(Debug, Clone)]
enum Way {
    Grpc { channel: Channel, metadata: MetadataMap },
    Http { client: Client, uri: Uri, headers: HeaderMap },
}

/// How many spans a collector rejected, and why.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) rejected: u64,
    pub(super) why: String,
}

/// Why an attempt failed, and whether to retry.
struct Failed {
    why: String,
    again: bool,
}

impl Transport {
    pub(super) fn open(settings: &Settings) -> anyhow::Result<Transport> {
        let runtime = OwnRuntime::new()?;
        let mut headers = HeaderMap::new();
        for (name, value) in &settings.headers {
            headers.append(name.parse::<HeaderName>()?, HeaderValue::from_str(value)?);
        }
        let tls = settings.endpoint.scheme_str() == Some("https");
        let way = match settings.protocol {
            Protocol::Grpc => {
                let mut endpoint = Endpoint::from(settings.endpoint.clone()).user_agent(AGENT)?;
                if tls {
                    let trust = ClientTlsConfig::new();
                    endpoint = endpoint.tls_config(match &settings.authorities {
                        Some(pem) => trust.ca_certificate(Certificate::from_pem(pem)),
                        None => trust.with_native_roots(),
                    })?;
                }
                let _here = runtime.0.as_ref().map(Runtime::enter);
                Way::Grpc { channel: endpoint.connect_lazy(), metadata: MetadataMap::from_headers(headers) }
            }
            Protocol::Http => {
                let trust = match tls {
                    true => Trust::of(settings.authorities.as_deref(), "OTEL_EXPORTER_OTLP_CERTIFICATE")?,
                    false => Trust::plain(),
                };
                let client = Client::new(trust, Limits { whole: settings.timeout, body: ANSWER });
                Way::Http { client, uri: settings.endpoint.clone(), headers }
            }
        };
        let endpoint = shown(&settings.endpoint.to_string());
        Ok(Transport { way, endpoint, timeout: settings.timeout, runtime })
    }

    /// The endpoint, without secrets.
    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Sends a batch. Blocks the calling thread, which must be the exporter's own.
    pub(super) fn send(&self, request: ExportTraceServiceRequest) -> Result<Answer, String> {
        let late = |_| format!("no response within {:?}", self.timeout);
        self.runtime.run(async { timeout(self.timeout, self.way.tries(request)).await.map_err(late)? })
    }
}

impl Way {
    async fn tries(&self, request: ExportTraceServiceRequest) -> Result<Answer, String> {
        let mut pause = PAUSE;
        for rest in (0..TRIES).rev() {
            let tried = match self {
                Way::Grpc { channel, metadata } => grpc(channel, metadata, &request).await,
                Way::Http { client, uri, headers } => http(client, uri, headers, &request).await,
            };
            match tried {
                Ok(answer) => return Ok(Answer::of(answer)),
                Err(Failed { why, again }) if rest == 0 || !again => return Err(why),
                Err(_) => sleep(pause.mul_f64(0.5 + fastrand::f64())).await,
            }
            pause *= 2;
        }
        Err("no attempt was made".to_owned())
    }
}

impl Answer {
    fn of(answer: ExportTraceServiceResponse) -> Answer {
        let partial = answer.partial_success.unwrap_or_default();
        Answer {
            rejected: u64::try_from(partial.rejected_spans).unwrap_or(0),
            why: words(&partial.error_message),
        }
    }
}

async fn grpc(
    channel: &Channel,
    metadata: &MetadataMap,
    request: &ExportTraceServiceRequest,
) -> Result<ExportTraceServiceResponse, Failed> {
    let mut request = tonic::Request::new(request.clone());
    *request.metadata_mut() = metadata.clone();
    let sent = TraceServiceClient::new(channel.clone()).export(request).await;
    sent.map(tonic::Response::into_inner).map_err(|status| {
        use Code::{Aborted, Cancelled, DataLoss, DeadlineExceeded, OutOfRange, Unavailable};
        // The retryable codes of the OTLP specification.
        let again = [Cancelled, DeadlineExceeded, Aborted, OutOfRange, Unavailable, DataLoss]
            .contains(&status.code());
        // A failed connection has its reason only in its source.
        let mut why = format!("{:?}: {}", status.code(), words(status.message()));
        let mut cause = std::error::Error::source(&status);
        while let Some(error) = cause {
            why = format!("{why}: {error}");
            cause = error.source();
        }
        Failed { why, again }
    })
}

async fn http(
    client: &Client,
    uri: &Uri,
    headers: &HeaderMap,
    request: &ExportTraceServiceRequest,
) -> Result<ExportTraceServiceResponse, Failed> {
    let mut post = Request::new(Bytes::from(request.encode_to_vec()));
    (*post.method_mut(), *post.uri_mut()) = (Method::POST, uri.clone());
    post.headers_mut().extend(headers.clone());
    post.headers_mut().insert(USER_AGENT, HeaderValue::from_static(AGENT));
    post.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
    let failed = |error: HttpError| Failed { why: error.to_string(), again: true };
    let response = client.send(post).await.map_err(failed)?;
    let status = response.status();
    if !status.is_success() {
        use StatusCode as Code;
        let again =
            [Code::TOO_MANY_REQUESTS, Code::BAD_GATEWAY, Code::SERVICE_UNAVAILABLE, Code::GATEWAY_TIMEOUT];
        return Err(Failed { why: status.to_string(), again: again.contains(&status) });
    }
    let unreadable = |error| Failed { why: format!("cannot read the response: {error}"), again: false };
    ExportTraceServiceResponse::decode(response.into_body()).map_err(unreadable)
}

fn words(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(WORDS).collect()
}
