//! Bytes of responses that their clients have not read. No response is cut off: a connection or caller with too many
//! unread bytes cannot begin new calls. Must not depend on what a response is.

use std::sync::atomic::Ordering;

use wire::Failure;

use super::{CALLERS, CONNECTIONS, CallerShare, Charge, ConnectionBudget, Inner, Owner, RETRY, exceeded};
use crate::unsent::Periods;

impl CallerShare {
    fn owe(&self, more: usize) {
        self.unread.fetch_add(more, Ordering::Relaxed);
    }

    fn paid(&self, less: usize) {
        self.unread.fetch_sub(less, Ordering::Relaxed);
    }

    pub(super) fn unread(&self) -> usize {
        self.unread.load(Ordering::Relaxed)
    }
}

impl Inner {
    /// The fraction 1/`of` of the limit for unread responses, with room for at least one.
    fn unread_part(&self, of: usize) -> usize {
        (self.size.answers / of).max(self.size.answer)
    }
}

impl ConnectionBudget {
    /// Refuses a new call if there are too many unread bytes.
    pub(super) fn unread(&self) -> Result<(), Failure> {
        let Inner { size, bytes, connections, .. } = &*self.budget.0;
        let most = self.budget.0.unread_part(CONNECTIONS);
        if self.bytes.unread() > most {
            connections.fetch_add(1, Ordering::Relaxed);
            return Err(unread("the connection", most));
        }
        if bytes.share.unread() > size.answers {
            bytes.refused.fetch_add(1, Ordering::Relaxed);
            return Err(unread("the process", size.answers));
        }
        Ok(())
    }

    /// Whether no call is in flight: none is being read or processed, or has an unwritten response.
    pub fn idle(&self) -> bool {
        self.bytes.held() == 0
    }

    /// Begins a new period. Returns whether some response made no progress in the seven periods before it.
    pub fn turn(&self) -> bool {
        self.periods.turn()
    }
}

impl Owner {
    /// Refuses a new call of this caller if it has too many unread bytes.
    pub(super) fn unread(&self, connection: &ConnectionBudget) -> Result<(), Failure> {
        let most = connection.budget.0.unread_part(CALLERS);
        if self.share.unread() <= most {
            return Ok(());
        }
        Err(exceeded(format!("{most} bytes of one caller's unread responses")))
    }
}

impl Charge {
    /// Adds unread bytes of a response.
    pub(crate) fn owe(&self, bytes: usize) {
        self.unread_shares().for_each(|share| share.owe(bytes));
    }

    /// Removes bytes that were written.
    pub(crate) fn paid(&self, bytes: usize) {
        self.unread_shares().for_each(|share| share.paid(bytes));
    }

    /// Whether there is no room for more of a streaming response.
    pub(crate) fn crowded(&self) -> bool {
        let budget = &self.connection.budget.0;
        self.connection.bytes.unread() > budget.unread_part(CONNECTIONS)
            || budget.bytes.share.unread() > budget.size.answers
            || self.owner.get().is_some_and(|owner| owner.share.unread() > budget.unread_part(CALLERS))
    }

    pub(crate) fn periods(&self) -> &Periods {
        &self.connection.periods
    }

    /// Reduces the charge of an answered call to `to`, which must not be 0: the call still counts on its connection.
    pub(crate) fn shrink(&self, to: usize) {
        let held = self.bytes.load(Ordering::Relaxed);
        if held <= 2 * to {
            return;
        }
        self.bytes.store(to, Ordering::Relaxed);
        let bytes = held - to;
        self.connection.bytes.give(bytes);
        self.connection.budget.0.bytes.share.give(bytes);
        if let Some(owner) = self.owner.get() {
            owner.give(&self.connection, bytes);
        }
    }

    fn unread_shares(&self) -> impl Iterator<Item = &CallerShare> {
        let owner = self.owner.get().map(|owner| &*owner.share);
        [&self.connection.bytes, &self.connection.budget.0.bytes.share].into_iter().chain(owner)
    }
}

fn unread(subject: &str, most: usize) -> Failure {
    Failure::overloaded(subject, &format!("limit of {most} bytes of unread responses"), RETRY)
}
