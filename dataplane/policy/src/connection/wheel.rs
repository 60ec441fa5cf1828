//! A timer wheel: who is to be looked at, and about when. Whoever lives on longer than was thought is only moved when its
//! time has come, so that a packet costs no more than a new time stamp.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

/// Milliseconds in a tick, as a power of two: so ticks wrap where milliseconds do.
const TICK: u32 = 10;
/// Ticks, 22 bits, until they wrap.
const TICKS: u32 = u32::MAX >> TICK;
/// Spokes, a power of two: somewhat more than the time-out of an established connection. What takes longer is looked at
/// once on its way.
const SPOKES: u32 = 8192;
/// The list of those whose time is over, behind the spokes.
const DUE: u32 = SPOKES;
/// In no list; the end of a list.
const NONE: u32 = u32::MAX;

/// Where one is.
#[derive(Clone, Copy, Debug)]
struct Link {
    next: u32,
    prev: u32,
    list: u32,
}

/// Numbers below 2^32 - 1, each in the list of the tick at which it is looked at.
#[derive(Clone, Debug)]
pub(super) struct Wheel {
    heads: Box<[u32]>,
    links: Vec<Link>,
    /// The tick that is looked at next.
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

    /// How many are due.
    pub(super) fn due(&self) -> usize {
        self.due
    }

    /// Whether there are some whose tick has come and who were not looked at.
    pub(super) fn is_behind(&self) -> bool {
        self.behind
    }

    /// Those that are due.
    pub(super) fn all_due(&self) -> impl Iterator<Item = u32> {
        let some = |n: u32| (n != NONE).then_some(n);
        let first = some(self.heads[DUE as usize]);
        core::iter::successors(first, move |n| some(self.links[*n as usize].next))
    }

    /// `n` is to be looked at in `left` milliseconds at the latest.
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

    /// How many ticks ahead a spoke is.
    fn ahead(&self, spoke: u32) -> u32 {
        spoke.wrapping_sub(self.tick) & (SPOKES - 1)
    }

    /// The spoke of a time, or one before it.
    fn spoke(&self, now: u32, left: u32) -> u32 {
        // Of 22 bits, with their sign: the time may be one before that which was looked at last.
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

    /// Takes `n` out.
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

    /// Looks at those whose tick has come, at most `most` of them: `left` says how many milliseconds each has. Those with
    /// none are due until they are set anew or removed.
    pub(super) fn turn(&mut self, now: u32, most: usize, mut left: impl FnMut(u32) -> u32) {
        let end = now >> TICK;
        if end.wrapping_sub(self.tick) & TICKS >= SPOKES {
            // The wheel has stood still for more than a turn: each spoke is looked at once.
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
