//! Holds a nats-server until it is ended, in whatever way: `cargo run -p local-nats --example hold [DATA_FOLDER]`.
//! Prints the address, the process id and the data folder.

use std::env;
use std::io;
use std::thread;

use local_nats::{Options, Server};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let data_dir = env::args_os().nth(1).map(Into::into);
    let server = Server::with(Options { data_dir, ..Options::default() })?;
    println!("{}\n{}\n{}", server.url(), server.pid(), server.data_dir().display());
    io::Write::flush(&mut io::stdout())?;
    loop {
        thread::park();
    }
}
