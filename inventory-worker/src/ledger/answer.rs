//! What a command that was not refused is answered with.

use crate::stock::rules::View;
use crate::stock::{Command, Level, Phase};

/// The answer to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is so.
    Done,
    /// The order holds its units.
    Reserved {
        /// When that ends without an order, unix ms; `None`: when it is released.
        expires_at: Option<u64>,
        /// What the order's record has to expect.
        fence: u64,
    },
    /// The products' levels after the change.
    Levels(Vec<(Box<str>, Level)>),
}

impl Answer {
    /// The answer to a command that was decided, on the state after it.
    pub(super) fn to(command: &Command, view: &impl View) -> Answer {
        match command {
            Command::Reserve { order, .. } => view.reservation(order).map_or(Answer::Done, |reservation| {
                let expires_at = match reservation.phase {
                    Phase::Held { expires_at } => expires_at,
                    Phase::Bound { .. } | Phase::Released { .. } | Phase::Shipped { .. } => None,
                };
                Answer::Reserved { expires_at, fence: reservation.fence }
            }),
            Command::Adjust { lines, .. } => Answer::Levels(
                lines
                    .iter()
                    .map(|(product, _)| (product.clone(), view.level(product).unwrap_or_default()))
                    .collect(),
            ),
            Command::Bind(..)
            | Command::Cancel(..)
            | Command::Ship(..)
            | Command::Expire(..)
            | Command::Drop(..)
            | Command::Disown(..)
            | Command::Count(_)
            | Command::Remove(_)
            | Command::Forget(_)
            | Command::CatchUp => Answer::Done,
        }
    }
}
