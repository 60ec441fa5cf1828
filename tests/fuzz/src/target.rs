//! A fuzz target: a name, what it runs, and the inputs that it starts from.

/// One fuzz target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The name: of its module, its binary and its folder in `corpus`.
    pub name: &'static str,
    /// Runs one input. Panics if something does not hold.
    pub run: fn(&[u8]),
    /// Inputs that reach far, made by the same code that makes them in the product.
    pub seeds: fn() -> Vec<Vec<u8>>,
}
