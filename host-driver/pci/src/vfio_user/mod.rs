//! A function behind a UNIX socket: the client side of the vfio-user protocol, version 0.1.
//!
//! [`Client`] does not use the crate `vfio_user`: every fault of the device has to become an error in bounded time. That
//! includes refused requests, silence, a dead process, and malformed or unexpected messages.

mod client;
mod connection;
mod dma_windows;
mod space;
mod wire;

pub use client::Client;

#[cfg(test)]
mod tests;
