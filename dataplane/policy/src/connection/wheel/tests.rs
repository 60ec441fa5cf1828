//! The wheel against a list of deadlines, with time that wraps.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;

/// Numbers with what they have left from when on.
type Model = BTreeMap<u32, (u32, u32)>;

fn left(model: &Model, n: u32, now: u32) -> u32 {
    model.get(&n).map_or(0, |(since, left)| left.saturating_sub(now.wrapping_sub(*since)))
}

fn due(wheel: &mut Wheel, model: &Model, now: u32, most: usize) -> Vec<u32> {
    wheel.turn(now, most, |n| left(model, n, now));
    let mut all: Vec<u32> = wheel.all_due().collect();
    assert_eq!(all.len(), wheel.due());
    all.sort_unstable();
    all
}

#[derive(Clone, Debug)]
enum Event {
    Set(u32, u32),
    Remove(u32),
    Pass(u32),
}

fn event() -> impl Strategy<Value = Event> {
    let left = prop_oneof![0u32..5000, 0u32..10_000_000, any::<u32>().prop_map(|n| n >> 1)];
    let pass = prop_oneof![4 => 0u32..3000, 2 => 0u32..8_000_000, 1 => any::<u32>().prop_map(|n| n >> 2)];
    prop_oneof![
        4 => (0u32..20, left).prop_map(|(n, left)| Event::Set(n, left)),
        1 => (0u32..20).prop_map(Event::Remove),
        3 => pass.prop_map(Event::Pass),
    ]
}

proptest! {
    /// Whatever is set, set anew, taken out and waited for: those whose time is over are due, at once and no others.
    #[test]
    fn due_is_whose_time_is_over(start in any::<u32>(), events in proptest::collection::vec(event(), 1..200)) {
        let (mut wheel, mut model, mut now) = (Wheel::new(), Model::new(), start);
        for event in events {
            match event {
                Event::Set(n, ms) => {
                    model.insert(n, (now, ms));
                    wheel.set(n, now, ms);
                }
                Event::Remove(n) => {
                    model.remove(&n);
                    wheel.remove(n);
                }
                Event::Pass(ms) => {
                    now = now.wrapping_add(ms);
                    let found = due(&mut wheel, &model, now, usize::MAX);
                    let over: Vec<u32> = model.keys().copied().filter(|n| left(&model, *n, now) == 0).collect();
                    prop_assert_eq!(&found, &over);
                    // Due ones are set anew or removed before their time can wrap.
                    for n in found {
                        model.remove(&n);
                        wheel.remove(n);
                    }
                }
            }
        }
        prop_assert_eq!(wheel.len, model.len());
    }
}

#[test]
fn time_wraps() {
    let mut wheel = Wheel::new();
    let start = u32::MAX - 500;
    let model = Model::from([(1, (start, 1000)), (2, (start, 7_500_000)), (3, (start, 100_000_000))]);
    for (n, (since, left)) in &model {
        wheel.set(*n, *since, *left);
    }
    assert_eq!(due(&mut wheel, &model, start.wrapping_add(999), usize::MAX), []);
    assert_eq!(due(&mut wheel, &model, start.wrapping_add(1000), usize::MAX), [1]);
    wheel.remove(1);
    assert_eq!(due(&mut wheel, &model, start.wrapping_add(7_499_999), usize::MAX), []);
    assert_eq!(due(&mut wheel, &model, start.wrapping_add(7_500_000), usize::MAX), [2]);
    wheel.remove(2);
    assert_eq!(due(&mut wheel, &model, start.wrapping_add(99_999_999), usize::MAX), []);
    assert_eq!(due(&mut wheel, &model, start.wrapping_add(100_000_000), usize::MAX), [3]);
}

#[test]
fn little_is_looked_at_in_one_go_and_nothing_is_forgotten() {
    let mut wheel = Wheel::new();
    let model: Model = (0..1000).map(|n| (n, (0, 5000))).collect();
    (0..1000).for_each(|n| wheel.set(n, 0, 5000));
    let mut found = 0;
    for _ in 0..10 {
        let some = due(&mut wheel, &model, 9000, 100);
        assert!(some.len() <= 100 && (wheel.is_behind() || found + some.len() == 1000));
        found += some.len();
        some.into_iter().for_each(|n| wheel.remove(n));
    }
    wheel.turn(9000, 100, |_| 0);
    assert_eq!((found, wheel.len, wheel.is_behind()), (1000, 0, false));
}

#[test]
fn a_shorter_time_counts_and_a_longer_one_when_the_first_is_over() {
    let mut wheel = Wheel::new();
    let mut model = Model::from([(7, (0, 60_000))]);
    wheel.set(7, 0, 60_000);
    model.insert(7, (1000, 10_000));
    wheel.set(7, 1000, 10_000);
    assert_eq!(due(&mut wheel, &model, 11_000, 10), [7]);
    // It was in use after all.
    model.insert(7, (11_000, 60_000));
    wheel.set(7, 11_000, 60_000);
    assert_eq!(due(&mut wheel, &model, 70_999, 10), []);
    assert_eq!(due(&mut wheel, &model, 71_000, 10), [7]);
}
