//! The program `glta`.

fn main() {}
