//! The CPU backend: operations of a decoder as custom candle operations.

mod attention;
mod backend;
#[cfg(test)]
mod gradient_tests;
mod keys;
mod linear;
mod norm;
#[cfg(test)]
mod precision_tests;
mod rotary;
mod rows;
mod storage;
mod swiglu;

pub use backend::Host;
