//! Warns before a bound of the stock is reached: one log line when a percentage is passed, and none while it stays so.
//! Must not refuse anything.

use crate::stock::Amounts;
use crate::stock::bounds::LimitKind;

/// Percentages that are logged when they are passed.
const TOLD: [usize; 3] = [80, 90, 100];
/// Below this percentage, the next rise is logged again.
const FORGOTTEN: usize = 75;

/// What was logged for each bound.
#[derive(Debug, Default)]
pub(super) struct Fill([usize; LimitKind::ALL.len()]);

impl Fill {
    /// Compares the amounts with the bounds, and logs what is new.
    pub(super) fn look(&mut self, amounts: Amounts, bounds: Amounts) {
        for (kind, told) in LimitKind::ALL.into_iter().zip(&mut self.0) {
            let (there, limit) = (amounts.of(kind), bounds.of(kind));
            let share = there.saturating_mul(100).checked_div(limit).unwrap_or(100);
            if rises(told, share) {
                let (what, variable) = (kind.noun(), kind.variable());
                tracing::warn!(
                    what,
                    there,
                    limit,
                    variable,
                    "{told} % of a limit is reached; beyond it new ones are refused"
                );
            }
        }
    }
}

/// Whether a percentage that was not logged yet is passed now; it counts as logged then.
fn rises(told: &mut usize, share: usize) -> bool {
    if share < FORGOTTEN {
        *told = 0;
    }
    let passed = TOLD.into_iter().rfind(|least| share >= *least).unwrap_or(0);
    let rises = passed > *told;
    *told = passed.max(*told);
    rises
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_share_is_told_once_on_the_way_up_and_again_after_a_fall() {
        let mut told = 0;
        let shares = [10, 79, 80, 81, 89, 79, 90, 99, 100, 85, 100, 74, 80];
        let lines: Vec<_> = shares.into_iter().filter(|share| rises(&mut told, *share)).collect();
        assert_eq!(lines, [80, 90, 100, 80]);
    }
}
