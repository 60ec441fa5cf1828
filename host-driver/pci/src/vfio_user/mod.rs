//! A function behind a UNIX socket that speaks the vfio-user protocol, version 0.1.
//!
//! [`Client`] is our own implementation, because everything that the other side does wrong has to become an error in
//! bounded time: refused requests, silence, a dead process, malformed or unexpected messages.

mod client;
mod connection;
mod space;
mod wire;

pub use client::Client;

#[cfg(test)]
mod tests;
