//! Identifiers as checked newtypes; parsing and in-place editing of packet headers.
#![no_std]
#![forbid(unsafe_code)]

mod id;
mod prefix;
mod reason;
#[cfg(feature = "serde")]
mod serde_impl;

pub use id::{Encap, MacAddr, OutOfRange, ParseError, Rdid, VlanId, Vni, VportId, Vsid};
pub use prefix::Prefix;
pub use reason::{Class, Reason, UnknownReason};
