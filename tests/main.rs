//! The whole system against a real nats-server: one binary, and a new server for every test.

// One binary: items that its modules share are visible to nothing else.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::disallowed_macros)]

mod access;
mod backup;
mod bounds;
mod buyers;
mod cast;
mod certificates;
mod changes;
mod clients;
mod clocks;
mod cluster;
mod collectors;
mod console;
mod credentials;
mod crew;
mod customers;
mod discard;
mod drain;
mod ended;
mod events;
mod expiry;
mod failures;
mod figures;
mod files;
mod fleet;
mod flood;
mod frozen;
mod headers;
mod hedged;
mod hostile;
mod identity;
mod idle;
mod input;
mod intake;
mod issuer;
mod keys;
mod lagging;
mod leaving;
mod ledger;
mod letters;
mod linger;
mod list;
mod lost;
mod micro;
mod nodes;
mod overload;
mod pki;
mod plain;
mod plant;
mod ports;
mod proxy;
mod raw;
mod reconcile;
mod refused;
mod repeats;
mod roles;
mod rolling;
mod routes;
mod rules;
mod secured;
mod serving;
mod shares;
mod shop;
mod stale;
mod strangers;
mod tls;
mod traces;
mod unread;
mod unreadable;
mod untaken;
mod upgrade;
mod urls;
mod watch;
// The only code that writes HTTP/2 frames by hand.
#[path = "../crates/loadtest/src/flood/wire.rs"]
#[allow(dead_code)]
mod wire;
