//! Builds the XDP program: it redirects frames that the filter takes to the XDP socket of their queue, and passes the rest.
//!
//! The kernel does not see redirected frames. So, unlike a packet socket's filter, the program takes control traffic only if
//! it concerns the provider address: the kernel's other addresses stay reachable.

use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use super::ebpf::{Assembler, Instruction, Label, Register, Size, When};
use crate::filter::{ETHERTYPE, Filter, Match, ipv4, ipv6, ipv6_address, overlay_rules};

use Register::{R0, R1, R2, R3, R6, R7, R8};

/// Fields of `struct xdp_md`, the program's argument.
const DATA: i16 = 0;
const DATA_END: i16 = 4;
const RX_QUEUE: i16 = 16;
/// Result of the program: passes the frame to the kernel.
const XDP_PASS: i32 = 2;
/// Number of the helper `bpf_redirect_map`, which redirects a frame to a map's entry.
const REDIRECT_MAP: i32 = 51;
/// Length of an Ethernet header.
const ETHERNET: u32 = 14;
/// EtherTypes of a VLAN tag (IEEE 802.1Q).
const TAGS: [u16; 2] = [0x8100, 0x88a8];
/// Length of a VLAN tag.
const TAG: i32 = 4;

/// Builds the program of a filter. `sockets`: the map with the XDP socket of each receive queue.
pub(super) fn build(filter: &Filter, sockets: BorrowedFd<'_>) -> Vec<Instruction> {
    let mut asm = Assembler::default();
    let (take, pass) = (asm.label(), asm.label());
    asm.copy(R6, R1);
    match *filter {
        Filter::Everything => asm.jump(take),
        Filter::Overlay { address, control } => {
            load_frame(&mut asm, pass);
            let mut rules = overlay_rules(address);
            if control {
                rules.extend(control_rules(address));
            }
            rules.iter().for_each(|matches| rule(&mut asm, matches, take));
            asm.place(pass);
            asm.set(R0, XDP_PASS);
            asm.exit();
        }
    }
    asm.place(take);
    asm.load_map(R1, sockets.as_raw_fd());
    asm.load(Size::Word, R2, R6, RX_QUEUE);
    // Result if there is no socket for this queue.
    asm.set(R3, XDP_PASS);
    asm.call(REDIRECT_MAP);
    asm.exit();
    asm.finish()
}

/// Sets R7 to the frame's start and R8 to its end. Behind a VLAN tag R7 is four bytes further, so that all offsets behind the
/// MACs are those of an untagged frame.
fn load_frame(asm: &mut Assembler, pass: Label) {
    let (tagged, untagged) = (asm.label(), asm.label());
    asm.load(Size::Word, R7, R6, DATA);
    asm.load(Size::Word, R8, R6, DATA_END);
    asm.copy(R1, R7);
    asm.add(R1, ETHERNET as i32);
    asm.jump_if_beyond(R1, R8, pass);
    asm.load(Size::Half, R2, R7, 12);
    asm.jump_if(R2, When::Equal, half(TAGS[0].into()), tagged);
    asm.jump_if(R2, When::NotEqual, half(TAGS[1].into()), untagged);
    asm.place(tagged);
    asm.add(R7, TAG);
    asm.place(untagged);
}

/// Jumps to `take` if the frame fulfils all matches of a rule.
fn rule(asm: &mut Assembler, matches: &[Match], take: Label) {
    let next = asm.label();
    let end = matches.iter().map(|field| match *field {
        Match::Byte(at, _) => at + 1,
        Match::Half(at, _) | Match::Clear(at, _) => at + 2,
        Match::Word(at, _) => at + 4,
        Match::BehindIpv4(..) => ETHERNET + 1,
    });
    // The kernel's verifier requires a bounds check before each read.
    asm.copy(R1, R7);
    asm.add(R1, end.max().unwrap_or(ETHERNET) as i32);
    asm.jump_if_beyond(R1, R8, next);
    for field in matches {
        match *field {
            Match::Byte(at, value) => {
                asm.load(Size::Byte, R2, R7, at as i16);
                asm.jump_if(R2, When::NotEqual, value, next);
            }
            Match::Half(at, value) => {
                asm.load(Size::Half, R2, R7, at as i16);
                asm.jump_if(R2, When::NotEqual, half(value), next);
            }
            Match::Word(at, value) => {
                asm.load(Size::Word, R2, R7, at as i16);
                asm.jump_if(R2, When::NotEqual, u32::from_ne_bytes(value.to_be_bytes()), next);
            }
            Match::Clear(at, bits) => {
                asm.load(Size::Half, R2, R7, at as i16);
                asm.jump_if(R2, When::AnySet, half(bits), next);
            }
            Match::BehindIpv4(at, value) => {
                let at = (ETHERNET + at) as i16;
                asm.load(Size::Byte, R2, R7, ETHERNET as i16);
                asm.and(R2, 15);
                asm.shift_left(R2, 2);
                asm.copy(R3, R7);
                asm.add_register(R3, R2);
                asm.copy(R1, R3);
                asm.add(R1, i32::from(at) + 2);
                asm.jump_if_beyond(R1, R8, next);
                asm.load(Size::Half, R2, R3, at);
                asm.jump_if(R2, When::NotEqual, half(value), next);
            }
        }
    }
    asm.jump(take);
    asm.place(next);
}

/// A half word of a packet, as this machine loads it.
fn half(value: u32) -> u32 {
    u16::from_ne_bytes((value as u16).to_be_bytes()).into()
}

/// Rules for control traffic that concerns the address only.
fn control_rules(address: IpAddr) -> Vec<Vec<Match>> {
    match address {
        IpAddr::V4(address) => {
            // Requests for the address, and replies to it (RFC 826: the target protocol address).
            let arp = vec![Match::Half(ETHERTYPE, 0x0806), Match::Word(38, address.into())];
            vec![arp, ipv4(address, 1).to_vec()]
        }
        IpAddr::V6(address) => {
            // The solicited-node multicast address (RFC 4291, 2.7.1) may belong to several addresses: the target address
            // tells them apart (RFC 4861, 4.3).
            let [.., a, b, c] = address.octets();
            let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
            let (to, solicitation) = (ipv6_address(38, address), [Match::Byte(54, 135)]);
            let solicited =
                [&ipv6(58)[..], &ipv6_address(38, group), &solicitation, &ipv6_address(62, address)].concat();
            vec![[&ipv6(58)[..], &to].concat(), solicited]
        }
    }
}
