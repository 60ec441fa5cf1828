//! Takes the overlay's frames from an interface before the kernel sees them: XDP sockets (af_xdp.rst).
//!
//! 1. [`program`] builds an eBPF program from the [`Filter`](crate::filter::Filter), with [`ebpf`] as its assembler. It finds
//!    the sources of the overlay's packets in a [`source_map`].
//! 2. [`bpf`] loads it and attaches it to the interface; [`redirect`] shares it among the ports of several workers.
//! 3. The program redirects our frames to the XDP socket of their receive queue ([`xsk`]), and passes all others to the
//!    kernel. Socket and kernel exchange frames through [`xsk_rings`].
//! 4. [`AfXdp`] is the port: it serves one or more sockets, and completes [`partial_checksum`]s.

mod bpf;
mod ebpf;
mod partial_checksum;
mod port;
mod program;
mod redirect;
mod source_map;
mod umem;
mod xsk;
mod xsk_rings;

pub use port::{AfXdp, AfXdpOptions};
pub use redirect::AfXdpParts;
pub(crate) use source_map::SourceMap;
