//! The log of the real program under repeated errors: few lines, and how many were suppressed.

use std::fs::File;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use local_nats::Server;
use tempfile::TempDir;
use uuid::Uuid;

use crate::WORKER;
use crate::harness::command::program;

const PATIENCE: Duration = Duration::from_secs(60);
/// Each is logged by a line of ERROR when it becomes a dead letter.
const BAD: usize = 1_000;
const TOLD: &str = "an event could not be processed";

/// A worker that gives an event up at once. It ends when it is dropped.
struct Running {
    child: Child,
    folder: TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    fn on(nats: &Server) -> Running {
        let folder = tempfile::tempdir().unwrap();
        let log = File::create(folder.path().join("log")).unwrap();
        let mut command = program(WORKER, &["serve", "--max-deliver", "1"]);
        command
            .env("NATS_URL", nats.url())
            .env("GW_HEALTH_ADDR", "127.0.0.1:0")
            .env("GW_HTTP_ADDR", "127.0.0.1:0");
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        Running { child, folder }
    }

    fn lines(&self, of: &str) -> Vec<String> {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap();
        log.lines().filter(|line| line.contains(of)).map(str::to_owned).collect()
    }

    /// How many lines of that place were suppressed, as it says.
    fn left_out(&self) -> usize {
        let told = self.lines("were suppressed").into_iter().filter(|line| line.contains("events"));
        told.map(|line| {
            let count = line.split_once("left_out=").unwrap().1;
            count.split(|letter: char| !letter.is_ascii_digit()).next().unwrap().parse::<usize>().unwrap()
        })
        .sum()
    }

    fn until(&self, what: &str, holds: impl Fn(&Running) -> bool) {
        let limit = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < limit, "waited too long until {what}: {:#?}", self.lines(""));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn publish_nonsense(nats: &Server) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = async_nats::connect(nats.url()).await.unwrap();
        for _ in 0..BAD {
            let subject = format!("orders.event.order_created.{}", Uuid::new_v4());
            client.publish(subject, "{nonsense".into()).await.unwrap();
        }
        client.flush().await.unwrap();
    });
}

#[test]
fn a_thousand_bad_events_write_few_lines_and_say_how_many_were_left_out() {
    let nats = Server::start().unwrap();
    let worker = Running::on(&nats);
    worker.until("it is ready", |worker| !worker.lines("ready").is_empty());
    let begun = Instant::now();
    publish_nonsense(&nats);
    worker.until("all are told or counted", |worker| worker.lines(TOLD).len() + worker.left_out() >= BAD);
    let (told, seconds) = (worker.lines(TOLD).len(), begun.elapsed().as_secs() as usize);
    assert!(told <= 10 * (seconds + 2), "{told} lines in {seconds} s");
    assert_eq!(told + worker.left_out(), BAD);
}
