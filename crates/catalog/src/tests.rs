//! Catalogs of protos that are compiled from text.

mod accepted;
mod access;
mod breaking;
mod codecs;
mod compile;
mod hostile;
mod kinds;
mod metadata;
mod refused;
