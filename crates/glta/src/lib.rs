//! Recommendation with a frozen large language model: the GLTA method in Rust
