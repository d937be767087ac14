//! Subscriptions: what is published on a subject, or stored by a stream.

use std::sync::Arc;

use catalog::{Route, Subscription};
use wire::{Failure, Reason};

use crate::call::CallContext;
use crate::{Bridge, Messages};

impl Bridge {
    pub(crate) async fn listen(
        &self,
        _route: &Arc<Route>,
        _subscription: &Subscription,
        _request: &[u8],
        _call: CallContext,
    ) -> Result<Messages, Failure> {
        Err(Failure::new(Reason::Internal, "not built yet"))
    }
}
