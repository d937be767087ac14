//! Flags and environment variables of the port and of its clients. Must not read a file.

pub mod access;
pub mod client;
pub mod tls;
