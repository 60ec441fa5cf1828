//! Reads the module tree of a crate, tests left out.

mod names;
mod read;
mod tree;

pub(super) use self::read::read;
pub(super) use self::tree::{Crate, Segments};
