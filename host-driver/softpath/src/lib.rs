//! The slow path: everything about packets that the NIC does not do by itself.
//!
//! One thread ([`SlowPath`]) owns the NIC's exceptions. For each packet without a flow it asks the policy, hands the NIC
//! the records of both directions and then, in the same ring, the packet itself: so a flow's packets keep their order.
//! It also resolves next hops, answers for our provider addresses, moves them when an uplink fails, writes policies into
//! the NIC, and lets idle connections end.
//!
//! * [`Engine`] is all of that without threads, clocks and devices: packets and times go in, [`Step`]s for the NIC come
//!   out, in order. Every ticket that came with a packet is in exactly one of them.
//! * [`OffloadTarget`] is what a NIC has to be able to do; [`Policy`] is what is asked of the policy.
//! * [`ConnectionFile`] keeps connections for the next daemon, where no NIC does.
//! * [`Handle`] is how other threads ask and tell.

#![deny(unsafe_code)]

mod ageing;
mod apply;
pub mod decide;
mod engine;
mod error;
mod handle;
mod kept;
pub mod kernel;
pub mod next_hop;
pub mod plan;
pub mod policy;
mod provider;
mod resolver;
pub mod software;
pub mod switch;
pub mod target;
mod trace;
pub mod underlay;
pub mod uplink;
mod worker;

pub use decide::Policy;
pub use engine::{Address, Engine, Punted, Tally};
pub use error::{Error, Result};
pub use handle::{Handle, Settings, SlowPath, Status};
pub use kept::{ConnectionFile, Restored};
pub use plan::Plan;
pub use policy::{HostPolicy, Limits, Traced};
pub use target::{OffloadTarget, Station, Step};
