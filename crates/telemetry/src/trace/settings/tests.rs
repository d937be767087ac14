//! The meaning of OpenTelemetry's variables, one by one.

use super::*;

/// Options with these variables set.
fn options(set: &[(&str, &str)]) -> Options {
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        options: Options,
    }

    let flag = |(name, value): &(&str, &str)| format!("--{}={value}", name.to_lowercase().replace('_', "-"));
    Cli::try_parse_from(["test".to_owned()].into_iter().chain(set.iter().map(flag))).unwrap().options
}

fn read(set: &[(&str, &str)]) -> anyhow::Result<Option<Settings>> {
    options(set).read()
}

const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317");
const HTTP_PROTOCOL: (&str, &str) = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");

#[test]
fn nothing_is_traced_unless_somebody_says_where_to() {
    assert!(read(&[]).unwrap().is_none());
    assert!(read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]).unwrap().is_none());
    for off in
        [("OTEL_SDK_DISABLED", "true"), ("OTEL_SDK_DISABLED", "TRUE"), ("OTEL_TRACES_EXPORTER", "none")]
    {
        assert!(read(&[ENDPOINT, off]).unwrap().is_none(), "{off:?}");
    }
    assert!(read(&[ENDPOINT, ("OTEL_SDK_DISABLED", "false")]).unwrap().is_some());
}

#[test]
fn what_is_strange_stops_nobody_whose_traces_are_off() {
    for strange in [
        ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "key.pem"),
        ("OTEL_PROPAGATORS", "b3"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/ca.pem"),
    ] {
        for off in [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")] {
            assert!(read(&[ENDPOINT, off, strange]).unwrap().is_none(), "{off:?} {strange:?}");
        }
        assert!(read(&[strange]).unwrap().is_none(), "{strange:?}");
        assert!(read(&[ENDPOINT, strange]).is_err(), "{strange:?}");
    }
    let both = [ENDPOINT, ("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "zipkin")];
    assert!(read(&both).unwrap().is_none());
}

#[test]
fn empty_is_unset_for_every_variable() {
    let settings = |set| read(set).unwrap().unwrap();
    let mut all = vec![ENDPOINT];
    for argument in <Options as clap::Args>::augment_args(clap::Command::new("test")).get_arguments() {
        let name: &'static str = argument.get_env().unwrap().to_str().unwrap().to_owned().leak();
        if name != ENDPOINT.0 {
            all.push((name, ""));
        }
    }
    assert!(all.len() > 25);
    let (bare, empty) = (settings(&[ENDPOINT]), settings(&all));
    assert_eq!((bare.endpoint, bare.protocol, bare.headers), (empty.endpoint, empty.protocol, empty.headers));
    assert_eq!((bare.timeout, bare.queue, bare.share), (empty.timeout, empty.queue, empty.share));
}

#[test]
fn an_endpoint_is_as_the_specification_has_it() {
    let traces = |endpoint| ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint);
    for (set, endpoint) in [
        (&[ENDPOINT][..], "http://collector:4317/"),
        (&[ENDPOINT, HTTP_PROTOCOL], "http://collector:4317/v1/traces"),
        (
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/otlp/"), HTTP_PROTOCOL],
            "http://collector:4318/otlp/v1/traces",
        ),
        (&[ENDPOINT, traces("http://other:1/mine"), HTTP_PROTOCOL], "http://other:1/mine"),
        (&[ENDPOINT, traces("")], "http://collector:4317/"),
        (&[traces("collector:4317")], "https://collector:4317/"),
        (&[traces("collector:4317"), ("OTEL_EXPORTER_OTLP_INSECURE", "true")], "http://collector:4317/"),
        (&[("OTEL_TRACES_EXPORTER", "otlp")], "http://localhost:4317/"),
        (&[("OTEL_TRACES_EXPORTER", "otlp"), HTTP_PROTOCOL], "http://localhost:4318/v1/traces"),
    ] {
        assert_eq!(read(set).unwrap().unwrap().endpoint.to_string(), endpoint, "{set:?}");
    }
}

#[test]
fn what_is_for_traces_goes_before_what_is_for_everything() {
    let settings = read(&[
        ENDPOINT,
        HTTP_PROTOCOL,
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=1"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "authorization=Bearer%20s3cret, x-team = shop"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1000"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "700"),
    ]);
    let settings = settings.unwrap().unwrap();
    assert_eq!((settings.protocol, settings.timeout), (Protocol::Grpc, Duration::from_millis(700)));
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(settings.headers, [header("authorization", "Bearer s3cret"), header("x-team", "shop")]);
}

#[test]
fn what_is_not_supported_is_refused_by_its_name() {
    for (name, value) in [
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_TRACES_EXPORTER", "console"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "kafka"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "ftp://collector"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "no-value"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/ca.pem"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "key.pem"),
        ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", "cert.pem"),
        ("OTEL_BSP_SCHEDULE_DELAY", "-1"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "100000"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
        ("OTEL_PROPAGATORS", "b3"),
        ("OTEL_PROPAGATORS", "baggage"),
        ("OTEL_SDK_DISABLED", "perhaps"),
    ] {
        let error =
            read(&[ENDPOINT, (name, value)]).err().map(|error| format!("{error:#}")).unwrap_or_default();
        assert!(error.contains(name), "{name}={value}: {error:?}");
    }
    let error = read(&[ENDPOINT, ("OTEL_EXPORTER_OTLP_HEADERS", "s3cret")]).err().unwrap();
    assert!(!format!("{error:#}").contains("s3cret"));
}

#[test]
fn a_share_of_calls_is_from_nothing_to_all() {
    for share in ["1.5", "-0.1", "NaN", "half"] {
        let set = [ENDPOINT, ("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", share)];
        assert!(read(&set).is_err(), "{share}");
    }
}

#[test]
fn no_secret_is_shown() {
    assert_eq!(shown("https://user:s3cret@host:4317/v1/traces?token=s3cret"), "https://host:4317/v1/traces");
    let secrets = [
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=s3cret"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:s3cret@host"),
    ];
    assert!(!format!("{:?}", options(&secrets)).contains("s3cret"));
}
