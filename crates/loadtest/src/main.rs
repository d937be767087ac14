//! The command line of the load tools: parses the arguments, runs a subcommand, exits with its code. Must not depend on
//! how a subcommand works.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bar;
mod cage;
mod compare;
mod deployment;
mod echo;
mod faults;
mod flood;
mod grow;
mod input;
mod load;
mod outage;
mod overload;
mod process;
mod replay;
mod restart;
mod server;
mod shop;
mod soak;
mod table;
mod trouble;
mod unanswered;
mod usage;

/// Load and comparison tools for the order gateway
#[derive(Parser)]
#[command(version = version::FULL, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Places the orders of a CSV file through gRPC, and audits what the server has afterwards
    Replay(replay::Replay),
    /// Measures how long a worker with a large stock takes to start, and its memory
    Restart(restart::Restart),
    /// Kills NATS, and measures how soon calls fail and how soon they succeed again
    Outage(outage::Outage),
    /// Offers five times a service's capacity, and measures its goodput
    Overload(overload::Overload),
    /// Measures the memory that requests without a reply leave behind
    Unanswered(unanswered::Unanswered),
    /// Runs a cluster under load and faults, and checks that nothing was lost, doubled or misreported
    Soak(soak::Soak),
    /// Injects the faults of docs/operate.md into a cluster under load, and checks calls, health, alerts and console
    Faults(faults::Faults),
    /// Compares the gateway with a bare gRPC server and plain NATS, in turns
    Compare(compare::Compare),
    /// Measures how cost grows with orders, products, watches, connections, workers and items
    Grow(grow::Grow),
    /// Attacks a gateway and a worker in many ways, and measures the effect on well-behaved clients
    Flood(flood::Flood),
    /// The bare gRPC server that `compare` and `flood` start
    #[command(hide = true)]
    Echo(echo::Echo),
    /// The service behind routes of a file, which `compare` starts
    #[command(hide = true)]
    Shop(shop::Shop),
    /// The load generator that other subcommands start
    #[command(hide = true)]
    Load(load::Load),
    /// The attacker that `flood` starts
    #[command(hide = true)]
    Attack(flood::Attack),
    /// A gateway that other subcommands start
    #[command(hide = true)]
    Gateway(Box<gateway::config::Serve>),
    /// A worker that other subcommands start
    #[command(hide = true)]
    Worker(Box<inventory_worker::config::Serve>),
    /// The worker that `restart` starts and measures
    #[command(hide = true)]
    Started(restart::Started),
}

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let command = match cli::parse::<Cli>() {
        Ok(cli) => cli.command,
        Err(code) => return code,
    };
    // Gateway and worker start their own threads, as they do in their own programs.
    let runtime = match command {
        Command::Gateway(_) | Command::Worker(_) => {
            tokio::runtime::Builder::new_current_thread().enable_all().build()
        }
        _ => tokio::runtime::Builder::new_multi_thread().enable_all().build(),
    };
    let end = match runtime {
        Ok(runtime) => runtime.block_on(run(command)),
        Err(error) => Err(error.into()),
    };
    match end {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            cli::note!("loadtest: {error:#}");
            let bad_input = error.downcast_ref::<input::BadInput>().is_some();
            ExitCode::from(if bad_input { 2 } else { 1 })
        }
    }
}

async fn run(command: Command) -> anyhow::Result<bool> {
    match command {
        Command::Replay(options) => replay::run(options).await,
        Command::Restart(options) => restart::run(options).await,
        Command::Outage(options) => outage::run(options).await,
        Command::Overload(options) => overload::run(options).await,
        Command::Unanswered(options) => unanswered::run(options).await,
        Command::Soak(options) => soak::run(options).await,
        Command::Faults(options) => faults::run(options).await,
        Command::Compare(options) => compare::run(options).await,
        Command::Grow(options) => grow::run(options).await,
        Command::Flood(options) => flood::run(options).await,
        Command::Attack(options) => flood::attack(options).await,
        Command::Echo(options) => echo::run(options).await,
        Command::Shop(options) => shop::run(options).await,
        Command::Load(options) => load::run(options).await,
        Command::Gateway(config) => process::gateway(*config).await,
        Command::Worker(config) => process::worker(*config).await,
        Command::Started(options) => restart::started(options).await,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
