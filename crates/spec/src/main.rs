//! A model of the reservation protocol and its checker (docs/protocol.md#fence-and-tombstone, #createorder, #model).
//!
//! The model has one product; orders with a register each, as on ORDERS, where the compare-and-set decides; and the
//! ledger, which decides by the workers' own rules (`inventory_worker::stock::Command::decide`). Calls to CreateOrder
//! follow `crates/orders/src/service/create.rs`; clients repeat them for ever, and gateways die at any step. Records,
//! reservations and commands arrive late, twice, or never. Expiry and release_inventory run on workers that are
//! arbitrarily far behind (`release.rs`, `expiry.rs`). The consumer (`events.rs`) gets events in any order, and again
//! after their acknowledgement. Orders are cancelled and shipped. As options: stale reads of ORDERS, a stale barrier,
//! an event that becomes a dead letter, forgotten ids, and orders that an operator has settled (`settle.rs`).
//!
//! Decide and commit are one step: an append that was decided at N commits only at N. Not modelled: several products,
//! purges and snapshots, ttlSeconds 0, adjustments, the loss of what was acknowledged (and so what a restore leaves to
//! repair), time. Calls and commands do not live longer than ids are known.

mod action;
mod check;
mod mend;
mod moves;
mod options;
mod rules;
mod world;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand, ValueEnum as _};
use stateright::{Checker, Expectation, HasDiscoveries, Model, Path};

use action::Move;
use options::{Mutant, Options};

/// The model checker of the reservation protocol
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check the protocol; exit code 0 if no violation was found
    Check {
        /// Check larger configurations, with all faults at once; takes minutes
        #[arg(long)]
        wide: bool,
        /// Time limit of each check in minutes; then it ends without a verdict
        #[arg(long, default_value_t = 30)]
        minutes: u64,
    },
    /// Check that each mutant is found, and print its trace
    Mutants,
}

fn main() -> ExitCode {
    let cli = match cli::parse::<Cli>() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let good = match cli.command {
        Command::Check { wide, minutes } => checks(wide, Duration::from_secs(minutes * 60)),
        Command::Mutants => Mutant::value_variants().iter().all(|mutant| shown(*mutant)),
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The checks of CI, or the wide ones, by name.
fn plan(wide: bool) -> Vec<(&'static str, Options)> {
    const ONE: [(usize, u8); 2] = [(0, 0), (0, 0)];
    const MIXED: [(usize, u8); 2] = [(0, 0), (0, 1)];
    const TWO: [(usize, u8); 2] = [(0, 0), (1, 0)];
    const THREE: [(usize, u8); 3] = [(0, 0), (0, 0), (1, 0)];
    if wide {
        return vec![
            ("two orders, one unit, everything", Options { tombstones: 1, ..Options::all(&TWO) }),
            ("two orders, two units, everything", Options { stock: 2, tombstones: 1, ..Options::all(&TWO) }),
            ("other items, three tombstones, everything", Options { tombstones: 3, ..Options::all(&MIXED) }),
        ];
    }
    vec![
        ("one order, two calls, everything", Options::all(&ONE)),
        ("other items, everything", Options::all(&MIXED)),
        ("one order, settled all the time", Options { reconcile: true, ..Options::all(&ONE) }),
        (
            "other items, settled all the time",
            Options { reconcile: true, tombstones: 1, ..Options::all(&MIXED) },
        ),
        ("other items, released first", Options { release_first: true, ..Options::of(&MIXED) }),
        ("two orders, one unit", Options { tombstones: 1, ..Options::of(&TWO) }),
        ("two calls of one order and one of another", Options { tombstones: 1, ..Options::of(&THREE) }),
    ]
}

fn checks(wide: bool, limit: Duration) -> bool {
    let (mut good, mut states) = (true, 0);
    for (name, options) in plan(wide) {
        let begun = Instant::now();
        let checker = options.checker().threads(threads()).timeout(limit).spawn_bfs().join();
        let (count, depth) = (checker.unique_state_count(), checker.max_depth());
        let verdict = verdict(&checker, begun.elapsed() < limit);
        cli::say!(
            "{name}: {count} states, depth {depth}, {:.1} s, {}",
            begun.elapsed().as_secs_f64(),
            verdict.as_str()
        );
        for (property, trace) in faults(&checker) {
            cli::say!("  {property}\n{trace}");
        }
        states += count;
        good &= verdict == Verdict::Clean;
    }
    cli::say!("{states} states; {}", if good { "no violation" } else { "FAILED" });
    good
}

/// The result of a check.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Clean,
    Violated,
    /// Something that has to be possible did not happen: the check is vacuous.
    Vacuous,
    /// Out of time.
    Open,
}

impl Verdict {
    fn as_str(&self) -> &'static str {
        match self {
            Verdict::Clean => "exhausted, no violation",
            Verdict::Violated => "VIOLATED",
            Verdict::Vacuous => "VACUOUS",
            Verdict::Open => "not exhausted, no violation so far",
        }
    }
}

