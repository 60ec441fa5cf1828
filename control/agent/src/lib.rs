//! `culvertd`, the control daemon of a host.
//!
//! Changes are made one at a time ([`Agent`]):
//!
//! 1. [`rest`] reads the request into documents ([`Documents`]): canonical, with etags.
//! 2. `culvert-model` checks the whole policy and derives this host's configuration. A policy with problems changes
//!    nothing.
//! 3. [`Store`] keeps documents, indices and generations, in one transaction.
//! 4. [`Datapath`] applies the configuration: generations first, so that no flow of the old policy serves a packet after
//!    the reply. If it fails, the policy stays desired and is retried; the reply and `health` say so.
//!
//! The daemon may stop and start at any time: the NIC keeps forwarding its flows, and on start the daemon applies the
//! stored policy again, with the same numbers.

#![forbid(unsafe_code)]

mod agent;
mod args;
mod daemon;
mod datapath;
mod documents;
mod error;
mod forwarding;
mod listen;
mod peer;
pub mod rest;
mod secret;
mod service_manager;
mod socket_group;
mod start_checks;
mod store;
mod store_watch;
mod tls;

pub use agent::{Agent, Applied, Change};
pub use args::Args;
pub use daemon::run;
pub use datapath::{
    Conditions, Datapath, DatapathError, HostDatapath, Measurement, UplinkCondition, VportCondition,
};
pub use documents::{Documents, Precondition};
pub use error::Error;
pub use listen::{TcpApi, bind_tcp, bind_unix, serve};
pub use service_manager::ServiceManager;
pub use socket_group::SocketGroup;
pub use store::{Store, Stored};
pub use tls::Tls;
