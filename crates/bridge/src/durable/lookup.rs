//! Reads what is known of the stream that stores a route's messages: at first use, and now and then. Must not decide what
//! follows from it.

use catalog::{Durable, Route};
use nats::Connection;
use tokio::time::{Instant, timeout_at};

use crate::Bridge;
use crate::route_state::RouteState;
use crate::storage::{READ, Storage};

impl Bridge {
    /// Reads in the background what a repetition will need, if it is not known.
    pub(super) fn look_up_storage(&self, route: &Route, durable: &Durable) {
        let Ok(state) = self.states().of(route) else { return };
        if !state.storage().claim(Instant::now()) {
            return;
        }
        let (bridge, path, pattern) = (self.clone(), route.path.clone(), route.subject.pattern());
        let stream = durable.stream.clone();
        self.tasks().spawn(async move {
            let storage = read(bridge.connection(), stream, &pattern, Instant::now() + READ).await;
            let route = bridge.states().route(&path);
            if let Ok(state) = route.and_then(|route| bridge.states().of(route)) {
                state.storage().put(storage);
            }
        });
    }

    /// The stream of a route; none if nothing can be said.
    pub(super) async fn storage(
        &self,
        route: &Route,
        state: &RouteState,
        durable: &Durable,
        deadline: Instant,
    ) -> Option<Storage> {
        if let Some(Some(storage)) = state.storage().get(Instant::now()) {
            return Some(storage);
        }
        let deadline = deadline.min(Instant::now() + READ);
        let storage =
            read(self.connection(), durable.stream.clone(), &route.subject.pattern(), deadline).await;
        state.storage().put(storage.clone());
        storage
    }
}

async fn read(
    link: &Connection,
    stream: Option<String>,
    pattern: &str,
    deadline: Instant,
) -> Option<Storage> {
    let read = async {
        let stream = match stream {
            Some(stream) => stream,
            None => {
                let mut streams = link.streams_of(pattern, deadline).await.ok()?;
                streams.pop().filter(|_| streams.is_empty())?
            }
        };
        let settings = link.settings(&stream, deadline).await.ok()?;
        Some(Storage { stream, duplicate_window: settings.duplicate_window })
    };
    timeout_at(deadline, read).await.ok().flatten()
}
