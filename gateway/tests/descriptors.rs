//! The program with few file descriptors: limits that do not fit are refused at start, and idle connections to one port
//! do not block another.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::GATEWAY;
use crate::harness::command::run;
use crate::system::System;

const PATIENCE: Duration = Duration::from_secs(60);
/// The descriptor limit of the program; fewer than the connections below.
const FEW: &str = "ulimit -n 700 && exec \"$0\" \"$@\"";
const CROWD: usize = 690;

/// A process that is killed at the end of the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn limited() -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", FEW, GATEWAY]).env_clear().env("GW_THREADS", "1").stdin(Stdio::null());
    command
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// The beginning of the answer to these bytes; none without an answer.
fn asked(address: SocketAddr, word: &[u8]) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(word).ok()?;
    let mut answer = vec![0; 256];
    let read = stream.read(&mut answer).ok()?;
    (read > 0).then(|| answer[..read].to_vec())
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let limit = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < limit, "waited too long until {what}");
        sleep(Duration::from_millis(20));
    }
}

#[test]
fn more_connections_than_there_can_be_descriptors_end_the_start() {
    let ended = run(limited().stdout(Stdio::null()).env("GW_MAX_CONNECTIONS", "5000"));
    assert_eq!(ended.code, Some(1), "{}", ended.err);
    for part in ["GW_MAX_CONNECTIONS=5000", "may have 700", "ulimit -n"] {
        assert!(ended.err.contains(part), "{part}: {}", ended.err);
    }
}

#[test]
fn idle_connections_to_http_keep_nobody_out() {
    let system = System::bare();
    let (grpc, http) = (free(), free());
    let mut command = limited();
    command.env("NATS_URL", system.nats.url()).env("GW_GRPC_ADDR", grpc.to_string());
    command.env("GW_HTTP_ADDR", http.to_string()).stdout(Stdio::null()).stderr(Stdio::null());
    let _gateway = Running(command.spawn().unwrap());
    let probe =
        || asked(http, b"GET /livez HTTP/1.0\r\n\r\n").is_some_and(|answer| answer.ends_with(b"alive\n"));
    until("it serves", probe);
    let crowd: Vec<TcpStream> = (0..CROWD).map(|_| TcpStream::connect(http).unwrap()).collect();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    assert!(asked(grpc, preface).is_some(), "the gRPC port does not answer");
    assert!(probe(), "a probe was kept out");
    drop(crowd);
}
