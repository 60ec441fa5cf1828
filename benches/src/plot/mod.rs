//! Pictures of the results of `switch` and `ovs_dpdk`, from the data that they print with `--json`.

mod axis;
mod figure;
mod figures;
mod svg;

pub use self::axis::Axis;
pub use self::figure::{Figure, Line};
pub use self::figures::{of_ovs_dpdk, of_switch};
pub use self::svg::draw;

#[cfg(test)]
mod tests;
