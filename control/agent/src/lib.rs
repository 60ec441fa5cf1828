//! `culvertd`, the control daemon of a host.
//!
//! A change takes this way, one at a time ([`Agent`]):
//!
//! 1. [`rest`] reads the request into documents ([`Documents`]): canonical, with etags.
//! 2. `culvert-model` checks the whole policy and derives this host's part. A policy with problems changes nothing.
//! 3. [`Store`] keeps documents, indices and generations, in one transaction.
//! 4. [`Datapath`] carries the part out: generations first, so that no flow of the old policy is served after the
//!    answer. If it cannot, the policy stays desired and is tried again; the answer and `health` say so.
//!
//! The daemon may stop and start at any time: the NIC goes on with the flows it has, and on start the store's policy is
//! carried out again with the same numbers.

#![forbid(unsafe_code)]

mod agent;
mod args;
mod daemon;
mod datapath;
mod documents;
mod error;
mod listen;
pub mod rest;
mod softpath;
mod store;

pub use agent::{Agent, Applied, Change};
pub use args::Args;
pub use daemon::run;
pub use datapath::{Datapath, DatapathError};
pub use documents::{Documents, Precondition};
pub use error::Error;
pub use listen::{bind_tcp, bind_unix, serve};
pub use softpath::SoftDatapath;
pub use store::{Store, Stored};
