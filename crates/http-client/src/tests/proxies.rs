//! Fetches by a proxy: what the proxy and the server receive, and who is reached without one.

use http::Uri;

use super::server::{Authority, Server};
use super::tls::{trusting, trusting_within};
use super::{LIMITS, SHORT, assert_failed, get, ok, plain};
use crate::{HttpErrorKind, Proxies};

/// The proxies of these variables.
fn proxies(variables: &[(&str, &str)]) -> Proxies {
    let variables: Vec<_> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Proxies::of(move |wanted| {
        variables.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone())
    })
}

/// The variable that leads to a URL's proxy.
fn variable(proxies: &Proxies, url: &'static str) -> Option<&'static str> {
    proxies.find(&Uri::from_static(url)).unwrap().map(|proxy| proxy.variable)
}

#[tokio::test]
async fn https_goes_through_a_tunnel_that_the_proxy_cannot_look_into() {
    let ours = Authority::new();
    let mut server = Server::open_tls(ours.acceptor("id.example.com", |_| {}), ok(2, b"{}")).await;
    let mut proxy = Server::proxy(server.address).await;
    let value = proxy.url("").replace("http://", "http://ann:hush@");
    let client = trusting(&ours).with_proxies(proxies(&[("HTTPS_PROXY", &value)]));
    assert_eq!(client.fetch(get("https://id.example.com/keys")).await.unwrap(), "{}");
    let (asked, request) = (proxy.request().await, server.request().await.to_lowercase());
    assert!(asked.starts_with("CONNECT id.example.com:443 HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("proxy-authorization: Basic YW5uOmh1c2g="), "{asked}");
    assert!(request.starts_with("get /keys http/1.1\r\n"), "{request}");
    assert!(request.contains("host: id.example.com\r\n") && !request.contains("proxy-"), "{request}");
}

#[tokio::test]
async fn http_is_passed_on_by_its_whole_url() {
    let server = Server::open(ok(2, b"{}")).await;
    let mut proxy = Server::proxy(server.address).await;
    let value = proxy.url("").replace("http://", "ann:hush@");
    let client = plain(LIMITS).with_proxies(proxies(&[("http_proxy", &value)]));
    assert_eq!(client.fetch(get("http://nats-0.example:8222/varz?a=b")).await.unwrap(), "{}");
    let asked = proxy.request().await;
    assert!(asked.starts_with("GET http://nats-0.example:8222/varz?a=b HTTP/1.1\r\n"), "{asked}");
    assert!(
        asked.contains("proxy-authorization: Basic ") && asked.contains("host: nats-0.example:8222"),
        "{asked}"
    );
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named_with_its_variable_and_without_its_password() {
    let ours = Authority::new();
    for (answer, word) in [
        ("HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n", "USER:PASSWORD@"),
        ("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n", "403 Forbidden"),
    ] {
        let proxy = Server::open(answer).await;
        let value = proxy.url("").replace("http://", "http://ann:hush@");
        let settings = proxies(&[("HTTPS_PROXY", &value), ("HTTP_PROXY", &value)]);
        let refused =
            trusting(&ours).with_proxies(settings.clone()).fetch(get("https://id.example.com/")).await;
        assert!(!format!("{refused:?}").contains("hush"), "{refused:?}");
        assert_failed(refused, HttpErrorKind::Proxy, &["the proxy 127.0.0.1:", "HTTPS_PROXY", word]);
        if word.starts_with("USER") {
            let refused = plain(LIMITS).with_proxies(settings).fetch(get("http://nats.example/")).await;
            assert_failed(refused, HttpErrorKind::Proxy, &["HTTP_PROXY", word]);
        }
    }
}

#[tokio::test]
async fn a_proxy_that_cannot_be_reached_is_not_taken_for_the_server() {
    let client = plain(LIMITS).with_proxies(proxies(&[("HTTP_PROXY", "http://127.0.0.1:1")]));
    let refused = client.fetch(get("http://nats.example/")).await;
    assert_failed(refused, HttpErrorKind::Proxy, &["the proxy 127.0.0.1:1 (HTTP_PROXY)", "refused"]);
}

#[tokio::test]
async fn a_proxy_that_hangs_is_given_up_in_time() {
    let hangs = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let value = format!("http://{}", hangs.local_addr().unwrap());
    let proxies = proxies(&[("ALL_PROXY", &value)]);
    let client = trusting_within(SHORT, &Authority::new()).with_proxies(proxies);
    let failed = client.fetch(get("https://id.example.com/")).await;
    assert_failed(failed, HttpErrorKind::Silent, &["id.example.com:443 through the proxy", "ALL_PROXY"]);
}

#[tokio::test]
async fn this_machine_is_reached_without_a_proxy() {
    let server = Server::open(ok(2, b"{}")).await;
    let client = plain(LIMITS).with_proxies(proxies(&[("HTTP_PROXY", "http://127.0.0.1:1")]));
    assert_eq!(client.fetch(get(server.url("/"))).await.unwrap(), "{}");
    let everything = proxies(&[("ALL_PROXY", "http://proxy:3128")]);
    for url in ["http://localhost:8222/", "https://[::1]/", "http://127.9.9.9/"] {
        assert_eq!(variable(&everything, url), None, "{url}");
    }
}

#[test]
fn hosts_of_no_proxy_are_reached_without_a_proxy_and_others_by_the_one_of_their_scheme() {
    let some = proxies(&[
        ("HTTP_PROXY", " "),
        ("http_proxy", "proxy:3128"),
        ("HTTPS_PROXY", "http://proxy:3129"),
        ("https_proxy", "http://other:3129"),
        ("ALL_PROXY", "http://other:3128"),
        ("NO_PROXY", "10.0.0.0/8, .svc ,example.com"),
    ]);
    for (url, expected) in [
        ("http://id.example.org/", Some("http_proxy")),
        ("https://id.example.org/", Some("HTTPS_PROXY")),
        ("http://10.1.2.3:8222/", None),
        ("http://11.1.2.3:8222/", Some("http_proxy")),
        ("http://nats-0.nats.svc:8222/", None),
        ("https://id.example.com/", None),
        ("https://notexample.com/", Some("HTTPS_PROXY")),
    ] {
        assert_eq!(variable(&some, url), expected, "{url}");
    }
    assert_eq!(variable(&proxies(&[]), "https://id.example.org/"), None);
    assert_eq!(variable(&proxies(&[("all_proxy", "proxy")]), "http://id.example.org/"), Some("all_proxy"));
}

#[test]
fn a_proxy_of_a_kind_that_is_not_supported_is_refused_where_it_would_be_used() {
    for value in ["socks5://ann:hush@proxy:1080", "https://ann:hush@proxy:3128", "http://", "ann:hush@/"] {
        let some = proxies(&[("HTTPS_PROXY", value), ("NO_PROXY", "example.com")]);
        let client = trusting(&Authority::new()).with_proxies(some);
        let used = client.check(&Uri::from_static("https://id.example.org/")).unwrap_err();
        assert!(!format!("{used:?}").contains("hush"), "{used:?}");
        assert_failed(
            Err::<(), _>(used),
            HttpErrorKind::Setting,
            &["HTTPS_PROXY", "http://HOST:PORT", "NO_PROXY"],
        );
        client.check(&Uri::from_static("https://id.example.com/")).unwrap();
        client.check(&Uri::from_static("http://id.example.org/")).unwrap();
    }
}
