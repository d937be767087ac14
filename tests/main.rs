//! The whole system against a real nats-server: one binary, a server of its own for every test.

// One binary: what is visible to its parts is visible to nobody else.
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
// There is one place where frames are written by hand.
#[path = "../bench/src/flood/wire.rs"]
#[allow(dead_code)]
mod wire;
