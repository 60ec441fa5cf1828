//! System calls of packet sockets and TAPs that rustix lacks.
//!
//! All unsafe code of this crate is here and in `xdp`. What may wait for the kernel asserts that it is not called on a packet
//! thread.
#![allow(
    unsafe_code,
    reason = "requests about interfaces and packet sockets are only reached through raw system calls"
)]

mod ethtool;
mod if_name;
mod ifreq;
mod mapping;
mod packet_ring;
mod packet_socket;
mod result;
mod tun;

pub(crate) use if_name::IfName;
pub(crate) use ifreq::{IfRequest, request};
pub(crate) use mapping::Mapping;
pub(crate) use packet_ring::PacketRing;
pub(crate) use packet_socket::{MAX_MESSAGES, PacketSocket};
pub(crate) use tun::{TunSetting, set_tun};
