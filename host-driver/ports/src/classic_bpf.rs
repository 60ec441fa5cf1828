//! Compiles a filter's rules into classic BPF (filter.rst), for packet sockets: eBPF would need `CAP_BPF`.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::net::IpAddr;

use culvert_netlink::OverlaySource;

use crate::filter_rules::{Base, Match, SourceRule, Width};

/// Accepts the whole frame.
pub(crate) const ACCEPT: libc::sock_filter = ret(0x4_0000);
/// Accepts nothing of the frame.
pub(crate) const REJECT: libc::sock_filter = ret(0);
/// Ranges of VSIDs, and of source addresses, that a program knows at most: the kernel limits a program's size
/// (net.core.optmem_max, 20 KiB before Linux 6.7), and has the old and the new one for a moment. If there are more, those
/// with the smallest gaps between them become one.
const MAX_RANGES: usize = 64;

const fn ret(len: u32) -> libc::sock_filter {
    op(libc::BPF_RET | libc::BPF_K, len)
}

const fn op(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

/// Compiles rules into a program that accepts a frame if one of them does.
pub(crate) fn compile(rules: &[Vec<Match>]) -> Vec<libc::sock_filter> {
    let blocks = rules.iter().flat_map(|matches| block(matches, &[ACCEPT]));
    blocks.chain([REJECT]).collect()
}

/// Compiles rules into a program that accepts a frame if one of them does, its VSID is one of a source and its outer source
/// address too. That may be more than all sources, but for a packet socket that is enough: a guard decides what the kernel
/// loses, and policy what is delivered.
pub(crate) fn compile_sources(
    rules: &[SourceRule],
    sources: &BTreeSet<OverlaySource>,
) -> Vec<libc::sock_filter> {
    let is_v4 = rules.first().is_some_and(|rule| rule.address_len == 4);
    let sources = || sources.iter().filter(|source| source.address.is_ipv4() == is_v4);
    let address = |source: &OverlaySource| match source.address {
        IpAddr::V4(addr) => addr.to_bits(),
        IpAddr::V6(addr) => addr.to_bits() as u32,
    };
    let vsids = ranges(sources().map(|source| source.vsid).collect());
    let addresses = ranges(sources().map(address).collect());
    // What an accepted VSID jumps to: of IPv6 the last word of the address.
    let address_at = rules.first().map_or(0, |rule| rule.address + rule.address_len - 4);
    let mut by_address = vec![op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, address_at)];
    by_address.extend(search(&addresses, false, &[ACCEPT]));
    let mut by_vsid = search(&vsids, false, &[jump(0)]);
    let len = by_vsid.len();
    for (n, instruction) in by_vsid.iter_mut().enumerate() {
        // The placeholder; jumps within a search are at least one long.
        if (instruction.code, instruction.k) == (jump(0).code, 0) {
            *instruction = jump((len - n - 1) as u32);
        }
    }
    // All rules end in a jump to the search for the VSID, which follows them and a rejection.
    let load = |rule: &SourceRule| {
        let (base, at) = rule.vsid;
        let mut load = load(base, at, Width::Word);
        load.push(op(libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K, 8));
        load
    };
    let whole = |rule: &SourceRule| block(&rule.matches, &[load(rule), vec![jump(0)]].concat());
    let total: usize = rules.iter().map(|rule| whole(rule).len()).sum();
    let mut program = Vec::new();
    for rule in rules {
        program.extend(whole(rule));
        let left = total - program.len();
        program.pop();
        // Over the other rules and the rejection.
        program.push(jump(left as u32 + 1));
    }
    program.push(REJECT);
    program.extend(by_vsid);
    program.extend(by_address);
    program
}

const fn jump(over: u32) -> libc::sock_filter {
    op(libc::BPF_JMP | libc::BPF_JA, over)
}

/// Loads a field.
fn load(base: Base, at: u32, width: Width) -> Vec<libc::sock_filter> {
    let size = match width {
        Width::Byte => libc::BPF_B,
        Width::Half => libc::BPF_H,
        Width::Word => libc::BPF_W,
    };
    match base {
        Base::Frame => vec![op(libc::BPF_LD | size | libc::BPF_ABS, at)],
        Base::BehindIpv4 => vec![
            op(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, 14),
            op(libc::BPF_LD | size | libc::BPF_IND, 14 + at),
        ],
    }
}

/// A block that does `then` if a frame fulfils all matches. Otherwise it ends behind it.
fn block(matches: &[Match], then: &[libc::sock_filter]) -> Vec<libc::sock_filter> {
    let mut block = Vec::new();
    let mut tests = Vec::new();
    for field in matches {
        block.extend(load(field.base, field.at, field.width));
        if field.mask != field.width.mask() {
            block.push(op(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, field.mask));
        }
        tests.push(block.len());
        block.push(op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, field.value));
    }
    block.extend(then);
    let len = block.len();
    for n in tests {
        block[n].jf = (len - n - 1) as u8;
    }
    block
}

/// The ranges that numbers form, at most [`MAX_RANGES`]: first number, and the one behind the last.
fn ranges(numbers: BTreeSet<u32>) -> Vec<u64> {
    let mut bounds = Vec::new();
    for number in numbers.into_iter().map(u64::from) {
        if bounds.last() == Some(&number) {
            bounds.pop();
        } else {
            bounds.push(number);
        }
        bounds.push(number + 1);
    }
    // Gaps between ranges, the largest first.
    let gaps = bounds.get(1..bounds.len().saturating_sub(1)).unwrap_or_default().as_chunks::<2>().0;
    if gaps.len() >= MAX_RANGES {
        let mut largest = gaps.to_vec();
        largest.sort_unstable_by_key(|[end, begin]| Reverse(begin - end));
        largest.truncate(MAX_RANGES - 1);
        let ends = bounds.first().into_iter().chain(bounds.last());
        let mut kept: Vec<u64> = ends.chain(largest.as_flattened()).copied().collect();
        kept.sort_unstable();
        return kept;
    }
    bounds
}

/// A search for the accumulator among ranges, as [`ranges`] returns them: does `hit` in one of them, else rejects the frame.
/// `inside`: below the first bound is a range.
fn search(bounds: &[u64], inside: bool, hit: &[libc::sock_filter]) -> Vec<libc::sock_filter> {
    let middle = bounds.len() / 2;
    // No number is as large as the end of a range that has the largest one.
    let Some(bound) = bounds.get(middle).map(|bound| u32::try_from(*bound)) else {
        return if inside { hit.to_vec() } else { vec![REJECT] };
    };
    let below = search(&bounds[..middle], inside, hit);
    let Ok(bound) = bound else { return below };
    let above = search(&bounds[middle + 1..], inside ^ middle.is_multiple_of(2), hit);
    let mut test = op(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, bound);
    let mut all = match u8::try_from(below.len()) {
        Ok(over) => {
            test.jt = over;
            vec![test]
        }
        // The offsets of conditional jumps have eight bits.
        Err(_) => {
            test.jf = 1;
            vec![test, jump(below.len() as u32)]
        }
    };
    all.extend(below);
    all.extend(above);
    all
}

#[cfg(test)]
mod tests;
