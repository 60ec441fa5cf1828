//! Attacks of a guest or its VMM on a running deployment, and what a deployment is held to meanwhile.
//!
//! * [`attacks`]: the attacks, in a table; each is one function that gets a [`Place`]. The program `culvert-hostile` runs one of
//!   them as a process of its own, so that it can be stopped or killed, and so that everything of it is gone afterwards.
//! * [`vfio_user`], [`vhost_user`]: clients that send what an attack wants, well formed or not.
//! * [`guest`]: a driver that is brought up as it should be, on either; its memory and rings can be spoilt at will.
//! * [`fuse`]: a file system that does not answer.
//! * [`vhost_port`]: an honest VM on a vhost-user port. [`range`]: deployment, neighbour, and the checks.

#![forbid(unsafe_code)]

pub mod attacks;
pub mod fuse;
pub mod guest;
pub mod memory;
pub mod place;
pub mod random;
pub mod range;
pub mod ring;
pub mod socket;
pub mod target;
pub mod vfio_user;
pub mod vhost_port;
pub mod vhost_user;

pub use place::Place;
pub use target::Target;
