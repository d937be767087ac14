//! What a caller may choose, and the nats-server configuration that says it.
//! Must never know how the server is started.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// What to choose about a server. The default suits a test: a temporary data folder and free ports.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The folder for the streams and for the files that go with a running server. It is created if need be, and
    /// kept. Without one: a temporary folder, which is removed with the server.
    pub data_dir: Option<PathBuf>,
    /// The port for clients. Without one: a free port, which stays the same over restarts.
    pub port: Option<u16>,
    /// The port for monitoring over HTTP. Without one: a free port, which stays the same over restarts.
    pub monitor_port: Option<u16>,
    /// Lines of nats-server configuration to add, such as `accounts { … }` or `cluster { … }`. Relative paths in it
    /// are relative to the owner's working folder. A `jetstream` block here would replace ours: see below.
    pub config: Option<String>,
    /// Lines to add inside the `jetstream` block, such as `sync_interval: always`.
    pub jetstream: Option<String>,
    /// Where the server's log goes, at its end. Without one: `nats-server.log` in the data folder.
    pub log: Option<PathBuf>,
    /// What to wait for at a start.
    pub ready: Ready,
    /// How long a start may take until the server is ready. Without one: 10 s.
    pub start_limit: Option<Duration>,
}

/// When a start is complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ready {
    /// The server is healthy: its streams are recovered and, in a cluster, it has found the leader.
    #[default]
    Healthy,
    /// The server listens, and JetStream is on. For members of a cluster, as the first is only healthy after the
    /// second has started.
    Listening,
}

/// The ports of a running server on 127.0.0.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ports {
    pub(crate) client: u16,
    pub(crate) monitor: u16,
}

impl Options {
    /// The configuration of a server that keeps its data in `store` and reports its ports in `ports`.
    /// The caller's lines come last, as the last of two equal keys counts.
    pub(crate) fn text(&self, store: &Path, ports: &Path) -> String {
        let lines = [
            "# Written at each start of the server.".to_owned(),
            format!("listen: \"127.0.0.1:{}\"", number(self.port)),
            format!("http: \"127.0.0.1:{}\"", number(self.monitor_port)),
            format!("ports_file_dir: {}", quoted(ports)),
            "jetstream {".to_owned(),
            format!("store_dir: {}", quoted(store)),
            self.jetstream.clone().unwrap_or_default(),
            "}".to_owned(),
            self.config.clone().unwrap_or_default(),
            String::new(),
        ];
        lines.join("\n")
    }
}

/// To nats-server -1 is any free port.
fn number(port: Option<u16>) -> String {
    port.map_or("-1".to_owned(), |port| port.to_string())
}

fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy().replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{text}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chosen_ports_and_lines_are_in_the_configuration_and_paths_are_quoted() {
        let options = Options {
            port: Some(4222),
            jetstream: Some("sync_interval: always".into()),
            config: Some("server_name: one".into()),
            ..Options::default()
        };
        let text = options.text(Path::new(r#"/a "b"\c"#), Path::new("/p"));
        assert_eq!(
            text,
            "# Written at each start of the server.\n\
             listen: \"127.0.0.1:4222\"\nhttp: \"127.0.0.1:-1\"\nports_file_dir: \"/p\"\n\
             jetstream {\nstore_dir: \"/a \\\"b\\\"\\\\c\"\nsync_interval: always\n}\nserver_name: one\n"
        );
    }
}
