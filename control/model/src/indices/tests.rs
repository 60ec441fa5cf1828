//! Numbers stay, come back late, and values never go back.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{Allocator, Generations, fingerprint};

#[test]
fn a_freed_number_comes_back_last() {
    let mut numbers = Allocator::default();
    let names = ["a", "b", "c"];
    assert_eq!(names.map(|n| numbers.number(n, 4)), [Some(0), Some(1), Some(2)]);
    numbers.keep(&BTreeSet::from(["a".to_owned(), "c".to_owned()]));
    assert_eq!(numbers.number("d", 4), Some(3), "not b's 1 while there are others");
    assert_eq!(numbers.number("e", 4), Some(1));
    assert_eq!(numbers.number("f", 4), None);
    assert_eq!(numbers.number("c", 4), Some(2));
}

#[test]
fn a_changed_cell_grows_and_an_equal_one_stays() {
    let mut cells = Generations::default();
    let contents =
        |v: &[(u16, &str)]| v.iter().map(|(i, c)| (*i, fingerprint(c))).collect::<BTreeMap<_, _>>();
    cells.update(&contents(&[(1, "x"), (2, "y")]));
    assert_eq!((cells.value(1), cells.value(2), cells.value(3)), (1, 1, 0));
    cells.update(&contents(&[(1, "x"), (2, "z")]));
    assert_eq!((cells.value(1), cells.value(2)), (1, 2));
    cells.update(&contents(&[(1, "x")]));
    cells.update(&contents(&[(1, "x"), (2, "z")]));
    assert_eq!(cells.value(2), 4, "gone and back is two changes");
}

proptest! {
    #[test]
    fn numbers_are_unique_and_stable(steps in prop::collection::vec(prop::collection::btree_set(0u8..12, 0..8), 1..20)) {
        let mut numbers = Allocator::default();
        let mut before: BTreeMap<u8, u16> = BTreeMap::new();
        for used in steps {
            numbers.keep(&used.iter().map(u8::to_string).collect());
            let now: BTreeMap<u8, u16> =
                used.iter().map(|n| (*n, numbers.number(&n.to_string(), 10).expect("there is room"))).collect();
            let distinct: BTreeSet<u16> = now.values().copied().collect();
            prop_assert_eq!(distinct.len(), now.len());
            for (name, number) in &now {
                prop_assert!(before.get(name).is_none_or(|b| b == number));
            }
            before = now;
        }
    }

    #[test]
    fn values_never_go_back(steps in prop::collection::vec(prop::collection::btree_map(0u16..6, 0u64..3, 0..6), 1..20)) {
        let mut cells = Generations::default();
        let mut seen: BTreeMap<u16, (u32, Option<u64>)> = BTreeMap::new();
        for contents in steps {
            cells.update(&contents);
            for index in 0..6 {
                let (value, content) = (cells.value(index), contents.get(&index).copied());
                if let Some((before, old)) = seen.insert(index, (value, content)) {
                    prop_assert!(value >= before);
                    prop_assert!(old == content || value > before, "a change is never missed");
                }
            }
        }
    }
}
