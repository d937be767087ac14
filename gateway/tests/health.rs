//! `gateway healthcheck`: it connects with TLS and a client certificate, its errors say what to change, and it never
//! hangs.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::GATEWAY;
use crate::harness::command::{Ended, program, run};
use crate::harness::pki::Authority;
use crate::harness::process::until;
use crate::system::System;

/// Longer than any check takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A gateway with TLS that requires client certificates. It is killed at the end of the test.
struct TlsGateway {
    system: System,
    child: Child,
    grpc: SocketAddr,
}

impl Drop for TlsGateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl TlsGateway {
    fn start() -> TlsGateway {
        let system = System::bare();
        let (servers, clients) = (Authority::new(), Authority::new());
        let (cert, key) = servers.server().write(system.folder.path());
        let ours = clients.client("till");
        let ca = system.file("ca.crt", &servers.pem());
        let clients = system.file("clients.crt", &clients.pem());
        for (name, text) in [("our.crt", &ours.cert), ("our.key", &ours.key)] {
            system.file(name, text);
        }
        system.file("list", "till orders.read\n");
        let grpc = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = Command::new(GATEWAY);
        command.env_clear().args(["serve", "--http-addr=127.0.0.1:0", "--nats-url", &system.nats.url()]);
        command
            .arg("--grpc-addr")
            .arg(grpc.to_string())
            .arg("--tls-cert")
            .arg(cert)
            .arg("--tls-key")
            .arg(key);
        command.arg("--tls-client-ca").arg(clients).arg("--tls-clients").arg(system.path("list"));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        assert!(ca.exists());
        until("it serves", || TcpStream::connect(grpc).is_ok());
        TlsGateway { system, child, grpc }
    }

    /// Runs a health check of the service `liveness` with these arguments, in the folder with the files.
    fn check(&self, arguments: &[&str]) -> Ended {
        let mut command = program(GATEWAY, &["healthcheck", "--service=liveness", "--within=3"]);
        run(command.args(arguments).current_dir(self.system.folder.path()))
    }
}

#[test]
fn a_healthcheck_gets_in_by_tls_and_says_what_to_change_where_it_does_not() {
    let served = TlsGateway::start();
    let address = |scheme: &str| format!("--addr={scheme}localhost:{}", served.grpc.port());
    let (tls, plain) = (address("https://"), address(""));
    let good = ["--cacert=ca.crt", "--cert=our.crt", "--key=our.key"];
    let healthy = served.check(&[&[&*tls][..], &good].concat());
    assert_eq!(healthy.code, Some(0), "{healthy:?}");
    assert_eq!(served.check(&[&[&*plain][..], &good].concat()).code, Some(0));
    for (arguments, word) in [
        (vec![&*tls, "--cacert=ca.crt"], "--cert"),
        (vec![&tls], "--cacert"),
        (vec![&plain], "https://"),
        (vec![&tls, "--cacert=ca.crt", "--authority=elsewhere", good[1], good[2]], "--authority"),
        (vec![&tls, "--plaintext"], "--plaintext"),
        (vec![&tls, "--cert=our.crt"], "--key"),
    ] {
        let refused = served.check(&arguments);
        assert!(refused.code == Some(1) || refused.code == Some(2), "{arguments:?}: {refused:?}");
        assert!(refused.err.contains(word), "{arguments:?}: {}", refused.err);
    }
}

#[test]
fn a_healthcheck_ends_in_time_whatever_is_at_the_other_end() {
    let served = TlsGateway::start();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    kill_process(Pid::from_child(&served.child), Signal::STOP).unwrap();
    for (address, words) in [
        (format!("http://{silent}"), ["check the port", "hangs"]),
        (format!("https://{silent}"), ["another port", "check the port"]),
        (format!("http://{}", served.grpc), ["check the port", "hangs"]),
        (format!("https://{}", served.grpc), ["another port", "check the port"]),
        (nobody.to_string(), ["nothing listens there", "is it this port?"]),
    ] {
        let begun = Instant::now();
        let ended = served.check(&[&format!("--addr={address}")]);
        assert_eq!(ended.code, Some(1), "{address}: {ended:?}");
        assert!(begun.elapsed() < PATIENCE, "{address} took {:?}", begun.elapsed());
        let text = ended.err.to_lowercase();
        assert!(words.iter().any(|word| text.contains(word)), "{address}: {}", ended.err);
    }
    kill_process(Pid::from_child(&served.child), Signal::CONT).unwrap();
}
