//! The health server: grpc.health.v1 over the health registry. (tonic-health's service ends the watch of an unknown
//! service, against its proto, so only its messages are used.) Must not decide what is healthy.

use std::pin::Pin;

use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::registry::{HealthRegistry, HealthState, Standing};
use crate::status;

/// Maximum characters of a service's name.
const NAME: usize = 128;

/// The health server.
pub struct HealthService {
    board: HealthRegistry,
}

impl HealthService {
    /// Serves the state of this registry.
    pub fn new(board: HealthRegistry) -> HealthService {
        HealthService { board }
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        match self.board.standing(&service) {
            Some(standing) => Ok(Response::new(response(status_of(standing)))),
            None => Err(status(wire::Failure::not_found("service", told(&service)))),
        }
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (board, service) = (self.board.clone(), request.into_inner().service);
        let (known, standing) = board.follow(&service);
        let changes = unfold(Watch { board, service, known, standing, said: None }, |mut watch| async {
            let news = watch.next().await?;
            Some((Ok(response(news)), watch))
        });
        Ok(Response::new(Box::pin(changes)))
    }
}

struct Watch {
    board: HealthRegistry,
    service: String,
    known: bool,
    standing: watch::Receiver<HealthState>,
    said: Option<ServingStatus>,
}

impl Watch {
    /// The first status, then each change; `None` when the process shuts down.
    async fn next(&mut self) -> Option<ServingStatus> {
        loop {
            if !self.known {
                (self.known, self.standing) = self.board.follow(&self.service);
            }
            // Not marked as seen: what changes after the look-up may make it known.
            let HealthState { standing, over } = *self.standing.borrow();
            let now = if self.known { status_of(standing) } else { ServingStatus::ServiceUnknown };
            if self.said != Some(now) {
                self.said = Some(now);
                return self.said;
            }
            if over {
                return None;
            }
            // It is closed when the service is gone.
            self.known &= self.standing.changed().await.is_ok();
        }
    }
}

/// The requested name if it is well-formed, as it also goes into logs.
fn told(service: &str) -> &str {
    let plain =
        service.len() <= NAME && service.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b));
    if plain { service } else { "of that name" }
}

fn status_of(standing: Standing) -> ServingStatus {
    match standing {
        Standing::Up => ServingStatus::Serving,
        Standing::Down => ServingStatus::NotServing,
        Standing::Unknown => ServingStatus::Unknown,
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt};

    use super::*;

    async fn watch(board: &HealthRegistry, service: &str) -> impl Stream<Item = i32> + Unpin + use<> {
        let request = Request::new(HealthCheckRequest { service: service.to_owned() });
        let stream = HealthService::new(board.clone()).watch(request).await.unwrap().into_inner();
        stream.map(|response| response.unwrap().status)
    }

    #[tokio::test]
    async fn a_watch_tells_changes_only_and_ends_with_the_process() {
        let board = HealthRegistry::new(&["a"]);
        let mut news = watch(&board, "a").await;
        assert_eq!(news.next().await, Some(ServingStatus::NotServing as i32));
        board.set("a", false);
        assert_eq!(news.next().now_or_never(), None);
        board.set("a", true);
        assert_eq!(news.next().await, Some(ServingStatus::Serving as i32));
        board.end();
        assert_eq!(news.next().await, Some(ServingStatus::NotServing as i32));
        assert_eq!(news.next().await, None);
        board.set("a", true);
        assert_eq!(board.up("a"), Some(false));
    }

    #[tokio::test]
    async fn an_unknown_service_is_not_found_by_check_and_watched_until_the_end() {
        let board = HealthRegistry::new::<&str>(&[]);
        let request = Request::new(HealthCheckRequest { service: "x".into() });
        assert_eq!(
            HealthService::new(board.clone()).check(request).await.unwrap_err().code(),
            tonic::Code::NotFound
        );
        let said = async |service: &str| {
            let request = Request::new(HealthCheckRequest { service: service.to_owned() });
            HealthService::new(board.clone()).check(request).await.unwrap_err().message().to_owned()
        };
        assert!(said("a.v1.B").await.contains("a.v1.B"));
        for text in ["a\nb", "\u{1b}[2J", &"x".repeat(129)] {
            assert!(!said(text).await.contains(text), "{text:?}");
        }
        let mut news = watch(&board, "x").await;
        assert_eq!(news.next().await, Some(ServingStatus::ServiceUnknown as i32));
        assert_eq!(news.next().now_or_never(), None);
        board.end();
        assert_eq!(news.next().await, None);
    }

    #[tokio::test]
    async fn watches_follow_services_that_come_and_go() {
        let board = HealthRegistry::new(&["a", "b"]);
        let (mut a, mut b, mut c) =
            (watch(&board, "a").await, watch(&board, "b").await, watch(&board, "c").await);
        for (news, first) in [
            (&mut a, ServingStatus::NotServing),
            (&mut b, ServingStatus::NotServing),
            (&mut c, ServingStatus::ServiceUnknown),
        ] {
            assert_eq!(news.next().await, Some(first as i32));
        }
        board.set("b", true);
        assert_eq!(b.next().await, Some(ServingStatus::Serving as i32));
        board.replace(&["b", "c"]);
        assert_eq!(a.next().await, Some(ServingStatus::ServiceUnknown as i32));
        assert_eq!(c.next().await, Some(ServingStatus::NotServing as i32));
        assert_eq!((b.next().now_or_never(), board.up("a"), board.up("b")), (None, None, Some(true)));
        board.replace(&["a"]);
        assert_eq!(a.next().await, Some(ServingStatus::NotServing as i32));
        board.end();
        board.replace(&["d"]);
        assert_eq!((board.up("a"), board.up("d")), (Some(false), None));
        assert_eq!((a.next().await, b.next().await), (None, Some(ServingStatus::ServiceUnknown as i32)));
        assert_eq!(b.next().await, None);
    }

    #[tokio::test]
    async fn the_process_is_alive_until_it_is_gone() {
        let board = HealthRegistry::new::<&str>(&[]);
        board.end();
        assert_eq!(board.up(crate::registry::LIVENESS), Some(true));
    }
}
