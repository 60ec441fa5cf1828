//! culvertd's entry.
fn main() {}
