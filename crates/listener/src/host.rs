//! The hosts that HTTP is served for. Anybody can make a DNS name of their own resolve to any address (DNS rebinding),
//! and then read our responses from their pages; so only names that nobody can register are accepted. Must not resolve
//! names.

use std::net::{IpAddr, SocketAddr};

/// The accepted values of a request's Host.
#[derive(Debug, Clone)]
pub struct Hosts {
    address: IpAddr,
    /// In lower case; a leading dot stands for all names below.
    listed: Vec<String>,
}

impl Hosts {
    /// The hosts of a server at this address, and the listed ones.
    pub fn new(address: SocketAddr, listed: &[String]) -> Hosts {
        let address = address.ip().to_canonical();
        Hosts { address, listed: listed.iter().map(|name| name.trim().to_ascii_lowercase()).collect() }
    }

    /// Whether a Host, with or without a port, is accepted.
    pub(crate) fn know(&self, host: &str) -> bool {
        let host = host.trim().to_ascii_lowercase();
        if let Some(rest) = host.strip_prefix('[') {
            let Some((address, port)) = rest.split_once(']') else { return false };
            return is_port(port) && address.parse().is_ok_and(|address: IpAddr| self.at(address));
        }
        let (name, port) = host.split_once(':').map_or((&*host, ""), |(name, _)| (name, &host[name.len()..]));
        if !is_port(port) {
            return false;
        }
        let name = name.strip_suffix('.').unwrap_or(name);
        match name.parse() {
            Ok(address) => self.at(address),
            Err(_) => self.named(name),
        }
    }

    /// An IP address cannot be rebound. A server on a loopback address accepts loopback and listed ones only.
    fn at(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_loopback() || !self.address.is_loopback() || self.listed.contains(&address.to_string())
    }

    fn named(&self, name: &str) -> bool {
        let local = name == "localhost" || name.ends_with(".localhost");
        // Names of containers or services in their own network, as Prometheus uses them: nobody can register these.
        let short = !self.address.is_loopback() && !name.is_empty() && !name.contains('.');
        let listed = |known: &String| match known.strip_prefix('.') {
            Some(_) => name.len() > known.len() && name.ends_with(known.as_str()),
            None => name == known,
        };
        local || short || self.listed.iter().any(listed)
    }
}

/// Whether a text is empty, or a colon and a number.
fn is_port(text: &str) -> bool {
    text.is_empty() || text.strip_prefix(':').is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(address: &str) -> Hosts {
        Hosts::new(address.parse().unwrap(), &["Figures.example.com".to_owned(), ".cluster.local".to_owned()])
    }

    #[test]
    fn names_that_could_be_somebodys_are_not_known() {
        for address in ["127.0.0.1:8080", "[::1]:8080", "0.0.0.0:8080", "10.1.2.3:8080"] {
            let hosts = hosts(address);
            for good in [
                "localhost",
                "LOCALHOST:8080",
                "localhost.:80",
                "127.0.0.1",
                "127.8.8.8:1",
                "[::1]",
                "[::1]:8080",
                "figures.example.com:8080",
                "gateway.shop.svc.cluster.local",
            ] {
                assert!(hosts.know(good), "{address} {good}");
            }
            for bad in [
                "evil.example",
                "evil.example:8080",
                "",
                ":8080",
                "localhost.evil.example",
                "127.0.0.1.evil.example",
                "127.0.0.1@evil.example",
                "x.figures.example.com",
                "evilcluster.local",
                ".cluster.local",
                "[::1",
                "[::1]evil.example",
                "localhost:80:evil.example",
            ] {
                assert!(!hosts.know(bad), "{address} {bad}");
            }
        }
    }

    #[test]
    fn other_machines_use_an_address_or_a_short_name_where_they_are_served() {
        for host in ["10.9.8.7:8080", "gateway:8080", "[2001:db8::1]:8080"] {
            assert!(hosts("0.0.0.0:8080").know(host), "{host}");
            assert!(!hosts("127.0.0.1:8080").know(host), "{host}");
        }
    }
}
