//! The whole system against a real nats-server: one binary, a server of its own for every test.

mod buyers;
mod crew;
mod expiry;
mod ledger;
mod plain;
mod proxy;
mod rules;
mod shop;
