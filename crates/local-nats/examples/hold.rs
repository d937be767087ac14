//! Runs a nats-server until this process ends, in whatever way: `cargo run -p local-nats --example hold
//! [DATA_FOLDER]`. Prints the address and the process id of the server.

use std::env;
use std::process::ExitCode;
use std::thread;

use local_nats::{Options, Server};

fn main() -> ExitCode {
    let data_dir = env::args_os().nth(1).map(Into::into);
    match Server::with(Options { data_dir, ..Options::default() }) {
        Ok(server) => hold(&server),
        Err(error) => {
            cli::note!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn hold(server: &Server) -> ExitCode {
    cli::say!("{}\n{}", server.url(), server.pid());
    loop {
        thread::park();
    }
}
