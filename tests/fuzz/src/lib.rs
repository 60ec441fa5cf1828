//! Fuzz targets: code that reads what a guest, a VMM, the wire, the device, a client or a file wrote, and what must hold
//! whatever that is.
//!
//! Each target is a function of bytes in a module of its own, with seeds that the product's own code makes. `cargo xtask
//! fuzz --minutes 10 frame` builds `fuzz_targets/` with libFuzzer and coverage, and runs one; the test `corpus` of this
//! crate runs seeds, their mutations and the inputs of `corpus/` through each target in an ordinary build.
//!
//! A target's run takes microseconds, depends on its input alone, and leaves neither memory, files nor threads behind. What
//! is costly to make is made once, and brought back to its first state by each run.

#![forbid(unsafe_code)]

pub mod board_rings;
pub mod bundle;
pub mod capture;
pub mod connections;
pub mod corpus;
pub mod firmware;
pub mod frame;
mod frames;
mod input;
pub mod outer;
pub mod pf_rings;
pub mod pipeline;
pub mod rest;
mod scratch;
mod socket;
mod target;
mod targets;
pub mod vfio_client;
pub mod vfio_server;
pub mod vhost;
pub mod virtqueue;

pub use target::Target;
pub use targets::TARGETS;
