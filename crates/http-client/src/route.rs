//! The way to a URL: its host and port, and the proxy before it. Must not connect.

use http::Uri;
use http::uri::PathAndQuery;

use crate::authority::{authority, bracketed};
use crate::error::{HttpError, HttpErrorKind};
use crate::proxy::{Proxies, Proxy};

/// The way to a URL.
pub(crate) struct Route<'a> {
    /// The host, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) is_secure: bool,
    pub(crate) proxy: Option<&'a Proxy>,
}

impl<'a> Route<'a> {
    pub(crate) fn of(url: &Uri, proxies: &'a Proxies) -> Result<Route<'a>, HttpError> {
        let is_secure = match url.scheme_str() {
            Some("https") => Some(true),
            Some("http") => Some(false),
            _ => None,
        };
        let (Some(is_secure), Some(host)) = (is_secure, url.host().filter(|host| !host.is_empty())) else {
            let text = "the URL must be http://HOST or https://HOST, with a port and a path where needed";
            return Err(HttpError::new(HttpErrorKind::Setting, text.to_owned()));
        };
        Ok(Route {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port_u16().unwrap_or(if is_secure { 443 } else { 80 }),
            is_secure,
            proxy: proxies.find(url)?,
        })
    }

    /// The server, as errors name it.
    pub(crate) fn server(&self) -> String {
        authority(&self.host, self.port)
    }

    /// What the first connection is to: the proxy, or the server.
    pub(crate) fn first(&self) -> (&str, u16, String) {
        match self.proxy {
            Some(proxy) => (&proxy.host, proxy.port, proxy.to_string()),
            None => (&self.host, self.port, self.server()),
        }
    }

    /// The server and the proxy before it, as errors name them.
    pub(crate) fn whole(&self) -> String {
        match self.proxy {
            Some(proxy) => format!("{} through {proxy}", self.server()),
            None => self.server(),
        }
    }

    /// The value of `Host`: without the scheme's default port, and without user information.
    pub(crate) fn host_header(&self) -> String {
        match (self.is_secure, self.port) {
            (true, 443) | (false, 80) => bracketed(&self.host),
            _ => self.server(),
        }
    }

    /// The request's target: the whole URL for a proxy that passes on plain HTTP, otherwise the path.
    pub(crate) fn target(&self, path: Option<&PathAndQuery>) -> String {
        let path = path.map_or("/", PathAndQuery::as_str);
        match self.proxy {
            Some(_) if !self.is_secure => format!("http://{}{path}", self.host_header()),
            _ => path.to_owned(),
        }
    }
}
