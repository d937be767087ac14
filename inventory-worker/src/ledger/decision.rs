//! The answer to a command that was not refused.

use crate::stock::rules::View;
use crate::stock::{Command, Level, Phase};

/// The answer to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It is done.
    Done,
    /// The order holds its units.
    Reserved {
        /// When that expires without an order, Unix ms; `None`: when it is released.
        expires_at: Option<u64>,
        /// The sequence that the order's record has to expect.
        fence: u64,
    },
    /// The products' levels after the change.
    Levels(Vec<(Box<str>, Level)>),
}

impl Decision {
    /// The answer to a command that was decided, on the state after it.
    pub(super) fn to(command: &Command, view: &impl View) -> Decision {
        match command {
            Command::Reserve { order, .. } => view.reservation(order).map_or(Decision::Done, |reservation| {
                let expires_at = match reservation.phase {
                    Phase::Held { expires_at } => expires_at,
                    Phase::Bound { .. } | Phase::Released { .. } | Phase::Shipped { .. } => None,
                };
                Decision::Reserved { expires_at, fence: reservation.fence }
            }),
            Command::Adjust { lines, .. } => Decision::Levels(
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
            | Command::CatchUp => Decision::Done,
        }
    }
}