fn verdict(checker: &impl Checker<Options>, exhausted: bool) -> Verdict {
    let found = checker.discoveries();
    let expected = |wanted: Expectation| {
        checker.model().properties().into_iter().filter(move |property| property.expectation == wanted)
    };
    if expected(Expectation::Always).any(|property| found.contains_key(property.name)) {
        Verdict::Violated
    } else if !exhausted {
        Verdict::Open
    } else if expected(Expectation::Sometimes).any(|property| !found.contains_key(property.name)) {
        Verdict::Vacuous
    } else {
        Verdict::Clean
    }
}

/// The violated properties, each with a trace.
fn faults(checker: &impl Checker<Options>) -> Vec<(&'static str, String)> {
    let always: Vec<&str> = checker
        .model()
        .properties()
        .into_iter()
        .filter(|property| property.expectation == Expectation::Always)
        .map(|property| property.name)
        .collect();
    let trace = |path: Path<_, Move>| {
        path.into_actions().iter().map(|action| format!("    {action:?}\n")).collect::<String>()
    };
    let found = checker.discoveries().into_iter().filter(|(name, _)| always.contains(name));
    found.map(|(name, path)| (name, trace(path))).collect()
}

/// The configuration in which a mutant is found soonest.
fn place(mutant: Mutant) -> Options {
    let one = [(0, 0), (0, 0)];
    let options = match mutant {
        Mutant::NoTombstone | Mutant::OldTombstone | Mutant::FinalCheck => Options::of(&one),
        Mutant::NoEvidence => Options { stale_barrier: true, ..Options::of(&one) },
        Mutant::FinalRefusal => Options { forget: true, ..Options::of(&one) },
        Mutant::EarlyForget => Options { forget: true, stock: 2, ..Options::of(&one) },
        Mutant::BlindExpiry => Options { dead_letters: true, ..Options::of(&one) },
        Mutant::AnyTombstone => Options { reconcile: true, ..Options::of(&one) },
    };
    Options { mutant: Some(mutant), ..options }
}

/// Whether the mutant is found; prints its trace.
fn shown(mutant: Mutant) -> bool {
    let checker =
        place(mutant).checker().threads(1).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let faults = faults(&checker);
    cli::say!("{mutant:?}: {}", if faults.is_empty() { "NOT FOUND" } else { "found" });
    for (property, trace) in &faults {
        cli::say!("  {property}\n{trace}");
    }
    !faults.is_empty()
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clean(options: Options) {
        let checker = options.checker().threads(threads()).spawn_bfs().join();
        assert_eq!((verdict(&checker, true), faults(&checker)), (Verdict::Clean, Vec::new()));
    }

    #[test]
    fn one_order_with_two_calls_is_safe() {
        clean(Options { tombstones: 1, ..Options::of(&[(0, 0), (0, 0)]) });
    }

    #[test]
    fn every_mistake_is_found() {
        assert!(Mutant::value_variants().iter().all(|mutant| shown(*mutant)));
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
