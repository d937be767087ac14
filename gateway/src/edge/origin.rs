//! Where a call comes from: on which connection, when, and of whom, as far as that is known. Must never know what is
//! called.

use std::sync::Arc;

use admission::Arrival;

use super::peer::Peer;
use crate::auth::Caller;
use crate::share::Hold;

/// Of a routed call it is handed on, and of another it is with the request.
#[derive(Clone)]
pub(super) struct Origin {
    /// The connection.
    pub(super) peer: Arc<Peer>,
    pub(super) arrival: Arrival,
    pub(super) caller: Option<Arc<Caller>>,
    /// Whose hand the call is in: the caller's, or where nobody is known the connection's.
    pub(super) hold: Option<Arc<Hold>>,
}

impl Origin {
    /// A call of nobody who is known.
    pub(super) fn new(peer: Arc<Peer>, arrival: Arrival) -> Origin {
        let hold = peer.hold();
        Origin { peer, arrival, caller: None, hold }
    }

    /// The same call, of this caller and in this hand.
    pub(super) fn of(self, caller: Arc<Caller>, hold: Arc<Hold>) -> Origin {
        Origin { caller: Some(caller), hold: Some(hold), ..self }
    }
}
