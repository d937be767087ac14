//! Is a server that was just started ready, and on which ports? Must never know how it was started.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::config::{Ports, Ready};

/// For one question to a server that may hang; asked again until the start's own limit.
const ANSWER: Duration = Duration::from_secs(1);

/// The ports of the server that reports them in this folder, if it is ready.
pub(crate) fn ports(folder: &Path, ready: Ready) -> Option<Ports> {
    let file = fs::read_dir(folder).ok()?.next()?.ok()?;
    // Half a file is no JSON; the next look sees the whole.
    let report: Value = serde_json::from_slice(&fs::read(file.path()).ok()?).ok()?;
    let port = |what: &str| report[what][0].as_str()?.rsplit(':').next()?.parse().ok();
    let ports = Ports { client: port("nats")?, monitor: port("monitoring")? };
    healthy(ports.monitor, ready).then_some(ports)
}

/// What the server with this monitoring port says about itself.
pub(crate) fn healthy(monitor: u16, ready: Ready) -> bool {
    let question = match ready {
        Ready::Healthy => "/healthz",
        Ready::Listening => "/healthz?js-enabled-only=true",
    };
    ok(monitor, question).unwrap_or(false)
}

/// Whether the answer to an HTTP GET is 200.
fn ok(port: u16, path: &str) -> io::Result<bool> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut status = [0; "HTTP/1.0 200".len()];
    stream.read_exact(&mut status)?;
    Ok(status.ends_with(b" 200"))
}
