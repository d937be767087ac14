//! The origin of a call: its connection, its time of arrival and its caller, if known. Must not depend on what is
//! called.

use std::sync::Arc;

use admission::Arrival;
use tonic::Request;

use super::peer::Peer;
use crate::auth::Caller;
use bridge::share::Share;

/// The origin of a call: passed as an argument for routed calls, as a request extension for others.
#[derive(Clone)]
pub(super) struct Origin {
    /// The connection.
    pub(super) peer: Arc<Peer>,
    pub(super) arrival: Arrival,
    pub(super) caller: Option<Arc<Caller>>,
    /// The permit that counts the call: of the caller, or of the connection if the caller is unknown.
    pub(super) hold: Option<Arc<Share>>,
}

impl Origin {
    /// A call without an authenticated caller.
    pub(super) fn new(peer: Arc<Peer>, arrival: Arrival) -> Origin {
        let hold = peer.hold();
        Origin { peer, arrival, caller: None, hold }
    }

    /// The same call, with this caller and this permit.
    pub(super) fn of(self, caller: Arc<Caller>, hold: Arc<Share>) -> Origin {
        Origin { caller: Some(caller), hold: Some(hold), ..self }
    }
}

/// Waits until a stream has to move to another connection, at a random moment within the grace period of its own. Only
/// for requests that this server has received: others never have to.
pub fn leaving<T>(request: &Request<T>) -> impl Future<Output = ()> + Send + use<T> {
    let peer = request.extensions().get::<Origin>().map(|origin| origin.peer.clone());
    async move {
        match peer {
            Some(peer) => peer.leaving().await,
            None => std::future::pending().await,
        }
    }
}
