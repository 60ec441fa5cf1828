//! A TCP/IP stack on a port, in a thread of its own, and the handle to it.

mod activity;
mod config;
mod handle;
mod neighbour;
mod nic;
mod ping;
mod run;
mod running;
mod tcp;
mod udp;

pub use config::StackConfig;
pub use handle::NetStack;
pub use running::Running;

#[cfg(test)]
mod tests;
