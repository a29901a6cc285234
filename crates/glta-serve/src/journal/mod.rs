//! The journal: the writes of a service in an SQLite file.

mod forgotten;
mod group;
mod lock;
mod store;
#[cfg(test)]
mod tests;

pub use store::{Event, Journal};

pub(crate) use forgotten::Forgotten;
pub(crate) use group::{Done, Op, Refused, Writer};
pub(crate) use store::path_for;
