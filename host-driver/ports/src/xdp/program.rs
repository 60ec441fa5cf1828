//! The program on the interface: what is ours goes to the socket of its queue, and everything else on to the kernel.
//!
//! The kernel never sees what is taken here. So of control traffic, unlike with a packet socket, only what is meant for
//! the provider address alone is taken: the kernel's own neighbours keep talking to it.

use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use super::assemble::{Assembler, Instruction, Label, Register, Size, When};
use crate::filter::{Check, ETHERTYPE, Filter, ipv4, ipv6, overlay, words};

use Register::{R0, R1, R2, R3, R6, R7, R8};

/// Fields of `struct xdp_md`, with which the program is called.
const DATA: i16 = 0;
const DATA_END: i16 = 4;
const RX_QUEUE: i16 = 16;
/// What the program returns: the frame goes on to the kernel.
const XDP_PASS: i32 = 2;
/// Number of the function that hands a frame to an entry of a map.
const REDIRECT_MAP: i32 = 51;
/// Length of an Ethernet header.
const ETHERNET: u32 = 14;
/// EtherTypes of a VLAN tag (IEEE 802.1Q).
const TAGS: [u16; 2] = [0x8100, 0x88a8];
/// Length of a VLAN tag.
const TAG: i32 = 4;

/// The program for a filter; `sockets` is the map with the socket of each receive queue.
pub(super) fn assemble(filter: &Filter, sockets: BorrowedFd<'_>) -> Vec<Instruction> {
    let mut asm = Assembler::default();
    let (take, pass) = (asm.label(), asm.label());
    asm.copy(R6, R1);
    match *filter {
        Filter::Everything => asm.jump(take),
        Filter::Overlay { address, control: with_control } => {
            begin(&mut asm, pass);
            let mut alternatives = overlay(address);
            if with_control {
                alternatives.extend(control(address));
            }
            alternatives.iter().for_each(|checks| alternative(&mut asm, checks, take));
            asm.place(pass);
            asm.set(R0, XDP_PASS);
            asm.exit();
        }
    }
    asm.place(take);
    asm.load_map(R1, sockets.as_raw_fd());
    asm.load(Size::Word, R2, R6, RX_QUEUE);
    // If there is no socket for this queue, the kernel gets the frame.
    asm.set(R3, XDP_PASS);
    asm.call(REDIRECT_MAP);
    asm.exit();
    asm.finish()
}

/// R7 becomes the frame, without the first four bytes if it has a VLAN tag: then the EtherType is where it would be without.
/// R8 becomes the frame's end.
fn begin(asm: &mut Assembler, pass: Label) {
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

/// Goes to `take` if all checks hold, else on to what follows.
fn alternative(asm: &mut Assembler, checks: &[Check], take: Label) {
    let next = asm.label();
    let end = checks.iter().map(|check| match *check {
        Check::Byte(at, _) => at + 1,
        Check::Half(at, _) | Check::Clear(at, _) => at + 2,
        Check::Word(at, _) => at + 4,
        Check::BehindIpv4(..) => ETHERNET + 1,
    });
    // The kernel's verifier wants to see that what is read lies within the frame.
    asm.copy(R1, R7);
    asm.add(R1, end.max().unwrap_or(ETHERNET) as i32);
    asm.jump_if_beyond(R1, R8, next);
    for check in checks {
        match *check {
            Check::Byte(at, value) => {
                asm.load(Size::Byte, R2, R7, at as i16);
                asm.jump_if(R2, When::NotEqual, value, next);
            }
            Check::Half(at, value) => {
                asm.load(Size::Half, R2, R7, at as i16);
                asm.jump_if(R2, When::NotEqual, half(value), next);
            }
            Check::Word(at, value) => {
                asm.load(Size::Word, R2, R7, at as i16);
                asm.jump_if(R2, When::NotEqual, u32::from_ne_bytes(value.to_be_bytes()), next);
            }
            Check::Clear(at, bits) => {
                asm.load(Size::Half, R2, R7, at as i16);
                asm.jump_if(R2, When::AnySet, half(bits), next);
            }
            Check::BehindIpv4(at, value) => {
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

/// A half word of a packet as a load on this machine brings it.
fn half(value: u32) -> u32 {
    u16::from_ne_bytes((value as u16).to_be_bytes()).into()
}

/// Control traffic for the address alone.
fn control(address: IpAddr) -> Vec<Vec<Check>> {
    match address {
        IpAddr::V4(address) => {
            // Questions for the address, and answers to its questions (RFC 826: the target protocol address).
            let arp = vec![Check::Half(ETHERTYPE, 0x0806), Check::Word(38, address.into())];
            vec![arp, ipv4(address, 1).to_vec()]
        }
        IpAddr::V6(address) => {
            // The solicited-node multicast address (RFC 4291, 2.7.1), which others may have too: the target tells them
            // apart (RFC 4861, 4.3).
            let [.., a, b, c] = address.octets();
            let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
            let (to, solicitation) = (words(38, address), [Check::Byte(54, 135)]);
            let asked = [&ipv6(58)[..], &words(38, group), &solicitation, &words(62, address)].concat();
            vec![[&ipv6(58)[..], &to].concat(), asked]
        }
    }
}
