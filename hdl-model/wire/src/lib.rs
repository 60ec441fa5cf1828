//! MAC ports: the media that carry Ethernet frames between boards and the rest of the world.
//!
//! The frame check sequence (IEEE 802.3, 3.2.9) is generated and checked where the medium carries it, which is the UNIX
//! datagram pair; kernel interfaces and capture files have frames without it.

mod af_packet;
mod capture;
mod datagram;
mod link_monitor;
mod medium;
mod pcap;
mod spec;
mod tap;
#[cfg(test)]
mod tests;

pub use self::af_packet::AfPacket;
pub use self::capture::Capture;
pub use self::datagram::Datagram;
pub use self::medium::{Received, Wire};
pub use self::pcap::{PACE, Pcap};
pub use self::spec::{UnknownWire, WireSpec};
pub use self::tap::Tap;
