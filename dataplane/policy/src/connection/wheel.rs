//! A timer wheel of connections' time-outs. A packet only updates its connection's time stamp; the connection moves to a
//! later spoke when its old one expires.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

/// Milliseconds in a tick, a power of two: ticks wrap where milliseconds do.
const TICK: u32 = 10;
/// Ticks, 22 bits, until they wrap.
const TICKS: u32 = u32::MAX >> TICK;
/// Spokes, a power of two: somewhat more than the time-out of an established connection. Longer time-outs are examined
/// once before they end.
const SPOKES: u32 = 8192;
/// The list of expired numbers, after the spokes.
const DUE: u32 = SPOKES;
/// In no list, or the end of a list.
const NONE: u32 = u32::MAX;

/// The links of a number.
#[derive(Clone, Copy, Debug)]
struct Link {
    next: u32,
    prev: u32,
    list: u32,
}

/// Numbers below 2^32 - 1, each in the list of the tick at which it is examined.
#[derive(Clone, Debug)]
pub(super) struct Wheel {
    heads: Box<[u32]>,
    links: Vec<Link>,
    /// The next tick to examine.
    tick: u32,
    len: usize,
    due: usize,
    /// Whether the last turn ended before its time.
    behind: bool,
}

impl Wheel {
    pub(super) fn new() -> Self {
        let heads = vec![NONE; SPOKES as usize + 1].into_boxed_slice();
        Wheel { heads, links: Vec::new(), tick: 0, len: 0, due: 0, behind: false }
    }

    /// Count of expired numbers.
    pub(super) fn due(&self) -> usize {
        self.due
    }

    /// Whether numbers of past ticks are still to be examined.
    pub(super) fn is_behind(&self) -> bool {
        self.behind
    }

    /// The expired numbers.
    pub(super) fn all_due(&self) -> impl Iterator<Item = u32> {
        let some = |n: u32| (n != NONE).then_some(n);
        let first = some(self.heads[DUE as usize]);
        core::iter::successors(first, move |n| some(self.links[*n as usize].next))
    }

    /// Examines `n` in `left` milliseconds at the latest.
    pub(super) fn set(&mut self, n: u32, now: u32, left: u32) {
        if self.len == 0 {
            self.tick = now >> TICK;
        }
        if self.links.len() <= n as usize {
            self.links.resize(n as usize + 1, Link { next: NONE, prev: NONE, list: NONE });
        }
        let spoke = self.spoke(now, left);
        match self.links[n as usize].list {
            list if list < DUE && self.ahead(list) <= self.ahead(spoke) => {}
            _ => {
                self.remove(n);
                self.push(n, spoke);
            }
        }
    }

    /// Ticks from now to a spoke.
    fn ahead(&self, spoke: u32) -> u32 {
        spoke.wrapping_sub(self.tick) & (SPOKES - 1)
    }

    /// The spoke of a time, or one before it.
    fn spoke(&self, now: u32, left: u32) -> u32 {
        // Sign-extended from 22 bits: the time may lie before the last examined tick.
        let ahead = ((now >> TICK).wrapping_sub(self.tick) << TICK).cast_signed() >> TICK;
        let over = (u64::from(now & ((1 << TICK) - 1)) + u64::from(left)) >> TICK;
        let ahead = (i64::from(ahead) + over.cast_signed()).clamp(0, i64::from(SPOKES - 1));
        self.tick.wrapping_add(ahead as u32) & (SPOKES - 1)
    }

    fn push(&mut self, n: u32, list: u32) {
        let head = self.heads[list as usize];
        self.links[n as usize] = Link { next: head, prev: NONE, list };
        if head != NONE {
            self.links[head as usize].prev = n;
        }
        self.heads[list as usize] = n;
        self.len += 1;
        self.due += usize::from(list == DUE);
    }

    /// Removes `n`.
    pub(super) fn remove(&mut self, n: u32) {
        let Some(link) = self.links.get_mut(n as usize) else { return };
        let Link { next, prev, list } = core::mem::replace(link, Link { list: NONE, ..*link });
        if list == NONE {
            return;
        }
        match self.links.get_mut(prev as usize) {
            Some(before) => before.next = next,
            None => self.heads[list as usize] = next,
        }
        if let Some(behind) = self.links.get_mut(next as usize) {
            behind.prev = prev;
        }
        self.len -= 1;
        self.due -= usize::from(list == DUE);
    }

    /// Examines numbers of past ticks, at most `most`: `left` returns the milliseconds that each has. Those without any are
    /// expired until they are set again or removed.
    pub(super) fn turn(&mut self, now: u32, most: usize, mut left: impl FnMut(u32) -> u32) {
        let end = now >> TICK;
        if end.wrapping_sub(self.tick) & TICKS >= SPOKES {
            // More than a turn has passed: examine each spoke once.
            self.tick = end.wrapping_sub(SPOKES - 1) & TICKS;
        }
        let mut most = most;
        loop {
            let spoke = self.tick & (SPOKES - 1);
            let mut n = self.heads[spoke as usize];
            while n != NONE {
                if most == 0 {
                    self.behind = true;
                    return;
                }
                most -= 1;
                let next = self.links[n as usize].next;
                let list = match left(n) {
                    0 => DUE,
                    left => self.spoke(now, left),
                };
                if list != spoke {
                    self.remove(n);
                    self.push(n, list);
                }
                n = next;
            }
            if self.tick == end {
                self.behind = false;
                return;
            }
            self.tick = self.tick.wrapping_add(1) & TICKS;
        }
    }
}

#[cfg(test)]
mod tests;
