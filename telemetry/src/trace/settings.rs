//! OpenTelemetry's variables, as far as they are about traces: what they are set to, and what that means. Empty is unset;
//! what is not supported is refused by its name, as somebody relies on it. Must never know a span.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use http::Uri;
use percent_encoding::percent_decode_str;

const GRPC: &str = "http://localhost:4317";
const HTTP: &str = "http://localhost:4318";
/// What is behind the endpoint of all signals.
const PATH: &str = "v1/traces";
/// Milliseconds.
const TIMEOUT: u64 = 10_000;
const DELAY: u64 = 5_000;
/// Spans that wait to be sent; more are dropped. OpenTelemetry's default is 2,048: a traced order has seven.
const QUEUE: u64 = 8_192;
const BATCH: u64 = 512;
/// What is passed on, whatever is traced.
const PROPAGATORS: [&str; 2] = ["tracecontext", "baggage"];

macro_rules! options {
    ($($(#[$doc:meta])* $name:ident: $env:literal,)*) => {
        /// Where traces go, and which. The names are OpenTelemetry's.
        #[derive(Clone, Default, Args)]
        #[group(skip)]
        #[command(next_help_heading = "Traces")]
        pub struct Options {
            $($(#[$doc])* #[arg(long, env = $env, hide_env_values = true, value_name = "VALUE")] pub $name: Option<String>,)*
        }

        impl Options {
            /// What is set, by the names of the variables.
            fn set(&self, name: &str) -> Option<&str> {
                let value = match name {
                    $($env => self.$name.as_deref(),)*
                    _ => None,
                };
                value.map(str::trim).filter(|value| !value.is_empty())
            }
        }
    };
}

options! {
    /// Whether traces are off, whatever else is set: true or false
    otel_sdk_disabled: "OTEL_SDK_DISABLED",
    /// What traces are sent by: otlp or none
    otel_traces_exporter: "OTEL_TRACES_EXPORTER",
    /// Where everything is sent over OTLP, as in http://collector:4317; without an endpoint nothing is traced
    otel_exporter_otlp_endpoint: "OTEL_EXPORTER_OTLP_ENDPOINT",
    /// Where traces are sent, before the endpoint of everything
    otel_exporter_otlp_traces_endpoint: "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    /// How everything is sent: grpc or http/protobuf
    otel_exporter_otlp_protocol: "OTEL_EXPORTER_OTLP_PROTOCOL",
    /// How traces are sent
    otel_exporter_otlp_traces_protocol: "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    /// Headers that are sent with everything, as in name=value,name=value
    otel_exporter_otlp_headers: "OTEL_EXPORTER_OTLP_HEADERS",
    /// Headers that are sent with traces, in their place
    otel_exporter_otlp_traces_headers: "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    /// How long sending may take, in milliseconds
    otel_exporter_otlp_timeout: "OTEL_EXPORTER_OTLP_TIMEOUT",
    /// How long sending traces may take, in milliseconds
    otel_exporter_otlp_traces_timeout: "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
    /// Authorities that vouch for the collector, a PEM file
    otel_exporter_otlp_certificate: "OTEL_EXPORTER_OTLP_CERTIFICATE",
    /// The same, for traces
    otel_exporter_otlp_traces_certificate: "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
    /// Whether an endpoint of gRPC that has no scheme is without TLS: true or false
    otel_exporter_otlp_insecure: "OTEL_EXPORTER_OTLP_INSECURE",
    /// The same, for traces
    otel_exporter_otlp_traces_insecure: "OTEL_EXPORTER_OTLP_TRACES_INSECURE",
    /// none: what is sent is not compressed
    otel_exporter_otlp_compression: "OTEL_EXPORTER_OTLP_COMPRESSION",
    /// The same, for traces
    otel_exporter_otlp_traces_compression: "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
    /// Not supported, and refused
    otel_exporter_otlp_client_key: "OTEL_EXPORTER_OTLP_CLIENT_KEY",
    /// Not supported, and refused
    otel_exporter_otlp_traces_client_key: "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY",
    /// Not supported, and refused
    otel_exporter_otlp_client_certificate: "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
    /// Not supported, and refused
    otel_exporter_otlp_traces_client_certificate: "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE",
    /// Milliseconds between two batches of spans
    otel_bsp_schedule_delay: "OTEL_BSP_SCHEDULE_DELAY",
    /// How long a batch may take, in milliseconds
    otel_bsp_export_timeout: "OTEL_BSP_EXPORT_TIMEOUT",
    /// Spans that wait; more are dropped, and counted
    otel_bsp_max_queue_size: "OTEL_BSP_MAX_QUEUE_SIZE",
    /// Spans in a batch
    otel_bsp_max_export_batch_size: "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
    /// Which calls are traced: always_on, always_off, traceidratio, or one of these after parentbased_, which does as
    /// the caller does where it says so [default: parentbased_always_on]
    otel_traces_sampler: "OTEL_TRACES_SAMPLER",
    /// The share of calls for traceidratio: 0 to 1 [default: 1]
    otel_traces_sampler_arg: "OTEL_TRACES_SAMPLER_ARG",
    /// tracecontext, and baggage if one likes: what is passed on
    otel_propagators: "OTEL_PROPAGATORS",
    /// otlp is not supported: figures are at /metrics
    otel_metrics_exporter: "OTEL_METRICS_EXPORTER",
    /// otlp is not supported: lines are on standard error
    otel_logs_exporter: "OTEL_LOGS_EXPORTER",
    /// The name of this service in traces
    otel_service_name: "OTEL_SERVICE_NAME",
}

/// Headers may be secrets.
impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("endpoint", &self.endpoint().map(shown)).finish_non_exhaustive()
    }
}

/// How traces are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Grpc,
    Http,
}

/// What the variables mean.
pub(super) struct Settings {
    pub(super) endpoint: Uri,
    pub(super) protocol: Protocol,
    pub(super) headers: Vec<(String, String)>,
    pub(super) timeout: Duration,
    /// Authorities, as PEM; none: those of this machine.
    pub(super) authorities: Option<Vec<u8>>,
    pub(super) delay: Duration,
    pub(super) queue: usize,
    pub(super) batch: usize,
    pub(super) share: f64,
    pub(super) as_parent: bool,
    pub(super) service: Option<String>,
}

impl Options {
    /// Checks all of them; nothing, if nothing is to be traced. Then the rest is not used, and stops nobody.
    pub(super) fn read(&self) -> anyhow::Result<Option<Settings>> {
        let off = self.off()?;
        let checked = self.sampler().and_then(|sampler| self.refuse().map(|()| sampler));
        if off {
            if let Err(error) = checked {
                tracing::warn!("traces are off, and could not be turned on: {error:#}");
            }
            return Ok(None);
        }
        self.settings(checked?).map(Some)
    }

    /// Whether the switches leave nothing to be traced.
    fn off(&self) -> anyhow::Result<bool> {
        if self.flag("OTEL_SDK_DISABLED")? {
            return Ok(true);
        }
        match self.set("OTEL_TRACES_EXPORTER") {
            None => Ok(self.endpoint().is_none()),
            Some("otlp") => Ok(false),
            Some("none") => Ok(true),
            Some(other) => {
                bail!("{other:?} is no exporter that is supported (OTEL_TRACES_EXPORTER): otlp or none")
            }
        }
    }

    fn settings(&self, (share, as_parent): (f64, bool)) -> anyhow::Result<Settings> {
        let protocol = self.protocol()?;
        let endpoint = match (self.endpoint_of(protocol)?, protocol) {
            (Some(endpoint), _) => endpoint,
            // Whoever asks for OTLP by name gets what OpenTelemetry has for it.
            (None, Protocol::Grpc) => Uri::from_static(GRPC),
            (None, Protocol::Http) => format!("{HTTP}/{PATH}").parse()?,
        };
        let authorities = self.of_traces("CERTIFICATE").map(|(name, file)| {
            std::fs::read(file).with_context(|| format!("{file} cannot be read ({name})"))
        });
        let millis = |name, default| self.number(name, default).map(Duration::from_millis);
        let (name, default) =
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", millis("OTEL_EXPORTER_OTLP_TIMEOUT", TIMEOUT)?);
        let timeout = if self.set(name).is_some() { millis(name, TIMEOUT)? } else { default };
        let size = |name, default| anyhow::Ok(usize::try_from(self.number(name, default)?)?);
        let settings = Settings {
            endpoint,
            protocol,
            headers: self.headers()?,
            timeout: timeout.min(millis("OTEL_BSP_EXPORT_TIMEOUT", 30_000)?),
            authorities: authorities.transpose()?,
            delay: millis("OTEL_BSP_SCHEDULE_DELAY", DELAY)?,
            queue: size("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE)?,
            batch: size("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", BATCH)?,
            share,
            as_parent,
            service: self.set("OTEL_SERVICE_NAME").map(str::to_owned),
        };
        let batch = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE";
        ensure!(settings.batch <= settings.queue, "{batch} is more than OTEL_BSP_MAX_QUEUE_SIZE");
        Ok(settings)
    }

    /// What OpenTelemetry has and this has not.
    fn refuse(&self) -> anyhow::Result<()> {
        let own = ["CLIENT_KEY", "CLIENT_CERTIFICATE"].into_iter().find_map(|what| self.of_traces(what));
        if let Some((name, value)) = own {
            bail!(
                "{name} is {value:?}: client certificates for a collector are not supported; a header can say who sends"
            );
        }
        if let Some((name, value)) = self.of_traces("COMPRESSION") {
            ensure!(value.eq_ignore_ascii_case("none"), "{name} is {value:?}: only none is supported");
        }
        let propagators: Vec<&str> = self
            .set("OTEL_PROPAGATORS")
            .into_iter()
            .flat_map(|names| names.split(','))
            .map(str::trim)
            .collect();
        let unknown = propagators.iter().find(|name| !PROPAGATORS.contains(name));
        if let Some(unknown) = unknown {
            bail!("{unknown:?} is not supported (OTEL_PROPAGATORS): tracecontext and baggage are");
        }
        let passed = propagators.is_empty() || propagators.contains(&PROPAGATORS[0]);
        ensure!(passed, "tracecontext is always passed on (OTEL_PROPAGATORS): it must be among them");
        for (name, instead) in [
            ("OTEL_METRICS_EXPORTER", "figures are at /metrics, for Prometheus"),
            ("OTEL_LOGS_EXPORTER", "lines are on standard error"),
        ] {
            if let Some(value) =
                self.set(name).filter(|value| !["none", "console", "prometheus"].contains(value))
            {
                tracing::warn!(name, value, "not supported, and ignored: {instead}");
            }
        }
        Ok(())
    }

    /// What is set for traces, or else for everything; with the variable's name.
    fn of_traces(&self, what: &str) -> Option<(String, &str)> {
        let names = [format!("OTEL_EXPORTER_OTLP_TRACES_{what}"), format!("OTEL_EXPORTER_OTLP_{what}")];
        names.into_iter().find_map(|name| self.set(&name).map(|value| (name.clone(), value)))
    }

    fn endpoint(&self) -> Option<&str> {
        self.of_traces("ENDPOINT").map(|(_, endpoint)| endpoint)
    }

    fn protocol(&self) -> anyhow::Result<Protocol> {
        match self.of_traces("PROTOCOL") {
            None | Some((_, "grpc")) => Ok(Protocol::Grpc),
            Some((_, "http/protobuf")) => Ok(Protocol::Http),
            Some((name, other)) => bail!("{other:?} is not supported ({name}): grpc and http/protobuf are"),
        }
    }

    fn endpoint_of(&self, protocol: Protocol) -> anyhow::Result<Option<Uri>> {
        let Some((name, endpoint)) = self.of_traces("ENDPOINT") else { return Ok(None) };
        let mut text = endpoint.to_owned();
        if !text.contains("://") {
            ensure!(protocol == Protocol::Grpc, "{name} must begin with http:// or https://");
            let insecure = match self.of_traces("INSECURE") {
                Some((name, _)) => self.flag(&name)?,
                None => false,
            };
            text = format!("{}://{text}", if insecure { "http" } else { "https" });
        }
        if protocol == Protocol::Http && !name.contains("TRACES") {
            text = format!("{}/{PATH}", text.trim_end_matches('/'));
        }
        let uri: Uri = text.parse().map_err(|error| anyhow::anyhow!("{name} is no URL: {error}"))?;
        let schemed = matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some();
        ensure!(schemed, "{name} must be http://host:port or https://host:port");
        Ok(Some(uri))
    }

    /// As in W3C baggage; never repeated in an error.
    fn headers(&self) -> anyhow::Result<Vec<(String, String)>> {
        let Some((name, text)) = self.of_traces("HEADERS") else { return Ok(Vec::new()) };
        let header = |pair: &str| {
            let (key, value) = pair.split_once('=')?;
            let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
            let key: http::HeaderName = key.trim().parse().ok()?;
            http::HeaderValue::from_str(&value).ok()?;
            Some((key.as_str().to_owned(), value.into_owned()))
        };
        let pairs = text.split(',').filter(|pair| !pair.trim().is_empty()).map(header);
        pairs.collect::<Option<Vec<_>>>().with_context(|| format!("{name} must be name=value,name=value"))
    }

    fn flag(&self, name: &str) -> anyhow::Result<bool> {
        match self.set(name).map(str::to_ascii_lowercase).as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => bail!("{other:?} is neither true nor false ({name})"),
        }
    }

    fn number(&self, name: &str, default: u64) -> anyhow::Result<u64> {
        let Some(text) = self.set(name) else { return Ok(default) };
        let number = text.parse().ok().filter(|number| (1..=u64::from(u32::MAX)).contains(number));
        number.with_context(|| format!("{text:?} is no number from 1 on ({name})"))
    }

    /// The share of calls that are traced, and whether a caller's own choice goes first.
    fn sampler(&self) -> anyhow::Result<(f64, bool)> {
        let name = self.set("OTEL_TRACES_SAMPLER").unwrap_or("parentbased_always_on");
        let (kind, as_parent) = match name.strip_prefix("parentbased_") {
            Some(kind) => (kind, true),
            None => (name, false),
        };
        let share = match kind {
            "always_on" => 1.0,
            "always_off" => 0.0,
            "traceidratio" => {
                let text = self.set("OTEL_TRACES_SAMPLER_ARG").unwrap_or("1");
                let share: Option<f64> = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
                share.with_context(|| {
                    format!("{text:?} is no share of calls (OTEL_TRACES_SAMPLER_ARG): it must be from 0 to 1")
                })?
            }
            _ => bail!("{name:?} is no sampler (OTEL_TRACES_SAMPLER): try parentbased_traceidratio"),
        };
        Ok((share, as_parent))
    }
}

/// An endpoint without what may be a secret.
pub(super) fn shown(endpoint: &str) -> String {
    let (scheme, rest) = endpoint.split_once("://").unwrap_or(("", endpoint));
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}{}{host}{path}", if scheme.is_empty() { "" } else { "://" })
}

#[cfg(test)]
mod tests;
