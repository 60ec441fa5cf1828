//! The unified flow table (UFT): an exact-match cache in memory that the caller provides.
//!
//! Buckets of eight ways, two buckets a key (the second follows from the first and the tag, either way round). A
//! lookup reads one or two 16-byte buckets and one key. When both buckets are full, the least recently used record is
//! evicted: a record is a cache of a connection, and comes back with its next packet.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::hash::HashSecret;
use crate::record::{FlowCold, FlowHot, FlowKey, FlowRecord};
use culvert_packet::prefetch;

/// Records in a bucket.
pub const WAYS: usize = 8;

/// Free ways of a key's first bucket that are kept for other keys.
const SPARE: usize = 2;

/// Tags of the eight records of a bucket; 0 marks a free way.
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(16))]
pub struct Bucket(pub [u16; WAYS]);

/// Number of a record in its table: bucket times eight plus way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordId(pub u32);

/// Memory of a table. All slices but `buckets` are eight times as long as it; its length is a power of two.
pub struct TableMemory<'m> {
    /// The buckets.
    pub buckets: &'m mut [Bucket],
    /// The keys.
    pub keys: &'m mut [FlowKey],
    /// The hot parts.
    pub hot: &'m mut [FlowHot],
    /// The cold parts.
    pub cold: &'m mut [FlowCold],
}

/// Why a table cannot be laid into some memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemoryError {
    /// The number of buckets is not a power of two.
    NotPowerOfTwo,
    /// The arrays do not have eight records a bucket.
    Mismatch,
}

/// A place for a record, and the record that was evicted from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placed {
    /// The place.
    pub id: RecordId,
    /// The record that was evicted from it.
    pub evicted: Option<FlowRecord>,
}

/// The flow table.
pub struct FlowTable<'m> {
    memory: TableMemory<'m>,
    secret: HashSecret,
    mask: u32,
    len: u32,
}

/// A tag in each lane of a word.
#[inline(always)]
fn pattern(tag: u16) -> u64 {
    u64::from(tag) * 0x0001_0001_0001_0001
}

/// Lanes of `word` that equal the tag repeated in `pattern`: bit 15 of each such 16-bit lane. The lowest one found is
/// exact; a lane above a match may be reported wrongly, which the key comparison detects.
#[inline(always)]
fn equal_lanes(word: u64, pattern: u64) -> u64 {
    const LOW: u64 = 0x0001_0001_0001_0001;
    let x = word ^ pattern;
    x.wrapping_sub(LOW) & !x & (LOW << 15)
}

