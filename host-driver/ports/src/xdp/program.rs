//! Builds the XDP program: it redirects frames that the filter takes to the XDP socket of their queue, and passes the rest.
//!
//! The kernel does not see redirected frames. So, unlike a packet socket's filter, the program takes control traffic only if
//! it concerns the provider address: the kernel's other addresses stay reachable.

use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use super::ebpf::{Assembler, Instruction, Label, Register, Size, When};
use super::source_map;
use crate::filter::Filter;
use crate::filter_rules::{
    Base, ETHERTYPE, Match, SourceRule, Width, byte, half, ipv4, ipv6, ipv6_address, overlay_rules,
    source_rules, word,
};

use Register::{R0, R1, R2, R3, R6, R7, R8, R10};

/// Fields of `struct xdp_md`, the program's argument.
const DATA: i16 = 0;
const DATA_END: i16 = 4;
const RX_QUEUE: i16 = 16;
/// Result of the program: passes the frame to the kernel.
const XDP_PASS: i32 = 2;
/// Number of the helper `bpf_map_lookup_elem`, which returns the address of a key's value, or null.
const MAP_LOOKUP: i32 = 1;
/// Number of the helper `bpf_redirect_map`, which redirects a frame to a map's entry.
const REDIRECT_MAP: i32 = 51;
/// Length of an Ethernet header.
const ETHERNET: u32 = 14;
/// EtherTypes of a VLAN tag (IEEE 802.1Q).
const TAGS: [u16; 2] = [0x8100, 0x88a8];
/// Length of a VLAN tag.
const TAG: i32 = 4;

