//! The services of the library: plain subscribers, which know neither a gateway nor its libraries.

use async_nats::{Client, HeaderMap, Message};
use futures_util::StreamExt as _;

/// A nats-server without JetStream, and the services.
pub struct Services {
    pub server: local_nats::Server,
}

impl Services {
    pub async fn start() -> Services {
        let bare =
            local_nats::Options { config: Some("jetstream: disabled".to_owned()), ..Default::default() };
        let started = tokio::task::spawn_blocking(|| local_nats::Server::with(bare)).await;
        let server = started.unwrap().unwrap();
        let nats = async_nats::connect(server.url()).await.unwrap();
        serve(&nats, "library.shelves.get", |request| match &*request.payload {
            br#"{"id":"emma"}"# => Ok(EMMA.into()),
            _ => Err(("404", "no such book")),
        })
        .await;
        serve(&nats, "library.shelves.remove", |_| Ok(b"{}".into())).await;
        // 2001-09-09T01:46:40Z in the protobuf encoding, if it was asked for the book `x` in the same.
        let lent = |request: &Message| {
            assert_eq!(&*request.payload, b"\x0a\x01x");
            Ok(b"\x08\x80\x94\xeb\xdc\x03".into())
        };
        serve(&nats, "library.desk.get", lent).await;
        Services { server }
    }
}

const EMMA: &str = r#"{"title":"Emma","copies":[{"number":"9007199254740993","lentUntil":"2026-11-29T10:00:00Z"}],"isbn":"1"}"#;

type Answer = Result<Vec<u8>, (&'static str, &'static str)>;

async fn serve(nats: &Client, subject: &'static str, answer: impl Fn(&Message) -> Answer + Send + 'static) {
    let mut requests = nats.queue_subscribe(subject, "library".to_owned()).await.unwrap();
    nats.flush().await.unwrap();
    let nats = nats.clone();
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            let (mut headers, reply) = (HeaderMap::new(), request.reply.clone().unwrap());
            let payload = answer(&request).unwrap_or_else(|(code, text)| {
                headers.insert("Nats-Service-Error-Code", code);
                headers.insert("Nats-Service-Error", text);
                Vec::new()
            });
            nats.publish_with_headers(reply, headers, payload.into()).await.unwrap();
        }
    });
}
