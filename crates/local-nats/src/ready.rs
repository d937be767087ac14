//! Checks whether a server that was just started is ready, and reads its ports. Must not depend on how it was started.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::config::{Ports, Ready};

/// Time limit for one request to a server that may hang; requests are repeated until the start's own limit.
const ANSWER: Duration = Duration::from_secs(1);

/// The ports of the server that reports them in this folder, if it is ready.
pub(crate) fn ports(folder: &Path, ready: Ready) -> Option<Ports> {
    let file = fs::read_dir(folder).ok()?.next()?.ok()?;
    // An incomplete file is not valid JSON; the next check sees all of it.
    let report: Value = serde_json::from_slice(&fs::read(file.path()).ok()?).ok()?;
    let port = |what: &str| report[what][0].as_str()?.rsplit(':').next()?.parse().ok();
    let ports = Ports { client: port("nats")?, monitor: port("monitoring")? };
    healthy(ports.monitor, ready).then_some(ports)
}

/// Whether the server with this monitoring port reports that it is ready.
pub(crate) fn healthy(monitor: u16, ready: Ready) -> bool {
    let question = match ready {
        Ready::Healthy => "/healthz",
        Ready::Listening => "/healthz?js-enabled-only=true",
    };
    ok(monitor, question).unwrap_or(false)
}

/// Whether the server with this monitoring port leads a cluster of this size that all others follow.
pub(crate) fn leads(monitor: u16, size: usize) -> bool {
    let follows = |peer: &Value| peer["current"] == true && peer["offline"] != true;
    let leads = |report: Value| {
        let meta = &report["meta_cluster"];
        let followers =
            meta["replicas"].as_array().map_or(0, |peers| peers.iter().filter(|p| follows(p)).count());
        meta["cluster_size"] == size && followers + 1 == size
    };
    // Only the leader reports followers.
    json(monitor, "/jsz").is_ok_and(leads)
}

/// The JSON body of the response to an HTTP GET.
fn json(port: u16, path: &str) -> io::Result<Value> {
    let mut answer = Vec::new();
    get(port, path)?.read_to_end(&mut answer)?;
    let body = answer.windows(4).position(|four| four == b"\r\n\r\n").map_or(0, |at| at + 4);
    Ok(serde_json::from_slice(&answer[body..])?)
}

fn get(port: u16, path: &str) -> io::Result<TcpStream> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    Ok(stream)
}

/// Whether the response to an HTTP GET is 200.
fn ok(port: u16, path: &str) -> io::Result<bool> {
    let mut stream = get(port, path)?;
    let mut status = [0; "HTTP/1.0 200".len()];
    stream.read_exact(&mut status)?;
    Ok(status.ends_with(b" 200"))
}