/// Builds the program of a filter. `sockets`: the map with the XDP socket of each receive queue. `sources`: the map of the
/// sources of [`Filter::Kernel`].
pub(super) fn build(
    filter: &Filter,
    sockets: BorrowedFd<'_>,
    sources: Option<BorrowedFd<'_>>,
) -> Vec<Instruction> {
    let mut asm = Assembler::default();
    let (take, pass) = (asm.label(), asm.label());
    asm.copy(R6, R1);
    if !matches!(filter, Filter::Everything) {
        load_frame(&mut asm, pass);
    }
    match (filter, sources) {
        (Filter::Everything, _) => {}
        (Filter::Own(addresses), _) => {
            let rules = addresses.iter().flat_map(|addr| [overlay_rules(*addr), control_rules(*addr)]);
            for matches in rules.flatten() {
                let next = asm.label();
                fulfils(&mut asm, &matches, next);
                asm.jump(take);
                asm.place(next);
            }
        }
        (Filter::Kernel { address, .. }, Some(sources)) => {
            for rule in source_rules(*address) {
                let next = asm.label();
                fulfils(&mut asm, &rule.matches, next);
                look_up_source(&mut asm, &rule, sources, next);
                asm.jump_if_some(R0, take);
                asm.place(next);
            }
        }
        // Without a map there are no sources.
        (Filter::Kernel { .. }, None) => {}
    }
    // The kernel refuses instructions that are never reached.
    if !matches!(filter, Filter::Everything) {
        asm.place(pass);
        asm.set(R0, XDP_PASS);
        asm.exit();
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
    asm.jump_if(R2, When::Equal, half_of_packet(TAGS[0].into()), tagged);
    asm.jump_if(R2, When::NotEqual, half_of_packet(TAGS[1].into()), untagged);
    asm.place(tagged);
    asm.add(R7, TAG);
    asm.place(untagged);
}

/// Jumps to `next` unless the frame fulfils all matches of a rule.
fn fulfils(asm: &mut Assembler, matches: &[Match], next: Label) {
    let in_frame = matches.iter().filter(|field| field.base == Base::Frame);
    check_bounds(asm, R7, in_frame.map(|field| field.at + field.width as u32).max().unwrap_or(0), next);
    for field in matches {
        let (size, network_order): (_, fn(u32) -> u32) = match field.width {
            Width::Byte => (Size::Byte, |value| value),
            Width::Half => (Size::Half, half_of_packet),
            Width::Word => (Size::Word, word_of_packet),
        };
        match field.base {
            Base::Frame => asm.load(size, R2, R7, field.at as i16),
            Base::BehindIpv4 => {
                behind_ipv4(asm, field.at + field.width as u32, next);
                asm.load(size, R2, R3, (ETHERNET + field.at) as i16);
            }
        }
        if field.mask != field.width.mask() {
            asm.and(R2, network_order(field.mask).cast_signed());
        }
        asm.jump_if(R2, When::NotEqual, network_order(field.value), next);
    }
}

/// Jumps to `next` if there are no `end` bytes at `start`: the kernel's verifier requires a check before each read.
fn check_bounds(asm: &mut Assembler, start: Register, end: u32, next: Label) {
    asm.copy(R1, start);
    asm.add(R1, end as i32);
    asm.jump_if_beyond(R1, R8, next);
}

/// Sets R3 so that the bytes behind the IPv4 header are at the offset of an Ethernet header, and checks that there are `end`.
fn behind_ipv4(asm: &mut Assembler, end: u32, next: Label) {
    asm.load(Size::Byte, R2, R7, ETHERNET as i16);
    asm.and(R2, 15);
    asm.shift_left(R2, 2);
    asm.copy(R3, R7);
    asm.add_register(R3, R2);
    check_bounds(asm, R3, ETHERNET + end, next);
}

/// Looks up VSID and outer source address of a frame in a map: its result is in R0.
fn look_up_source(asm: &mut Assembler, rule: &SourceRule, map: BorrowedFd<'_>, next: Label) {
    // The key on the stack, at a multiple of eight.
    let key = -(source_map::KEY.next_multiple_of(8) as i16);
    let (base, at) = rule.vsid;
    match base {
        Base::Frame => {
            check_bounds(asm, R7, at + 4, next);
            asm.load(Size::Word, R2, R7, at as i16);
        }
        Base::BehindIpv4 => {
            behind_ipv4(asm, at + 4, next);
            asm.load(Size::Word, R2, R3, (ETHERNET + at) as i16);
        }
    }
    let is_ipv4 = rule.address_len == 4;
    asm.and(R2, word_of_packet(0xffff_ff00).cast_signed());
    asm.or(R2, word_of_packet(source_map::family(is_ipv4).into()).cast_signed());
    asm.store(R10, key, R2);
    check_bounds(asm, R7, rule.address + rule.address_len, next);
    for n in 0..4 {
        let to = key + 4 + 4 * n;
        if n == 0 || !is_ipv4 {
            asm.load(Size::Word, R2, R7, rule.address as i16 + 4 * n);
            asm.store(R10, to, R2);
        } else {
            asm.store_zero(R10, to);
        }
    }
    asm.load_map(R1, map.as_raw_fd());
    asm.copy(R2, R10);
    asm.add(R2, key.into());
    asm.call(MAP_LOOKUP);
}

/// A half word of a packet, as this machine loads it.
fn half_of_packet(value: u32) -> u32 {
    u16::from_ne_bytes((value as u16).to_be_bytes()).into()
}

/// A word of a packet, as this machine loads it.
fn word_of_packet(value: u32) -> u32 {
    u32::from_ne_bytes(value.to_be_bytes())
}

/// Rules for control traffic that concerns the address only.
fn control_rules(address: IpAddr) -> Vec<Vec<Match>> {
    match address {
        IpAddr::V4(address) => {
            // Requests for the address, and replies to it (RFC 826: the target protocol address).
            let arp = vec![half(ETHERTYPE, 0x0806), word(38, address.into())];
            vec![arp, ipv4(address, 1).to_vec()]
        }
        IpAddr::V6(address) => {
            // The solicited-node multicast address (RFC 4291, 2.7.1) may belong to several addresses: the target address
            // tells them apart (RFC 4861, 4.3).
            let [.., a, b, c] = address.octets();
            let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
            let (to, solicitation) = (ipv6_address(38, address), [byte(54, 135)]);
            let solicited =
                [&ipv6(58)[..], &ipv6_address(38, group), &solicitation, &ipv6_address(62, address)].concat();
            vec![[&ipv6(58)[..], &to].concat(), solicited]
        }
    }
}
