//! Several private nats-servers as one cluster. Must not depend on what is sent over it, or on which server leads a
//! stream.

use std::time::Duration;

use crate::config::{Options, Ready};
use crate::error::Error;
use crate::port::spare_port;
use crate::ready;
use crate::server::Server;
use crate::wait::until;

/// Three servers on an idle machine form a cluster after 1 to 3 s, and a repeated election takes 9 s more; this leaves
/// room for a busy machine.
const START: Duration = Duration::from_secs(60);

/// The ports that a cluster's nodes listen on for each other, and the ports that they dial.
#[derive(Clone, Debug)]
pub struct Routes {
    /// The port that each node listens on.
    pub listen: Vec<u16>,
    /// `dial[a][b]` is the port that node `a` dials to reach node `b`: that of `b`, or of a proxy in front of it.
    pub dial: Vec<Vec<u16>>,
}

impl Routes {
    /// Direct routes between this many nodes, on free ports.
    ///
    /// # Errors
    /// There are no free ports.
    pub fn direct(count: usize) -> Result<Routes, Error> {
        let listen = (0..count).map(|_| spare_port()).collect::<Result<Vec<_>, _>>()?;
        let dial = vec![listen.clone(); count];
        Ok(Routes { listen, dial })
    }
}

/// Several nats-servers on 127.0.0.1 as one JetStream cluster: `node0`, `node1` and so on, with `sync_interval: always`
/// and routes that close 4 to 6 s after a server froze, as in deploy/nats/cluster.conf. Clients know only the servers
/// whose URLs they were given.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Server>,
}

impl Cluster {
    /// Starts this many servers, and returns when they form a cluster with a leader that all others follow.
    ///
    /// # Errors
    /// See [`Cluster::with`].
    pub fn start(count: usize) -> Result<Cluster, Error> {
        Cluster::with(&Routes::direct(count)?, "")
    }

    /// Starts servers with these routes, and returns when they form a cluster. `config` is added to each configuration.
    ///
    /// # Errors
    /// A server does not start, or the cluster has no leader in time.
    pub fn with(routes: &Routes, config: &str) -> Result<Cluster, Error> {
        // Nothing listens there: a node that learns of another from a third must not bypass its proxy.
        let nowhere = spare_port()?;
        let start = |node: usize| {
            let config = Some(format!("{}\n{config}", text(routes, node, nowhere)));
            Server::with(Options { config, ready: Ready::Listening, ..Options::default() })
        };
        let nodes = (0..routes.listen.len()).map(start).collect::<Result<Vec<_>, _>>()?;
        let cluster = Cluster { nodes };
        if until(START, || cluster.is_healthy().then_some(())).is_none() {
            let log = cluster.nodes.iter().map(Server::log_tail).collect::<Vec<_>>().join("\n");
            return Err(Error::Late { limit: START, log });
        }
        Ok(cluster)
    }

    /// The servers. To change one, use [`Cluster::node_mut`].
    pub fn nodes(&self) -> &[Server] {
        &self.nodes
    }

    /// A server, to kill, stop or restart. A restart returns when the server listens; [`Cluster::is_healthy`] tells
    /// whether it has caught up.
    ///
    /// # Panics
    /// There is no such node.
    pub fn node_mut(&mut self, node: usize) -> &mut Server {
        &mut self.nodes[node]
    }

    /// The node with this server name: `node0` is the first.
    pub fn named(&self, name: &str) -> Option<usize> {
        (0..self.nodes.len()).find(|node| name == server_name(*node))
    }

    /// The URLs of all servers for clients, separated by commas.
    pub fn urls(&self) -> String {
        self.nodes.iter().map(Server::url).collect::<Vec<_>>().join(",")
    }

    /// Whether all servers run, their streams are recovered and up to date, and all follow one leader, which sees them
    /// all.
    pub fn is_healthy(&self) -> bool {
        self.nodes.iter().all(Server::is_healthy)
            && self.nodes.iter().any(|node| ready::leads(node.monitor_port(), self.nodes.len()))
    }
}

fn server_name(node: usize) -> String {
    format!("node{node}")
}

/// A node's configuration.
fn text(routes: &Routes, node: usize, nowhere: u16) -> String {
    let others = routes.dial[node].iter().enumerate().filter(|(other, _)| *other != node);
    let urls = others.map(|(_, port)| format!("\"nats://127.0.0.1:{port}\"")).collect::<Vec<_>>().join(", ");
    let (name, port) = (server_name(node), routes.listen[node]);
    let cluster = format!(
        "cluster {{ name: local, listen: \"127.0.0.1:{port}\", advertise: \"127.0.0.1:{nowhere}\", \
         no_advertise: true, pool_size: -1, ping_interval: \"2s\", ping_max: 2, routes: [{urls}] }}"
    );
    format!("server_name: {name}\njetstream {{ sync_interval: always }}\n{cluster}")
}