/// Whether two keys are equal, without a branch for each word.
#[inline(always)]
fn equal(a: &[u64; 8], b: &[u64; 8]) -> bool {
    a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

impl<'m> FlowTable<'m> {
    /// Lays an empty table into `memory`.
    ///
    /// # Errors
    /// When the slices do not fit each other.
    pub fn new(memory: TableMemory<'m>, secret: HashSecret) -> Result<Self, MemoryError> {
        let mut table = Self::adopt(memory, secret)?;
        table.clear();
        Ok(table)
    }

    /// Takes over a table that is in `memory` already (a planned upgrade).
    ///
    /// # Errors
    /// When the slices do not fit each other.
    pub fn adopt(memory: TableMemory<'m>, secret: HashSecret) -> Result<Self, MemoryError> {
        let buckets = memory.buckets.len();
        if !buckets.is_power_of_two() || buckets > 1 << 28 {
            return Err(MemoryError::NotPowerOfTwo);
        }
        let n = buckets * WAYS;
        if memory.keys.len() != n || memory.hot.len() != n || memory.cold.len() != n {
            return Err(MemoryError::Mismatch);
        }
        let len = memory.buckets.iter().flat_map(|b| b.0).filter(|&t| t != 0).count() as u32;
        Ok(FlowTable { memory, secret, mask: buckets as u32 - 1, len })
    }

    /// Sets the hash secret and removes all records.
    pub fn set_secret(&mut self, secret: HashSecret) {
        self.secret = secret;
        self.clear();
    }

    /// Removes all records.
    pub fn clear(&mut self) {
        self.memory.buckets.fill(Bucket::default());
        self.memory.keys.fill(FlowKey::default());
        self.memory.hot.fill(FlowHot::default());
        for cold in self.memory.cold.iter_mut() {
            *cold = FlowCold { incarnation: cold.incarnation.wrapping_add(1), ..FlowCold::default() };
        }
        self.len = 0;
    }

    /// How many records are in use.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether no record is in use.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many records there is room for.
    pub fn capacity(&self) -> u32 {
        (self.mask + 1) * WAYS as u32
    }

    /// Hash of a key.
    #[inline(always)]
    pub fn hash(&self, key: &FlowKey) -> u64 {
        self.secret.hash(&key.words())
    }

    /// Hash of a key of IPv4, given as its words.
    #[inline(always)]
    pub(crate) fn hash_ipv4(&self, words: &[u64; 8]) -> u64 {
        self.secret.hash_ipv4(words)
    }

    /// Prefetches a key's first bucket.
    #[inline(always)]
    pub(crate) fn prefetch_bucket(&self, hash: u64) {
        if let Some(bucket) = self.memory.buckets.get((hash as u32 & self.mask) as usize) {
            prefetch(bucket);
        }
    }

    /// Prefetches the key and the hot part that a key's first bucket points to.
    #[inline(always)]
    pub(crate) fn prefetch_record(&self, hash: u64) {
        let bucket = hash as u32 & self.mask;
        let Some(tags) = self.memory.buckets.get(bucket as usize) else { return };
        let [a, b]: [u64; 2] = zerocopy::transmute!(tags.0);
        let pattern = pattern(Self::tag(hash));
        let (lanes, base) = match equal_lanes(a, pattern) {
            0 => (equal_lanes(b, pattern), bucket * WAYS as u32 + 4),
            lanes => (lanes, bucket * WAYS as u32),
        };
        // Without a matching tag this prefetches the record behind the bucket, which costs nothing.
        let id = (base + (lanes.trailing_zeros() >> 4)) as usize;
        if let (Some(key), Some(hot)) = (self.memory.keys.get(id), self.memory.hot.get(id)) {
            prefetch(key);
            prefetch(hot);
        }
    }

    /// Prefetches a key's record, or the place for it, in the key's first bucket.
    pub(crate) fn prefetch_place(&self, hash: u64) {
        let bucket = hash as u32 & self.mask;
        let Some(tags) = self.memory.buckets.get(bucket as usize) else { return };
        let tag = Self::tag(hash);
        let way = tags.0.iter().position(|&t| t == tag).or_else(|| tags.0.iter().position(|&t| t == 0));
        let id = bucket as usize * WAYS + way.unwrap_or(0);
        let lines = (self.memory.keys.get(id), self.memory.hot.get(id), self.memory.cold.get(id));
        if let (Some(key), Some(hot), Some(cold)) = lines {
            prefetch(key);
            prefetch(hot);
            prefetch(cold);
        }
    }

    #[inline(always)]
    fn tag(hash: u64) -> u16 {
        ((hash >> 48) as u16).max(1)
    }

    #[inline(always)]
    fn other_bucket(&self, bucket: u32, tag: u16) -> u32 {
        (bucket ^ (u32::from(tag).wrapping_mul(0x5bd1_e995) >> 3 | 1)) & self.mask
    }

    #[inline(always)]
    fn find_in(&self, bucket: u32, tag: u16, words: &[u64; 8]) -> Option<RecordId> {
        let tags = &self.memory.buckets[bucket as usize & (self.memory.buckets.len() - 1)].0;
        let pattern = pattern(tag);
        let [a, b]: [u64; 2] = zerocopy::transmute!(*tags);
        let mut base = bucket * WAYS as u32;
        for half in [a, b] {
            let mut lanes = equal_lanes(half, pattern);
            while lanes != 0 {
                let id = base + (lanes.trailing_zeros() >> 4);
                if self.memory.keys.get(id as usize).is_some_and(|k| equal(&k.words(), words)) {
                    return Some(RecordId(id));
                }
                lanes &= lanes - 1;
            }
            base += 4;
        }
        None
    }

    /// The record of a key.
    #[inline(always)]
    pub fn find(&self, key: &FlowKey, hash: u64) -> Option<RecordId> {
        self.find_words(&key.words(), hash)
    }

    /// The record of a key of IPv4, given as its words. Most are in their first bucket, at the first way whose tag fits.
    #[inline(always)]
    pub(crate) fn find_ipv4(&self, words: &[u64; 8], hash: u64) -> Option<RecordId> {
        let bucket = hash as u32 & self.mask;
        let [a, b]: [u64; 2] = zerocopy::transmute!(self.memory.buckets.get(bucket as usize)?.0);
        let pattern = pattern(Self::tag(hash));
        let (lanes, base) = match equal_lanes(a, pattern) {
            0 => (equal_lanes(b, pattern), bucket * WAYS as u32 + 4),
            lanes => (lanes, bucket * WAYS as u32),
        };
        let id = base + (lanes.trailing_zeros() >> 4);
        match self.memory.keys.get(id as usize) {
            Some(key) if lanes != 0 && equal(&key.words(), words) => Some(RecordId(id)),
            _ => self.find_elsewhere(*words, hash),
        }
    }

    #[inline(never)]
    fn find_elsewhere(&self, words: [u64; 8], hash: u64) -> Option<RecordId> {
        self.find_words(&words, hash)
    }

    #[inline(always)]
    fn find_words(&self, words: &[u64; 8], hash: u64) -> Option<RecordId> {
        let tag = Self::tag(hash);
        let bucket = hash as u32 & self.mask;
        match self.find_in(bucket, tag, words) {
            None => self.find_in(self.other_bucket(bucket, tag), tag, words),
            found => found,
        }
    }

    /// Makes an empty record for a key that is not in the table, evicting the least recently used one for which `may_go`
    /// is true. `None`: no record of the two buckets may be evicted.
    pub fn place(
        &mut self,
        key: &FlowKey,
        hash: u64,
        now: u32,
        may_go: impl Fn(&FlowKey, &FlowHot) -> bool,
    ) -> Option<Placed> {
        let tag = Self::tag(hash);
        let first = hash as u32 & self.mask;
        let second = self.other_bucket(first, tag);
        let free = |b: u32| self.memory.buckets[b as usize].0.iter().filter(|&&t| t == 0).count();
        // In the first bucket, where a look-up begins, unless that is nearly full.
        let bucket = if free(first) > SPARE || free(first) >= free(second) { first } else { second };
        let (id, evicted) = match self.memory.buckets[bucket as usize].0.iter().position(|&t| t == 0) {
            Some(way) => (RecordId(bucket * WAYS as u32 + way as u32), None),
            None => {
                let oldest = [first, second]
                    .into_iter()
                    .flat_map(|b| b * WAYS as u32..(b + 1) * WAYS as u32)
                    .filter(|&i| may_go(&self.memory.keys[i as usize], &self.memory.hot[i as usize]))
                    .max_by_key(|&i| now.wrapping_sub(self.memory.hot[i as usize].last_used))?;
                let gone = self.record(RecordId(oldest));
                self.remove(RecordId(oldest));
                (RecordId(oldest), gone)
            }
        };
        let i = id.0 as usize;
        self.memory.buckets[i / WAYS].0[i % WAYS] = tag;
        self.memory.keys[i] = *key;
        self.memory.hot[i] = FlowHot { last_used: now, ..FlowHot::default() };
        let incarnation = self.memory.cold[i].incarnation;
        self.memory.cold[i] = FlowCold { incarnation, created: now, ..FlowCold::default() };
        self.len += 1;
        Some(Placed { id, evicted })
    }

    /// Frees a record. Nothing happens if it is free already.
    pub fn remove(&mut self, id: RecordId) {
        let i = id.0 as usize;
        let Some(tag) = self.memory.buckets.get_mut(i / WAYS).map(|b| &mut b.0[i % WAYS]) else { return };
        if *tag == 0 {
            return;
        }
        *tag = 0;
        self.len -= 1;
        self.memory.keys[i] = FlowKey::default();
        self.memory.hot[i] = FlowHot::default();
        let incarnation = self.memory.cold[i].incarnation.wrapping_add(1);
        self.memory.cold[i] = FlowCold { incarnation, ..FlowCold::default() };
    }

    /// Whether a record is in use.
    pub fn is_used(&self, id: RecordId) -> bool {
        self.memory.buckets.get(id.0 as usize / WAYS).is_some_and(|b| b.0[id.0 as usize % WAYS] != 0)
    }

    /// Key of a record in use.
    #[inline(always)]
    pub fn key(&self, id: RecordId) -> &FlowKey {
        &self.memory.keys[id.0 as usize]
    }

    /// Hot part of a record in use.
    #[inline(always)]
    pub fn hot(&self, id: RecordId) -> &FlowHot {
        &self.memory.hot[id.0 as usize]
    }

    /// Hot part of a record in use.
    #[inline(always)]
    pub fn hot_mut(&mut self, id: RecordId) -> &mut FlowHot {
        &mut self.memory.hot[id.0 as usize]
    }

    /// Both parts of a record in use: the hot one to be written.
    #[inline(always)]
    pub(crate) fn parts_mut(&mut self, id: RecordId) -> (&mut FlowHot, &FlowCold) {
        (&mut self.memory.hot[id.0 as usize], &self.memory.cold[id.0 as usize])
    }

    /// Cold part of a record in use.
    #[inline(always)]
    pub fn cold(&self, id: RecordId) -> &FlowCold {
        &self.memory.cold[id.0 as usize]
    }

    /// Cold part of a record in use.
    pub fn cold_mut(&mut self, id: RecordId) -> &mut FlowCold {
        &mut self.memory.cold[id.0 as usize]
    }

    /// A whole record, if it is in use.
    pub fn record(&self, id: RecordId) -> Option<FlowRecord> {
        self.is_used(id).then(|| FlowRecord { key: *self.key(id), hot: *self.hot(id), cold: *self.cold(id) })
    }

    /// Records in use from number `from` on, in the order of the table.
    pub fn used_from(&self, from: u32) -> impl Iterator<Item = RecordId> + '_ {
        (from..self.capacity()).map(RecordId).filter(|&id| self.is_used(id))
    }
}
