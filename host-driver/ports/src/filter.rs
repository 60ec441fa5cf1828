//! Which frames of an interface are ours, and the filter of a packet socket for them: classic BPF (the kernel's
//! filter.rst). XDP has its own way to ask the same.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use culvert_packet::vxlan;

/// Frames that are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// All of them: the interface is ours alone.
    Everything,
    /// Those of the overlay, VXLAN and GRE, to an address. It may be the kernel's own, which keeps all other traffic.
    Overlay {
        /// The provider address.
        address: IpAddr,
        /// Also ARP, or neighbour discovery, and ICMP to the address: when the kernel does not answer for it.
        control: bool,
    },
}

/// A comparison of one field of a frame without a VLAN tag: the kernel has taken it out before it asks.
#[derive(Clone, Copy)]
pub(super) enum Check {
    Byte(u32, u32),
    Half(u32, u32),
    Word(u32, u32),
    /// Of these bits of a half word there is none.
    Clear(u32, u32),
    /// The half word so far behind the IPv4 header that begins at byte 14, whatever its length.
    BehindIpv4(u32, u32),
}

/// Where the type of the frame stands.
pub(super) const ETHERTYPE: u32 = 12;
/// All of the frame: more than any has.
const ACCEPT: u32 = 0x4_0000;

impl Filter {
    /// The program that takes no frame.
    pub(super) const NOTHING: [libc::sock_filter; 1] = [ret(0)];

    /// Its program.
    pub(super) fn program(&self) -> Vec<libc::sock_filter> {
        let Filter::Overlay { address, control } = *self else { return vec![ret(ACCEPT)] };
        let mut alternatives = overlay(address);
        if control {
            alternatives.extend(control_of(address));
        }
        assemble(&alternatives)
    }
}

/// The checks of a frame of the overlay to an address: all those of one alternative hold.
pub(super) fn overlay(address: IpAddr) -> Vec<Vec<Check>> {
    let (udp, port) = (17, u32::from(vxlan::PORT));
    match address {
        IpAddr::V4(address) => {
            let ipv4 = |protocol| ipv4(address, protocol);
            // Only a datagram's first fragment has ports.
            let ports = [Check::Clear(20, 0x1fff), Check::BehindIpv4(2, port)];
            vec![[&ipv4(udp)[..], &ports].concat(), ipv4(47).to_vec()]
        }
        IpAddr::V6(address) => {
            let to = words(38, address);
            vec![[&ipv6(udp)[..], &to, &[Check::Half(56, port)]].concat(), [&ipv6(47)[..], &to].concat()]
        }
    }
}

/// The same for control traffic, of which we get a copy.
fn control_of(address: IpAddr) -> Vec<Vec<Check>> {
    match address {
        IpAddr::V4(address) => vec![vec![Check::Half(ETHERTYPE, 0x0806)], ipv4(address, 1).to_vec()],
        // Neighbour solicitations go to a group of the address, and advertisements to all nodes.
        IpAddr::V6(_) => vec![ipv6(58).to_vec()],
    }
}

/// An IPv4 packet to an address.
pub(super) fn ipv4(address: Ipv4Addr, protocol: u32) -> [Check; 3] {
    [Check::Half(ETHERTYPE, 0x0800), Check::Word(30, address.into()), Check::Byte(23, protocol)]
}

/// An IPv6 packet.
pub(super) fn ipv6(protocol: u32) -> [Check; 2] {
    [Check::Half(ETHERTYPE, 0x86dd), Check::Byte(20, protocol)]
}

/// An IPv6 address at this place.
pub(super) fn words(at: u32, address: Ipv6Addr) -> Vec<Check> {
    let octets = address.octets();
    let words = octets.as_chunks::<4>().0.iter().map(|word| u32::from_be_bytes(*word));
    (at..).step_by(4).zip(words).map(|(at, word)| Check::Word(at, word)).collect()
}

const fn ret(len: u32) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: len }
}

/// A program that accepts a frame if all checks of one alternative hold.
fn assemble(alternatives: &[Vec<Check>]) -> Vec<libc::sock_filter> {
    let op = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let load = |size: u32, at: u32| op(libc::BPF_LD | size | libc::BPF_ABS, at);
    let mut program = Vec::new();
    for checks in alternatives {
        let mut block = Vec::new();
        for check in checks {
            let value = match *check {
                Check::Byte(at, value) => {
                    block.push(load(libc::BPF_B, at));
                    value
                }
                Check::Half(at, value) => {
                    block.push(load(libc::BPF_H, at));
                    value
                }
                Check::Word(at, value) => {
                    block.push(load(libc::BPF_W, at));
                    value
                }
                Check::Clear(at, mask) => {
                    block.push(load(libc::BPF_H, at));
                    block.push(op(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, mask));
                    0
                }
                Check::BehindIpv4(at, value) => {
                    block.push(op(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, 14));
                    block.push(op(libc::BPF_LD | libc::BPF_H | libc::BPF_IND, 14 + at));
                    value
                }
            };
            block.push(op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value));
        }
        block.push(ret(ACCEPT));
        // A check that does not hold leads behind the block.
        let len = block.len();
        for (n, instruction) in block.iter_mut().enumerate() {
            if u32::from(instruction.code) & 7 == libc::BPF_JMP {
                instruction.jf = (len - n - 1) as u8;
            }
        }
        program.extend(block);
    }
    program.push(ret(0));
    program
}
