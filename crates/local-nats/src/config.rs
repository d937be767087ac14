//! The options of a server, and the nats-server configuration for them.
//! Must not depend on how the server is started.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// The options of a server. The default suits a test: a temporary data folder and free ports.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The folder for the streams and for the files of a running server. It is created if missing,
    /// and kept. Without one: a temporary folder, which is removed with the server.
    pub data_dir: Option<PathBuf>,
    /// The port for clients. Without one: a free port, which stays the same over restarts.
    pub port: Option<u16>,
    /// The port for monitoring over HTTP. Without one: a free port, which stays the same over restarts.
    pub monitor_port: Option<u16>,
    /// Lines of nats-server configuration to add, such as `cluster { … }` or `jetstream { sync_interval:
    /// always }`. Relative paths in them are relative to the owner's working folder.
    pub config: Option<String>,
    /// The file that the server's log is appended to. Without one: `nats-server.log` in the data folder.
    pub log: Option<PathBuf>,
    /// When a start is complete.
    pub ready: Ready,
    /// The time limit for a start. Without one: 10 s.
    pub start_limit: Option<Duration>,
}

/// When a start is complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ready {
    /// The server is healthy: its streams are recovered and, in a cluster, it has found the leader.
    #[default]
    Healthy,
    /// The server listens, and JetStream is enabled. For members of a cluster, because the first is healthy only after
    /// the second has started.
    Listening,
}

/// The ports of a running server on 127.0.0.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ports {
    pub(crate) client: u16,
    pub(crate) monitor: u16,
}

impl Options {
    /// The configuration of a server on these ports, which it reports in a folder. The caller's lines come last,
    /// because the last of two equal keys counts.
    pub(crate) fn text(&self, ports: Ports, report: &Path) -> String {
        let lines = [
            "# Written at each start of the server.".to_owned(),
            format!("listen: \"127.0.0.1:{}\"", ports.client),
            format!("http: \"127.0.0.1:{}\"", ports.monitor),
            format!("ports_file_dir: {}", quoted(report)),
            "jetstream: enabled".to_owned(),
            self.config.clone().unwrap_or_default(),
        ];
        lines.join("\n") + "\n"
    }
}

fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy().replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{text}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_added_lines_are_in_the_configuration_and_paths_are_quoted() {
        let config = Some("server_name: one".into());
        let options = Options { config, ..Options::default() };
        let ports = Ports { client: 4222, monitor: 8222 };
        let expected = "# Written at each start of the server.\n\
            listen: \"127.0.0.1:4222\"\nhttp: \"127.0.0.1:8222\"\n\
            ports_file_dir: \"/a \\\"b\\\"\\\\c\"\njetstream: enabled\nserver_name: one\n";
        assert_eq!(options.text(ports, Path::new(r#"/a "b"\c"#)), expected);
    }
}
