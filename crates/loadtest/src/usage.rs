//! CPU time and memory of processes on Linux; 0 elsewhere. Must not depend on which processes they are.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::Request;
use http_client::{Client, Limits, Trust};

const LIMIT: Duration = Duration::from_secs(5);
/// Maximum size of a page, in bytes.
const PAGE: usize = 64 << 20;

/// CPU time of a process: all threads, user and kernel. Resolution: 10 ms.
pub(crate) fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return Ok(Duration::ZERO) };
    // The name is in parentheses and may contain blanks. utime and stime are the 12th and 13th fields after it.
    let fields = stat.rsplit_once(')').context("no name")?.1;
    let ticks = |place| -> anyhow::Result<u64> {
        Ok(fields.split_whitespace().nth(place).context("no such field")?.parse()?)
    };
    Ok(Duration::from_millis((ticks(11)? + ticks(12)?) * 1_000 / rustix::param::clock_ticks_per_second()))
}

/// Resident memory in bytes.
pub(crate) fn resident(pid: u32) -> anyhow::Result<u64> {
    status(pid, "VmRSS:")
}

/// Peak resident memory in bytes.
pub(crate) fn peak(pid: u32) -> anyhow::Result<u64> {
    status(pid, "VmHWM:")
}

/// A size from /proc/PID/status in bytes; 0 if the process has exited.
fn status(pid: u32, name: &'static str) -> anyhow::Result<u64> {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else { return Ok(0) };
    let line = status.lines().find(|line| line.starts_with(name)).context(name)?;
    let kib: u64 = line.split_whitespace().nth(1).context("no number")?.parse()?;
    Ok(kib * 1_024)
}

/// A metric without labels, from /metrics on this port.
pub(crate) async fn figure(port: u16, name: &str) -> anyhow::Result<f64> {
    let (_, page) = http(port, "/metrics", LIMIT).await?;
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.with_context(|| format!("no metric {name}"))?.parse()?)
}

/// HTTP GET on this port. Returns status code and body.
pub(crate) async fn http(port: u16, path: &str, limit: Duration) -> anyhow::Result<(u16, String)> {
    let request = Request::get(format!("http://127.0.0.1:{port}{path}")).body(Bytes::new())?;
    let client = Client::new(Trust::plain(), Limits { whole: limit, body: PAGE });
    let answer = client.send(request).await.with_context(|| format!("GET {path}"))?;
    let (code, body) = (answer.status().as_u16(), answer.into_body());
    Ok((code, String::from_utf8(body.into())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_counted() {
        let own = std::process::id();
        let begun = cpu(own).unwrap();
        let mut sum = 0_u64;
        while cfg!(target_os = "linux") && cpu(own).unwrap() == begun {
            sum = std::hint::black_box((0..10_000).fold(sum, |sum, n| sum.wrapping_mul(n)));
        }
        assert!(!cfg!(target_os = "linux") || resident(own).unwrap() > 1 << 20);
    }

    #[tokio::test]
    async fn a_page_comes_with_its_status() {
        let server = tokio::task::spawn_blocking(local_nats::Server::start).await.unwrap().unwrap();
        let (code, body) = http(server.monitor_port(), "/varz", LIMIT).await.unwrap();
        assert!(code == 200 && body.contains("server_name"), "{code}: {body}");
        assert_eq!(http(server.monitor_port(), "/nowhere", LIMIT).await.unwrap().0, 404);
    }
}
