//! A connection that reaches its maximum age: its client gets a GOAWAY, and is not cut off while it still sends.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::harness::system::{PATIENCE, System};

const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// Half of the time that a connection lingers.
const WHILE: Duration = Duration::from_millis(500);

/// The type of the next frame. PINGs are acknowledged.
fn frame(stream: &mut TcpStream) -> std::io::Result<u8> {
    let mut head = [0; 9];
    stream.read_exact(&mut head)?;
    let mut rest = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
    stream.read_exact(&mut rest)?;
    if head[3] == PING && head[4] & ACK == 0 {
        stream.write_all(&[&[0, 0, 8, PING, ACK, 0, 0, 0, 0][..], &rest].concat())?;
    }
    Ok(head[3])
}

/// Keeps sending after the last GOAWAY. Returns how long that works.
fn cling(address: SocketAddr) -> Duration {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(HELLO).unwrap();
    // The first still permits calls that crossed it; the second is final.
    for _ in 0..2 {
        while frame(&mut stream).unwrap() != GOAWAY {}
    }
    let last = Instant::now();
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    while last.elapsed() < 20 * WHILE {
        let sent = stream.write_all(&[0, 0, 8, PING, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        let read = stream.read(&mut [0; 256]);
        let open = matches!(&read, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock);
        if sent.is_err() || !(open || read.is_ok_and(|read| read > 0)) {
            break;
        }
    }
    last.elapsed()
}

#[tokio::test]
async fn a_client_that_still_sends_after_the_goaway_is_not_reset_at_once_nor_kept() {
    let system = System::builder()
        .workers(0)
        .each_gateway(|config| config.limits.max_connection_age = Duration::from_secs(1))
        .start()
        .await;
    let address = system.gateways[0].grpc_addr();
    let time = tokio::task::spawn_blocking(move || cling(address)).await.unwrap();
    assert!(time > WHILE && time < 20 * WHILE, "{time:?}");
}
