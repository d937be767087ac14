//! What answers hold that their clients have not taken. Nothing of an answer is refused: whose answers lie unread begins
//! nothing new. Must never know what an answer is.

use std::sync::atomic::Ordering;

use contract::Failure;

use super::{CALLERS, CONNECTIONS, Charge, Connection, Inner, Owner, RETRY, Share, exceeded};
use crate::answer::Periods;

impl Share {
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
    /// A part of what answers may hold, with room for one at least.
    fn unread_part(&self, of: usize) -> usize {
        (self.size.answers / of).max(self.size.answer)
    }
}

impl Connection {
    /// Why no call may begin, if answers lie unread.
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

    /// Whether no call is in hand: none is read, worked on, or has an answer that is not written.
    pub fn idle(&self) -> bool {
        self.bytes.held() == 0
    }

    /// A period is over: whether nothing has been taken of an answer in the seven before it.
    pub fn turn(&self) -> bool {
        self.periods.turn()
    }
}

impl Owner {
    /// Why no call of its may begin, if its answers lie unread.
    pub(super) fn unread(&self, connection: &Connection) -> Result<(), Failure> {
        let most = connection.budget.0.unread_part(CALLERS);
        if self.share.unread() <= most {
            return Ok(());
        }
        Err(exceeded(format!("{most} bytes of one caller's answers not read")))
    }
}

impl Charge {
    /// An answer holds so many bytes.
    pub(crate) fn owe(&self, bytes: usize) {
        self.unread_shares().for_each(|share| share.owe(bytes));
    }

    /// And so many no longer.
    pub(crate) fn paid(&self, bytes: usize) {
        self.unread_shares().for_each(|share| share.paid(bytes));
    }

    /// Whether there is no room for more of an answer that goes on.
    pub(crate) fn crowded(&self) -> bool {
        let budget = &self.connection.budget.0;
        self.connection.bytes.unread() > budget.unread_part(CONNECTIONS)
            || budget.bytes.share.unread() > budget.size.answers
            || self.owner.get().is_some_and(|owner| owner.share.unread() > budget.unread_part(CALLERS))
    }

    pub(crate) fn periods(&self) -> &Periods {
        &self.connection.periods
    }

    /// The request is answered: its call holds no more than this. Something it has to, as one of the connection's calls.
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

    fn unread_shares(&self) -> impl Iterator<Item = &Share> {
        let owner = self.owner.get().map(|owner| &*owner.share);
        [&self.connection.bytes, &self.connection.budget.0.bytes.share].into_iter().chain(owner)
    }
}

fn unread(subject: &str, most: usize) -> Failure {
    Failure::overloaded(subject, &format!("{most} bytes of answers not read"), RETRY)
}
