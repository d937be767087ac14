//! SIGHUP: the contracts are read again, and the gateway goes on.

use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::GATEWAY;
use crate::harness::process::until;
use crate::system::System;

const BOOKSTORE: &str = include_str!("../../tests/fixtures/books.proto");

/// A gateway that is killed with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_hangup_reads_the_contracts_again_and_does_not_end_the_gateway() {
    let system = System::bare();
    let (file, log) = (system.file("books.proto", BOOKSTORE), system.file("log", ""));
    let mut command = Command::new(GATEWAY);
    command.env_clear().args(["serve", "--grpc-addr=127.0.0.1:0", "--http-addr=127.0.0.1:0", "--threads=1"]);
    command.arg("--nats-url").arg(system.nats.url()).arg("--proto").arg(&file);
    let stderr = std::fs::File::create(&log).unwrap();
    let running = Running(command.stdout(Stdio::null()).stderr(stderr).spawn().unwrap());
    let logged = |text: &str| std::fs::read_to_string(&log).unwrap().contains(text);
    until("it serves", || logged("tls=false"));
    let pid = Pid::from_raw(i32::try_from(running.0.id()).unwrap()).unwrap();
    kill_process(pid, Signal::HUP).unwrap();
    until("it has read them again", || logged("the contracts have not changed"));
    std::fs::write(&file, BOOKSTORE.replace("books.get", "books..get")).unwrap();
    kill_process(pid, Signal::HUP).unwrap();
    until("it says what is wrong", || logged("new contracts are not served") && logged("books.proto:8"));
}
