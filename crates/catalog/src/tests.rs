//! Catalogs of protos that are compiled from text.

mod accepted;
mod breaking;
mod codecs;
mod compile;
mod hostile;
mod kinds;
mod metadata;
mod refused;
