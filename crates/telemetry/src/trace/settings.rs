//! OpenTelemetry's environment variables for traces: their values and meaning. Empty counts as unset; an unsupported
//! value is refused by its variable's name, because somebody relies on it. Must not depend on spans.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use http::Uri;
use percent_encoding::percent_decode_str;

const GRPC: &str = "http://localhost:4317";
const HTTP: &str = "http://localhost:4318";
/// The path that is appended to the endpoint of all signals.
const PATH: &str = "v1/traces";
/// In milliseconds.
const TIMEOUT: u64 = 10_000;
const DELAY: u64 = 5_000;
/// Maximum spans in the queue; more are dropped. OpenTelemetry's default is 2,048: a traced order has seven.
const QUEUE: u64 = 8_192;
const BATCH: u64 = 512;
/// The supported propagators, which are always on.
const PROPAGATORS: [&str; 2] = ["tracecontext", "baggage"];

macro_rules! options {
    ($($(#[$doc:meta])* $name:ident: $env:literal,)*) => {
        /// Trace options, with OpenTelemetry's names.
        #[derive(Clone, Default, Args)]
        #[group(skip)]
        #[command(next_help_heading = "Traces")]
        pub struct Options {
            $($(#[$doc])* #[arg(long, env = $env, hide_env_values = true, value_name = "VALUE")] pub $name: Option<String>,)*
        }

        impl Options {
            /// The value of a variable; `None` if unset or empty.
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
    /// Turns tracing off, whatever else is set: true or false
    otel_sdk_disabled: "OTEL_SDK_DISABLED",
    /// Exporter of traces: otlp or none
    otel_traces_exporter: "OTEL_TRACES_EXPORTER",
    /// OTLP endpoint of all signals, as in http://collector:4317; without an endpoint nothing is traced
    otel_exporter_otlp_endpoint: "OTEL_EXPORTER_OTLP_ENDPOINT",
    /// OTLP endpoint of traces; overrides the endpoint of all signals
    otel_exporter_otlp_traces_endpoint: "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    /// OTLP protocol of all signals: grpc or http/protobuf
    otel_exporter_otlp_protocol: "OTEL_EXPORTER_OTLP_PROTOCOL",
    /// OTLP protocol of traces
    otel_exporter_otlp_traces_protocol: "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    /// Headers sent with all signals, as in name=value,name=value
    otel_exporter_otlp_headers: "OTEL_EXPORTER_OTLP_HEADERS",
    /// Headers sent with traces instead
    otel_exporter_otlp_traces_headers: "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    /// Timeout of an export, in milliseconds
    otel_exporter_otlp_timeout: "OTEL_EXPORTER_OTLP_TIMEOUT",
    /// Timeout of an export of traces, in milliseconds
    otel_exporter_otlp_traces_timeout: "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
    /// CA certificates that the collector's certificate is verified with, a PEM file
    otel_exporter_otlp_certificate: "OTEL_EXPORTER_OTLP_CERTIFICATE",
    /// The same, for traces
    otel_exporter_otlp_traces_certificate: "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
    /// Whether a gRPC endpoint without a scheme is used without TLS: true or false
    otel_exporter_otlp_insecure: "OTEL_EXPORTER_OTLP_INSECURE",
    /// The same, for traces
    otel_exporter_otlp_traces_insecure: "OTEL_EXPORTER_OTLP_TRACES_INSECURE",
    /// Compression of exports: only none is supported
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
    /// Interval between two batches of spans, in milliseconds
    otel_bsp_schedule_delay: "OTEL_BSP_SCHEDULE_DELAY",
    /// Timeout of a batch, in milliseconds
    otel_bsp_export_timeout: "OTEL_BSP_EXPORT_TIMEOUT",
    /// Maximum spans in the export queue; more are dropped and counted
    otel_bsp_max_queue_size: "OTEL_BSP_MAX_QUEUE_SIZE",
    /// Maximum spans in a batch
    otel_bsp_max_export_batch_size: "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
    /// Sampler: always_on, always_off, traceidratio, or one of these after parentbased_, which follows the caller's
    /// sampling decision if there is one [default: parentbased_always_on]
    otel_traces_sampler: "OTEL_TRACES_SAMPLER",
    /// Sampling ratio of traceidratio: 0 to 1 [default: 1]
    otel_traces_sampler_arg: "OTEL_TRACES_SAMPLER_ARG",
    /// Propagators: tracecontext, and optionally baggage
    otel_propagators: "OTEL_PROPAGATORS",
    /// otlp is not supported: metrics are served at /metrics
    otel_metrics_exporter: "OTEL_METRICS_EXPORTER",
    /// otlp is not supported: logs are written to standard error
    otel_logs_exporter: "OTEL_LOGS_EXPORTER",
    /// Service name in traces
    otel_service_name: "OTEL_SERVICE_NAME",
}

/// Headers may contain secrets.
impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("endpoint", &self.endpoint().map(shown)).finish_non_exhaustive()
    }
}

/// The OTLP protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Grpc,
    Http,
}

/// The parsed settings.
pub(super) struct Settings {
    pub(super) endpoint: Uri,
    pub(super) protocol: Protocol,
    pub(super) headers: Vec<(String, String)>,
    pub(super) timeout: Duration,
    /// CA certificates as PEM; `None` for this machine's.
    pub(super) authorities: Option<Vec<u8>>,
    pub(super) delay: Duration,
    pub(super) queue: usize,
    pub(super) batch: usize,
    pub(super) share: f64,
    pub(super) as_parent: bool,
    pub(super) service: Option<String>,
}

impl Options {
    /// Checks all variables. `None` if tracing is off: then faults in the others are only logged.
    pub(super) fn read(&self) -> anyhow::Result<Option<Settings>> {
        let off = self.off()?;
        let checked = self.sampler().and_then(|sampler| self.refuse().map(|()| sampler));
        if off {
            if let Err(error) = checked {
                tracing::warn!("tracing is off, but its other settings are invalid: {error:#}");
            }
            return Ok(None);
        }
        self.settings(checked?).map(Some)
    }

    /// Whether tracing is turned off.
    fn off(&self) -> anyhow::Result<bool> {
        if self.flag("OTEL_SDK_DISABLED")? {
            return Ok(true);
        }
        match self.set("OTEL_TRACES_EXPORTER") {
            None => Ok(self.endpoint().is_none()),
            Some("otlp") => Ok(false),
            Some("none") => Ok(true),
            Some(other) => {
                bail!("{other:?} is not a supported exporter (OTEL_TRACES_EXPORTER): use otlp or none")
            }
        }
    }

    fn settings(&self, (share, as_parent): (f64, bool)) -> anyhow::Result<Settings> {
        let protocol = self.protocol()?;
        let endpoint = match (self.endpoint_of(protocol)?, protocol) {
            (Some(endpoint), _) => endpoint,
            // An explicit `otlp` exporter gets OpenTelemetry's default endpoint.
            (None, Protocol::Grpc) => Uri::from_static(GRPC),
            (None, Protocol::Http) => format!("{HTTP}/{PATH}").parse()?,
        };
        let authorities = self
            .of_traces("CERTIFICATE")
            .map(|(name, file)| std::fs::read(file).with_context(|| format!("cannot read {file} ({name})")));
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

    /// Refuses features of OpenTelemetry that are not supported.
    fn refuse(&self) -> anyhow::Result<()> {
        let own = ["CLIENT_KEY", "CLIENT_CERTIFICATE"].into_iter().find_map(|what| self.of_traces(what));
        if let Some((name, value)) = own {
            bail!("{name} is {value:?}: client certificates for a collector are not supported; use a header");
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
            bail!("{unknown:?} is not supported (OTEL_PROPAGATORS): use tracecontext or baggage");
        }
        let passed = propagators.is_empty() || propagators.contains(&PROPAGATORS[0]);
        ensure!(passed, "OTEL_PROPAGATORS must include tracecontext, which is always propagated");
        for (name, instead) in [
            ("OTEL_METRICS_EXPORTER", "metrics are served at /metrics, for Prometheus"),
            ("OTEL_LOGS_EXPORTER", "logs are written to standard error"),
        ] {
            if let Some(value) =
                self.set(name).filter(|value| !["none", "console", "prometheus"].contains(value))
            {
                tracing::warn!(name, value, "not supported, and ignored: {instead}");
            }
        }
        Ok(())
    }

    /// The value set for traces, or else for all signals, with its variable's name.
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
            Some((name, other)) => bail!("{other:?} is not supported ({name}): use grpc or http/protobuf"),
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
        let uri: Uri = text.parse().map_err(|error| anyhow::anyhow!("{name} is not a URL: {error}"))?;
        let schemed = matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some();
        ensure!(schemed, "{name} must be http://host:port or https://host:port");
        Ok(Some(uri))
    }

    /// Headers in the format of W3C baggage; their values never appear in an error.
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
        number.with_context(|| format!("{text:?} is not a positive integer ({name})"))
    }

    /// The sampling ratio, and whether the caller's decision goes first.
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
                    format!(
                        "{text:?} is not a sampling ratio (OTEL_TRACES_SAMPLER_ARG): it must be from 0 to 1"
                    )
                })?
            }
            _ => bail!(
                "{name:?} is not a supported sampler (OTEL_TRACES_SAMPLER): try parentbased_traceidratio"
            ),
        };
        Ok((share, as_parent))
    }
}

/// An endpoint without the parts that may contain a secret.
pub(super) fn shown(endpoint: &str) -> String {
    let (scheme, rest) = endpoint.split_once("://").unwrap_or(("", endpoint));
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}{}{host}{path}", if scheme.is_empty() { "" } else { "://" })
}

#[cfg(test)]
mod tests;
