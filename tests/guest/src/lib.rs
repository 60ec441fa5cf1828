//! A small guest: everything of a VM that the network sees, without the VM.
//!
//! It owns a VF the way a virtual machine does, through the VF's vfio-user socket, with a virtio-net driver
//! ([`virtio`]) under a real TCP/IP stack (smoltcp, [`NetStack`]). Tests use it as a library, several guests in one
//! process; the demo starts the binary `culvert-guest`, one process per VM, and talks JSON lines with it.
//!
//! * [`Guest::connect`] brings the VF up. [`Guest::send_frame`] and [`Guest::recv_frame`] pass raw frames, forged ones
//!   too.
//! * [`Guest::start`] hands the VF to a stack in a thread of its own. What it can be told is a [`Command`], what it
//!   answers are [`Event`]s; [`NetStack`] has a method for each.
//! * [`FrameLog`] records each frame that goes into the transmit ring or comes out of the receive ring, so that
//!   [`compare`] can say whether a flow lost or reordered any.
//!
//! A guest polls while there is work and sleeps on its interrupts when there is none.

#![forbid(unsafe_code)]

mod command;
mod error;
mod framelog;
mod guest;
mod interface;
pub mod loopback;
mod port;
mod stack;
mod stream;
pub mod virtio;

pub use command::{Command, Event, PingReport, ProbeReport, Transfer};
pub use error::{Error, Result};
pub use framelog::{FlowKey, FrameLog, LossOrder, compare};
pub use guest::{Guest, GuestConfig};
pub use interface::Interface;
pub use port::{Counters, FramePort};
pub use stack::{NetStack, Running, StackConfig};
pub use stream::{Digest, Stream};
