//! Connections: how many, how long, and what happens to clients that do not keep to it.

mod connection;
mod cut_off;
mod limited;
mod open;

pub(crate) use connection::Connection;
pub(crate) use open::{Limits, Open};
