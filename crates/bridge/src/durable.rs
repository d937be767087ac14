//! Messages that a JetStream stream stores.

use catalog::{Durable, Route};
use wire::{Failure, Reason};

use crate::Bridge;
use crate::call::CallContext;

impl Bridge {
    pub(super) async fn store(
        &self,
        _route: &Route,
        _durable: &Durable,
        _request: &[u8],
        _call: &CallContext,
    ) -> Result<Vec<u8>, Failure> {
        Err(Failure::new(Reason::Internal, "not built yet"))
    }
}
