//! A small guest: the network side of a VM, without the VM.
//!
//! It owns a VF as a VM does, through the VF's vfio-user socket, with a virtio-net driver
//! ([`virtio`]) under a real TCP/IP stack (smoltcp, [`NetStack`]). Tests use it as a library, several guests in one
//! process; the demo starts the binary `culvert-guest`, one process per VM, and controls it by JSON lines.
//!
//! * [`Guest::connect`] brings the VF up. [`Guest::send_frame`] and [`Guest::recv_frame`] exchange raw frames, also forged
//!   ones.
//! * [`Guest::start`] starts a stack on the VF, in a thread of its own. It takes [`Command`]s and answers with [`Event`]s;
//!   [`NetStack`] has a method for each command.
//! * [`FrameLog`] records each frame that goes into the transmit ring or comes out of the receive ring, so that
//!   [`compare`] can say whether a flow lost or reordered any.
//!
//! A guest polls while there is work and sleeps on its interrupts when there is none.

#![forbid(unsafe_code)]

mod command;
mod error;
mod framelog;
mod guest;
mod hex;
mod interface;
pub mod loopback;
mod port;
mod sleep;
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
