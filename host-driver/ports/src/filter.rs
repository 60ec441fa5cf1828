//! Which frames a port takes from an interface, and the packet socket's filter for them: classic BPF (filter.rst).
//!
//! The XDP program is built from the same rules.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use culvert_packet::vxlan;

/// The frames that a port takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// All frames: no one else uses the interface.
    Everything,
    /// Frames of the overlay, VXLAN and GRE, to an address. If the address is the kernel's, it gets all other frames.
    Overlay {
        /// The provider address.
        address: IpAddr,
        /// Also takes ARP, or neighbour discovery, and ICMP to the address: for an address that is not the kernel's.
        control: bool,
    },
}

/// A comparison of one field: its offset in the frame, and its value. Offsets are those of a frame without a VLAN tag, which
/// the kernel removes before it runs a packet socket's filter.
#[derive(Clone, Copy)]
pub(crate) enum Match {
    Byte(u32, u32),
    Half(u32, u32),
    Word(u32, u32),
    /// None of these bits of a half word is set.
    Clear(u32, u32),
    /// The half word at this offset behind the IPv4 header, which begins at byte 14 and may have options.
    BehindIpv4(u32, u32),
}

/// Offset of the EtherType.
pub(crate) const ETHERTYPE: u32 = 12;
/// Result of the filter: accepts the whole frame.
const ACCEPT: u32 = 0x4_0000;

impl Filter {
    /// A program that accepts no frame.
    pub(crate) const NOTHING: [libc::sock_filter; 1] = [ret(0)];

    /// The program of classic BPF.
    pub(crate) fn program(&self) -> Vec<libc::sock_filter> {
        let Filter::Overlay { address, control } = *self else { return vec![ret(ACCEPT)] };
        let mut rules = overlay_rules(address);
        if control {
            rules.extend(control_rules(address));
        }
        compile(&rules)
    }
}

/// Rules for frames of the overlay to an address. A rule accepts a frame that fulfils all its matches.
pub(crate) fn overlay_rules(address: IpAddr) -> Vec<Vec<Match>> {
    let (udp, port) = (17, u32::from(vxlan::PORT));
    match address {
        IpAddr::V4(address) => {
            let ipv4 = |protocol| ipv4(address, protocol);
            // Only a datagram's first fragment has ports.
            let ports = [Match::Clear(20, 0x1fff), Match::BehindIpv4(2, port)];
            vec![[&ipv4(udp)[..], &ports].concat(), ipv4(47).to_vec()]
        }
        IpAddr::V6(address) => {
            let to = ipv6_address(38, address);
            vec![[&ipv6(udp)[..], &to, &[Match::Half(56, port)]].concat(), [&ipv6(47)[..], &to].concat()]
        }
    }
}

/// Rules for control traffic, of which a packet socket gets a copy.
fn control_rules(address: IpAddr) -> Vec<Vec<Match>> {
    match address {
        IpAddr::V4(address) => vec![vec![Match::Half(ETHERTYPE, 0x0806)], ipv4(address, 1).to_vec()],
        // Neighbour solicitations go to a group of the address, and advertisements to all nodes.
        IpAddr::V6(_) => vec![ipv6(58).to_vec()],
    }
}

/// Matches of an IPv4 packet to an address.
pub(crate) fn ipv4(address: Ipv4Addr, protocol: u32) -> [Match; 3] {
    [Match::Half(ETHERTYPE, 0x0800), Match::Word(30, address.into()), Match::Byte(23, protocol)]
}

/// Matches of an IPv6 packet.
pub(crate) fn ipv6(protocol: u32) -> [Match; 2] {
    [Match::Half(ETHERTYPE, 0x86dd), Match::Byte(20, protocol)]
}

/// Matches of an IPv6 address at an offset.
pub(crate) fn ipv6_address(at: u32, address: Ipv6Addr) -> Vec<Match> {
    let octets = address.octets();
    let words = octets.as_chunks::<4>().0.iter().map(|word| u32::from_be_bytes(*word));
    (at..).step_by(4).zip(words).map(|(at, word)| Match::Word(at, word)).collect()
}

const fn ret(len: u32) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: len }
}

/// Compiles rules into a program that accepts a frame if one of them does.
fn compile(rules: &[Vec<Match>]) -> Vec<libc::sock_filter> {
    let op = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let load = |size: u32, at: u32| op(libc::BPF_LD | size | libc::BPF_ABS, at);
    let mut program = Vec::new();
    for matches in rules {
        let mut block = Vec::new();
        for field in matches {
            let value = match *field {
                Match::Byte(at, value) => {
                    block.push(load(libc::BPF_B, at));
                    value
                }
                Match::Half(at, value) => {
                    block.push(load(libc::BPF_H, at));
                    value
                }
                Match::Word(at, value) => {
                    block.push(load(libc::BPF_W, at));
                    value
                }
                Match::Clear(at, mask) => {
                    block.push(load(libc::BPF_H, at));
                    block.push(op(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, mask));
                    0
                }
                Match::BehindIpv4(at, value) => {
                    block.push(op(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, 14));
                    block.push(op(libc::BPF_LD | libc::BPF_H | libc::BPF_IND, 14 + at));
                    value
                }
            };
            block.push(op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value));
        }
        block.push(ret(ACCEPT));
        // A failed match jumps behind the block, to the next rule.
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
