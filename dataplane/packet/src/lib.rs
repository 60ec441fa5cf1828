//! Identifiers as checked newtypes; parsing and in-place editing of packet headers.
//!
//! Nothing here allocates, panics on hostile input or knows the time. Three groups:
//!
//! * **Identifiers**, checked when they are made: [`MacAddr`], [`Vni`], [`Vsid`], [`Rdid`], [`VlanId`], [`VportId`],
//!   [`Prefix`], [`Encap`], and [`Reason`], the one word for why a packet was not simply forwarded.
//! * **The packet path**: [`parse()`] and [`parse_outer`] say what a frame is in one pass, [`edit`] changes it in place with
//!   incremental checksums, [`encap`] makes and fills in outer headers, [`Offload`] is what hardware knows of a packet.
//! * **One module for each protocol**, for code that makes or answers packets. Each has a `Header` (or `Packet`) with
//!   `parse(&[u8]) -> Result<(Header, payload), Reason>`, which checks all lengths, and `emit(&self, .., &mut [u8])`, which
//!   returns the bytes written. [`craft`] puts whole frames together.
//!
//! [`prefetch()`] is beside them: all that handles packets in bursts is built on this crate.
//!
//! A frame, and what the parser finds in it:
//!
//! ```
//! use culvert_packet::{Family, MacAddr, craft, edit, parse};
//!
//! let ends = craft::Ends {
//!     src_mac: MacAddr([2, 0, 0, 0, 0, 1]),
//!     dst_mac: MacAddr([2, 0, 0, 0, 0, 2]),
//!     src: [10, 0, 0, 1].into(),
//!     dst: [10, 0, 0, 2].into(),
//! };
//! let mut frame = [0; 128];
//! let len = craft::udp(&mut frame, &ends, 40_000, 53, b"a query")?;
//! let headers = parse(&frame[..len])?;
//! assert_eq!((headers.family, headers.l4_src, headers.l4_dst), (Family::V4, 40_000, 53));
//!
//! // Edits keep checksums valid.
//! edit::set_dst_port(&mut frame[..len], &headers, 5353);
//! assert_eq!(parse(&frame[..len])?.l4_dst, 5353);
//! # Ok::<(), culvert_packet::Reason>(())
//! ```
//!
//! The feature `serde` makes identifiers and reasons serialisable: texts as strings, numbers as numbers.

#![no_std]
#![deny(unsafe_code)]

pub mod arp;
mod bytes;
pub mod checksum;
pub mod craft;
pub mod edit;
pub mod encap;
pub mod ethernet;
mod headers;
pub mod icmp;
mod id;
pub mod ip;
pub mod ipv4;
pub mod ipv6;
pub mod nvgre;
mod offload;
mod outer;
mod parse;
mod parse_full;
mod prefetch;
mod prefix;
mod reason;
pub mod segment;
#[cfg(feature = "serde")]
mod serde_impl;
pub mod tcp;
pub mod udp;
pub mod vlan;
pub mod vxlan;

pub use encap::{MAX_OUTER, OuterSpec, Template};
pub use ethernet::EtherType;
pub use headers::{Family, Fragment, Headers};
pub use id::{Encap, MacAddr, OutOfRange, ParseError, Rdid, VlanId, Vni, VportId, Vsid};
pub use ip::Protocol;
pub use offload::{ChecksumState, Gso, Offload};
pub use outer::{Outer, parse_outer, parse_outer_common, peek_inner, verify_udp};
pub use parse::parse;
pub use prefetch::{prefetch, prefetch_to_write};
pub use prefix::Prefix;
pub use reason::{Class, Reason};
