//! Which proxy leads to a URL, by `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`, in upper or lower case. This
//! machine is never asked for by a proxy. Must not connect.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderValue, Uri};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};

use crate::authority::authority;
use crate::error::{HttpError, HttpErrorKind};

/// The default port of a proxy.
const PORT: u16 = 80;

/// The proxies for http and for https, and the hosts that are reached without one.
#[derive(Clone)]
pub struct Proxies {
    http: Option<Arc<Setting>>,
    https: Option<Arc<Setting>>,
    /// Intercepts what `NO_PROXY` does not exempt.
    intercepted: Arc<Matcher>,
}

/// A variable that is set.
struct Setting {
    variable: &'static str,
    /// `None` if its value is not one that can be used.
    proxy: Option<Proxy>,
}

/// A proxy.
pub(crate) struct Proxy {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The value of `Proxy-Authorization`.
    pub(crate) authorization: Option<HeaderValue>,
    /// The variable that names it.
    pub(crate) variable: &'static str,
}

impl Proxies {
    /// The proxies that this process's environment names.
    pub fn of_environment() -> Proxies {
        Proxies::of(|name| std::env::var(name).ok())
    }

    /// The proxies of these variables. An empty one counts as not set, and a name in capitals goes first.
    pub fn of(variable: impl Fn(&str) -> Option<String>) -> Proxies {
        let first = |names: &[&'static str]| {
            names.iter().find_map(|name| {
                let value = variable(name).filter(|value| !value.trim().is_empty())?;
                Some((*name, value.trim().to_owned()))
            })
        };
        let setting =
            |names: &[&'static str]| first(names).map(|(name, value)| Arc::new(Setting::of(name, &value)));
        let exempt = first(&["NO_PROXY", "no_proxy"]).map_or_else(String::new, |(_, value)| value);
        Proxies {
            http: setting(&["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]),
            https: setting(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]),
            intercepted: Arc::new(Matcher::builder().all("http://proxy").no(exempt).build()),
        }
    }

    /// The proxy for a URL, if there is one.
    pub(crate) fn find(&self, url: &Uri) -> Result<Option<&Proxy>, HttpError> {
        let setting = if url.scheme_str() == Some("https") { &self.https } else { &self.http };
        let Some(setting) = setting else { return Ok(None) };
        if is_loopback(url) || self.intercepted.intercept(url).is_none() {
            return Ok(None);
        }
        setting.proxy.as_ref().map(Some).ok_or_else(|| setting.unusable())
    }
}

impl Setting {
    fn of(variable: &'static str, value: &str) -> Setting {
        let any = Uri::from_static("http://any");
        let intercept = Matcher::builder().all(value).build().intercept(&any);
        let proxy = intercept.and_then(|intercept| Proxy::of(&intercept, variable));
        Setting { variable, proxy }
    }

    /// The value is not shown, as it may contain a password.
    fn unusable(&self) -> HttpError {
        let text = format!(
            "{} is not a proxy that can be used: it must be http://HOST:PORT or http://USER:PASSWORD@HOST:PORT; \
             NO_PROXY lists the hosts that are reached without a proxy",
            self.variable
        );
        HttpError::new(HttpErrorKind::Setting, text)
    }
}

impl Proxy {
    fn of(intercept: &Intercept, variable: &'static str) -> Option<Proxy> {
        let uri = intercept.uri();
        let host = uri.host().filter(|_| uri.scheme_str() == Some("http"))?;
        Some(Proxy {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(PORT),
            authorization: intercept.basic_auth().cloned(),
            variable,
        })
    }

    /// It wants a user and a password, or other ones.
    pub(crate) fn unauthorized(&self) -> HttpError {
        let text = format!(
            "{self} requires a user and a password, or rejected ours: {} must be http://USER:PASSWORD@HOST:PORT",
            self.variable
        );
        HttpError::new(HttpErrorKind::Proxy, text)
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the proxy {} ({})", authority(&self.host, self.port), self.variable)
    }
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |setting: &Option<Arc<Setting>>| setting.as_ref().map(|setting| setting.variable);
        f.debug_struct("Proxies")
            .field("http", &name(&self.http))
            .field("https", &name(&self.https))
            .finish_non_exhaustive()
    }
}

fn is_loopback(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
