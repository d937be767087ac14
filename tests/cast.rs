//! The roles of deploy/nats/roles.conf on a nats-server with that file: their users, their permissions, and the
//! permission violations that the server reports.

use std::sync::{Arc, Mutex};

use async_nats::{Client, ConnectOptions, Event};
use nats::{Connection, Options};
use serde_json::Value;
use tokio::time::Instant;

use crate::shop::{PATIENCE, until};

/// The shipped file.
pub const ROLES: &str = include_str!("../deploy/nats/roles.conf");
/// All roles.
pub const ALL: [&str; 8] = [
    "gateway",
    "worker",
    "provisioner",
    "operator",
    "subscriber",
    "breakglass",
    "system",
    "breakglass_system",
];

/// The file with passwords in front: the server prefers variables of the configuration to those of its environment.
pub fn config() -> String {
    let passwords = ALL.map(|role| format!("NATS_{}_PASSWORD: \"{role}'s secret\"", role.to_uppercase()));
    passwords.join("\n") + "\n" + ROLES
}

/// How a role connects.
pub fn role(url: &str, name: &str) -> Options {
    Options::at(url).by(name, &format!("{name}'s secret")).inbox(&format!("_INBOX_{name}"))
}

/// Creates the streams, as the provisioner.
pub async fn provision(url: &str) {
    let link = Connection::connect(&role(url, "provisioner"), "gateway provision").await.unwrap();
    order_streams::open(&link, 1, true).await.expect("the streams");
}

/// A plain client with the user of a role.
pub struct Player {
    pub client: Client,
    pub name: &'static str,
    said: Arc<Mutex<Vec<String>>>,
}

impl Player {
    pub async fn of(url: &str, name: &'static str) -> Player {
        let said = Arc::new(Mutex::new(Vec::new()));
        let hears = said.clone();
        let options = ConnectOptions::new()
            .user_and_password(name.to_owned(), format!("{name}'s secret"))
            .custom_inbox_prefix(format!("_INBOX_{name}"))
            .event_callback(move |event: Event| {
                hears.lock().unwrap().push(event.to_string());
                std::future::ready(())
            });
        Player { client: options.connect(url).await.expect("a connection"), name, said }
    }

    /// Publishes, and waits for the permission violation.
    pub async fn is_refused(&self, subject: &str, payload: &str) {
        let reply = self.client.new_inbox();
        self.client.publish_with_reply(subject.to_owned(), reply, payload.to_owned().into()).await.unwrap();
        self.hears(&format!("Permissions Violation for Publish to \"{subject}\"")).await;
    }

    /// Subscribes, with or without a queue group, and waits for the permission violation.
    pub async fn may_not_hear(&self, subject: &str, queue: Option<&str>) {
        let subject = subject.to_owned();
        let _subscriber = match queue {
            Some(queue) => self.client.queue_subscribe(subject.clone(), queue.to_owned()).await.unwrap(),
            None => self.client.subscribe(subject.clone()).await.unwrap(),
        };
        self.hears(&format!("Permissions Violation for Subscription to \"{subject}\"")).await;
    }

    async fn hears(&self, words: &str) {
        let what = format!("{} hears {words}", self.name);
        until(&what, async || self.said.lock().unwrap().iter().any(|said| said.contains(words))).await;
    }
}

/// All streams of the server: configuration and contents.
pub async fn state(link: &Connection) -> Vec<Value> {
    let mut all = Vec::new();
    for name in order_streams::ALL {
        let subject = format!("$JS.API.STREAM.INFO.{name}");
        let deadline = Instant::now() + PATIENCE;
        let reply = link.request(subject, Default::default(), Default::default(), deadline).await.unwrap();
        let info: Value = serde_json::from_slice(&reply.payload).unwrap();
        assert!(info["error"].is_null(), "{info}");
        all.push(serde_json::json!([info["config"], info["state"]]));
    }
    all
}

/// A list of subjects in the file: of a role, `publish` or `subscribe`, `allow` or `deny`.
pub fn list(role: &str, act: &str, word: &str) -> Vec<&'static str> {
    let part = |text: &'static str, begin: String, end: &str| {
        text.split_once(&begin).map(|(_, rest)| rest.split(end).next().unwrap_or_default())
    };
    let role = part(ROLES, format!("\n{role}_may: {{\n"), "\n}\n").expect("a role");
    let act = part(role, format!("  {act}: {{\n"), "\n  }").expect("an act");
    let list = part(act, format!("{word}: [\n"), "]").unwrap_or_default();
    let lines = list.lines().map(str::trim).filter(|line| line.starts_with('"'));
    lines.map(|line| line.trim_matches('"')).collect()
}
