//! Solvers for the weights of a linear model.

pub(crate) mod coarse;
pub(crate) mod counts;
pub(crate) mod dense;
pub(crate) mod gram;
pub(crate) mod local;
pub(crate) mod small;
