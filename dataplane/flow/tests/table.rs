//! The flow table against a plain map, and the hash against its definition.

use std::collections::HashMap;

use culvert_flow::hash::entropy;
use culvert_flow::table::{Bucket, TableMemory, WAYS};
use culvert_flow::{FlowCold, FlowHot, FlowKey, FlowTable, HashSecret};
use proptest::prelude::*;

const SECRET: HashSecret = HashSecret([
    0x243f_6a88_85a3_08d3,
    0x1319_8a2e_0370_7344,
    0xa409_3822_299f_31d0,
    0x082e_fa98_ec4e_6c89,
    0x4528_21e6_38d0_1377,
    0xbe54_66cf_34e9_0c6c,
    0xc0ac_29b7_c97c_50dd,
    0x3f84_d5b5_b547_0917,
    0x9216_d5d9_8979_fb1b,
]);

struct Store {
    buckets: Vec<Bucket>,
    keys: Vec<FlowKey>,
    hot: Vec<FlowHot>,
    cold: Vec<FlowCold>,
}

impl Store {
    fn new(buckets: usize) -> Self {
        let n = buckets * WAYS;
        Store {
            buckets: vec![Bucket::default(); buckets],
            keys: vec![FlowKey::default(); n],
            hot: vec![FlowHot::default(); n],
            cold: vec![FlowCold::default(); n],
        }
    }

    fn table(&mut self) -> FlowTable<'_> {
        let memory = TableMemory {
            buckets: &mut self.buckets,
            keys: &mut self.keys,
            hot: &mut self.hot,
            cold: &mut self.cold,
        };
        FlowTable::new(memory, SECRET).expect("the slices fit each other")
    }
}

fn key(n: u32) -> FlowKey {
    let mut key = FlowKey { direction: 1, source: 3, family: 4, protocol: 6, ..FlowKey::default() };
    key.src[..4].copy_from_slice(&n.to_be_bytes());
    key.dst_port = 443;
    key
}

proptest! {
    #[test]
    fn the_fast_hash_is_the_defined_one(words in any::<[u64; 8]>(), secret in any::<[u64; 9]>()) {
        let secret = HashSecret(secret);
        prop_assert_eq!(secret.hash(&words), secret.hash_by_definition(&words));
    }

    /// Inserts, finds and removals give what a map gives, as long as nothing is evicted.
    #[test]
    fn behaves_as_a_map(ops in prop::collection::vec((0u32..200, 0u8..3), 1..400)) {
        let mut store = Store::new(256);
        let mut table = store.table();
        let mut model = HashMap::new();
        for (i, (n, op)) in ops.into_iter().enumerate() {
            let (k, now) = (key(n), i as u32);
            let hash = table.hash(&k);
            let found = table.find(&k, hash);
            prop_assert_eq!(found.map(|id| table.hot(id).bytes), model.get(&n).copied());
            match (op, found) {
                (0, None) => {
                    let placed = table.place(&k, hash, now, |_, _| true).expect("there is room");
                    prop_assert_eq!(placed.evicted, None);
                    table.hot_mut(placed.id).bytes = u64::from(now);
                    model.insert(n, u64::from(now));
                }
                (1, Some(id)) => {
                    table.remove(id);
                    model.remove(&n);
                }
                _ => {}
            }
            prop_assert_eq!(table.len() as usize, model.len());
        }
    }

    /// RFC 7348 section 5: the source port lies in the dynamic range.
    #[test]
    fn entropy_is_a_dynamic_port(words in any::<[u64; 8]>()) {
        prop_assert!(entropy(&SECRET, &words) >= 49152);
    }
}

/// The published form of the hash, pinned: RTL and other engines must give the same.
#[test]
fn hash_of_a_known_key() {
    let k = key(0x0a01_010b);
    assert_eq!(SECRET.hash(&k.words()), SECRET.hash_by_definition(&k.words()));
    let one_bit = [1u64, 0, 0, 0, 0, 0, 0, 0];
    // Bit 0 of word 0: output bit t is key bit 64 + t, that is, the second secret word.
    assert_eq!(SECRET.hash(&one_bit), SECRET.0[1]);
}

#[test]
fn a_full_table_evicts_the_record_used_longest_ago() {
    let mut store = Store::new(1);
    let mut table = store.table();
    for n in 0..WAYS as u32 {
        let k = key(n);
        let hash = table.hash(&k);
        table.place(&k, hash, 100 + n, |_, _| true).expect("free");
    }
    let newest = key(99);
    let hash = table.hash(&newest);
    let placed = table.place(&newest, hash, 500, |_, _| true).expect("one gives way");
    assert_eq!(placed.evicted.map(|r| r.key), Some(key(0)), "the first was used longest ago");
    assert_eq!(table.len(), WAYS as u32);
    let hash = table.hash(&key(1));
    assert!(table.find(&key(1), hash).is_some(), "the others stay");
}

#[test]
fn what_may_not_go_does_not_go() {
    let mut store = Store::new(1);
    let mut table = store.table();
    for n in 0..WAYS as u32 {
        let k = key(n);
        let hash = table.hash(&k);
        let placed = table.place(&k, hash, n, |_, _| true).expect("free");
        table.hot_mut(placed.id).pending = 1;
    }
    let k = key(99);
    let hash = table.hash(&k);
    assert_eq!(table.place(&k, hash, 500, |_, hot| hot.pending == 0), None);
}

/// Load at which a random key finds both its buckets full: two choices of eight ways keep that rare.
#[test]
fn two_thirds_of_the_table_fill_without_eviction() {
    let mut store = Store::new(1024);
    let mut table = store.table();
    for n in 0..(1024 * WAYS as u32) * 2 / 3 {
        let k = key(n.wrapping_mul(2_654_435_761));
        let hash = table.hash(&k);
        let placed = table.place(&k, hash, n, |_, _| true).expect("room");
        assert_eq!(placed.evicted, None, "evicted at record {n}");
    }
}
