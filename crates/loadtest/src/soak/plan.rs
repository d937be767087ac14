//! The plan of faults, from a seed: the same seed gives the same plan. Pure; must not depend on how faults are
//! injected.

use std::fmt;
use std::time::Duration;

/// Time without faults at the beginning.
const WARM_UP: Duration = Duration::from_secs(5);
/// Time between faults: an election takes 4 to 9 s, and a write has to succeed before the next fault.
const RECOVERY: Duration = Duration::from_secs(9);
/// Time without faults at the end.
const COOL_DOWN: Duration = Duration::from_secs(8);

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// SIGKILL, then restart.
    Kill,
    /// SIGSTOP, then SIGCONT.
    Freeze,
    /// SIGTERM, then restart.
    Terminate,
    /// Its connections are broken, and new ones are refused.
    Cut,
    /// Its connections stay open, but pass no data.
    HalfOpen,
    /// Data is delayed.
    Delay,
    /// A stream's leader steps down.
    StepDown,
}

/// What the fault hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// The node that leads ORDERS at that time.
    OrdersLeader,
    /// The node that leads INVENTORY at that time.
    StockLeader,
    /// A node.
    Node(usize),
    /// A gateway.
    Gateway(usize),
    /// A worker.
    Worker(usize),
}

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    /// When, since the beginning of the load.
    pub(crate) at: Duration,
    /// How long it lasts.
    pub(crate) lasts: Duration,
    /// Its kind.
    pub(crate) kind: Kind,
    /// What it hits.
    pub(crate) target: Target,
}

/// The size of the system.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) nodes: usize,
    pub(crate) gateways: usize,
    pub(crate) workers: usize,
}

/// The faults of a run, by time.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) faults: Vec<Fault>,
}

impl Plan {
    /// The faults of a run of this length. Every kind occurs before one is repeated.
    pub(crate) fn new(seed: u64, length: Duration, size: Size) -> Plan {
        let mut dice = fastrand::Rng::with_seed(seed);
        let mut deck: Vec<Kind> = Vec::new();
        let (mut faults, mut at) = (Vec::new(), WARM_UP);
        loop {
            if deck.is_empty() {
                deck = Kind::ALL.to_vec();
                dice.shuffle(&mut deck);
            }
            let Some(kind) = deck.pop() else { break };
            let target = target(kind, size, &mut dice);
            let lasts =
                Duration::from_millis(if kind == Kind::StepDown { 0 } else { dice.u64(1_000..4_000) });
            let rest = if matches!(target, Target::Worker(_)) { RECOVERY / 3 } else { RECOVERY };
            if at + lasts + COOL_DOWN > length {
                break;
            }
            faults.push(Fault { at, lasts, kind, target });
            at += lasts + if matches!(target, Target::Gateway(_)) { RECOVERY / 2 } else { rest };
        }
        Plan { faults }
    }

    /// How many kinds occur.
    pub(crate) fn kinds(&self) -> usize {
        self.faults.iter().map(|fault| fault.kind).collect::<std::collections::BTreeSet<_>>().len()
    }
}

impl Kind {
    const ALL: [Kind; 7] =
        [Kind::Kill, Kind::Freeze, Kind::Terminate, Kind::Cut, Kind::HalfOpen, Kind::Delay, Kind::StepDown];
}

fn target(kind: Kind, size: Size, dice: &mut fastrand::Rng) -> Target {
    let leader =
        |dice: &mut fastrand::Rng| if dice.bool() { Target::OrdersLeader } else { Target::StockLeader };
    match (kind, dice.u8(0..3)) {
        (Kind::StepDown, _) | (Kind::Kill | Kind::Freeze | Kind::Terminate, 0) => leader(dice),
        // Connections between nodes are only cut or delayed, those of one node at a time.
        (Kind::Cut | Kind::Delay, 0) => Target::Node(dice.usize(0..size.nodes)),
        (_, 1) => Target::Gateway(dice.usize(0..size.gateways)),
        _ => Target::Worker(dice.usize(0..size.workers)),
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at.as_secs_f64();
        write!(f, "{at:>6.1} s  {:?} {:?}, {:.1} s", self.kind, self.target, self.lasts.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size { nodes: 3, gateways: 2, workers: 3 };

    #[test]
    fn a_seed_gives_the_same_plan_again_and_another_gives_another() {
        let plan = |seed| Plan::new(seed, Duration::from_secs(180), SIZE);
        assert_eq!(plan(1), plan(1));
        assert_ne!(plan(1), plan(2));
    }

    #[test]
    fn a_minute_has_faults_of_several_kinds_and_three_have_them_all() {
        for seed in 0..200 {
            assert!(Plan::new(seed, Duration::from_secs(70), SIZE).kinds() >= 4, "seed {seed}");
            assert_eq!(
                Plan::new(seed, Duration::from_secs(180), SIZE).kinds(),
                Kind::ALL.len(),
                "seed {seed}"
            );
        }
    }

    #[test]
    fn faults_do_not_overlap_and_leave_time_to_recover() {
        for seed in 0..50 {
            let plan = Plan::new(seed, Duration::from_secs(180), SIZE);
            assert!(plan.faults.windows(2).all(|two| two[0].at + two[0].lasts + RECOVERY / 3 <= two[1].at));
        }
    }
}
