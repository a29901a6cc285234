//! Connections and their limits: number, duration, and slow clients.

mod connection;
mod cut_off;
mod limited;
mod open;

pub(crate) use connection::Connection;
pub(crate) use open::{Limits, Open};
