//! This process as a NATS service (ADR-32): answers PING, INFO and STATS, so that other gateways and `nats micro info`
//! find it. It answers requests for its own name only, not those to all services. Must not depend on who asks.

use std::collections::BTreeMap;

use async_nats::Message;
use futures_util::StreamExt;
use futures_util::stream::{SelectAll, select_all};
use nats::Connection;
use serde_json::{Value, json};

const VERBS: [&str; 3] = ["PING", "INFO", "STATS"];

/// The description of this process.
pub struct MicroService {
    /// The service's name.
    pub name: &'static str,
    /// The instance id.
    pub id: String,
    /// Its version, as `MAJOR.MINOR.PATCH`.
    pub version: &'static str,
    /// Its description.
    pub description: &'static str,
    /// Its start time.
    pub started: pbjson_types::Timestamp,
    /// Further metadata, evaluated for each request.
    pub metadata: Box<dyn Fn() -> BTreeMap<&'static str, String> + Send>,
}

impl MicroService {
    /// Answers until it is dropped. Without permission to subscribe, it receives no requests.
    pub async fn answer(self, link: Connection) {
        let mut asked = Vec::new();
        for verb in VERBS {
            let mut questions = SelectAll::new();
            for subject in
                [format!("$SRV.{verb}.{}", self.name), format!("$SRV.{verb}.{}.{}", self.name, self.id)]
            {
                match link.client().subscribe(subject).await {
                    Ok(subscriber) => questions.push(subscriber),
                    Err(error) => {
                        tracing::warn!(%error, "cannot subscribe: other gateways will not find this one")
                    }
                }
            }
            asked.push(questions.map(move |message: Message| (verb, message)));
        }
        let mut asked = select_all(asked);
        while let Some((verb, message)) = asked.next().await {
            let Some(to) = message.reply else { continue };
            // An error means that the connection is closed, which is reported elsewhere.
            let _ = link.client().publish(to, self.tell(verb).to_string().into()).await;
        }
    }

    fn tell(&self, verb: &str) -> Value {
        let mut answer = json!({
            "type": format!("io.nats.micro.v1.{}_response", verb.to_lowercase()),
            "name": self.name,
            "id": self.id,
            "version": self.version,
            "metadata": (self.metadata)(),
        });
        match verb {
            "INFO" => (answer["description"], answer["endpoints"]) = (self.description.into(), json!([])),
            "STATS" => (answer["started"], answer["endpoints"]) = (json!(self.started), json!([])),
            _ => {}
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_what_adr_32_wants_of_each_verb() {
        let presence = MicroService {
            name: "gateway",
            id: "one".to_owned(),
            version: "1.2.3",
            description: "gRPC",
            started: pbjson_types::Timestamp { seconds: 1, nanos: 0 },
            metadata: Box::new(|| [("host", "here".to_owned())].into()),
        };
        let keys =
            |verb| presence.tell(verb).as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
        assert_eq!(keys("PING"), "id metadata name type version");
        assert_eq!(keys("INFO"), "description endpoints id metadata name type version");
        assert_eq!(keys("STATS"), "endpoints id metadata name started type version");
        let stats = presence.tell("STATS");
        assert_eq!(stats["type"], "io.nats.micro.v1.stats_response");
        assert_eq!(
            (&stats["started"], &stats["metadata"]["host"]),
            (&json!("1970-01-01T00:00:01+00:00"), &json!("here"))
        );
    }
}
