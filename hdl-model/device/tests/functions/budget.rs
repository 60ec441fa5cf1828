//! What a VF may take of the engine's time, and what its driver reads while the host changes it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use culvert_device::virtio::{Discard, RxError, TxBudget, VfConfig};

use crate::driver::{Driver, F_MRG_RXBUF, MAC, NEXT, RX, SIZE, TX, WRITE, buffer};

const NO_HEADER: [u8; 12] = [0; 12];

fn config() -> VfConfig {
    VfConfig::new(MAC, 1500)
}

fn frame(len: usize) -> Vec<u8> {
    (0..len).map(|i| i as u8).collect()
}

/// A frame in as many descriptors as the queue has.
fn offer_crumbs(driver: &mut Driver) {
    driver.memory.write(buffer(0), &[&NO_HEADER[..], &frame(100)].concat());
    for index in 0..SIZE {
        let (at, len) = if index == SIZE - 1 { (15, 97) } else { (u64::from(index), 1) };
        let flags = if index == SIZE - 1 { 0 } else { NEXT };
        driver.describe(TX, index, buffer(0) + at, len, flags, index + 1);
    }
    driver.offer(TX, 0);
}

#[test]
fn a_chain_costs_as_many_descriptors_as_it_has_and_a_debt_is_paid_later() {
    let turn = TxBudget { frames: 32, descriptors: i64::from(SIZE) / 2, bytes: 1 << 16 };
    let (mut driver, mut budget, mut buf) = (Driver::start(config(), 0), turn, [0; 2048]);
    offer_crumbs(&mut driver);
    driver.offer(TX, 0);
    assert_eq!(driver.device.tx_pop_within(&mut buf, &mut budget).map(|got| got.len), Some(100));
    assert_eq!(driver.device.tx_pop_within(&mut buf, &mut budget), None, "another turn's");
    budget.renew(turn);
    assert_eq!(driver.device.tx_pop_within(&mut buf, &mut budget), None, "the debt is as long as a turn");
    budget.renew(turn);
    assert!(driver.device.tx_pop_within(&mut buf, &mut budget).is_some());
    budget.renew(turn);
    budget.renew(turn);
    budget.renew(turn);
    assert_eq!(budget, turn, "nothing is saved up");
}

#[test]
fn discarded_chains_cost_as_much_as_frames() {
    let turn = TxBudget { frames: 4, descriptors: 100, bytes: 1 << 16 };
    let (mut driver, mut budget) = (Driver::start(config(), 0), turn);
    (0..8).for_each(|index| driver.send(index, NO_HEADER, &frame(13)));
    assert_eq!(driver.device.tx_pop_within(&mut [0; 2048], &mut budget), None);
    assert_eq!(driver.device.counters().discards[Discard::Truncated as usize], 4);
}

#[test]
fn receive_buffers_in_crumbs_take_a_turns_share_and_no_more() {
    let mut driver = Driver::start(config(), F_MRG_RXBUF);
    // Fifteen descriptors without room, then one with.
    for index in 0..SIZE {
        let (len, flags) = if index == SIZE - 1 { (2048, WRITE) } else { (0, WRITE | NEXT) };
        driver.describe(RX, index, buffer(0), len, flags, index + 1);
    }
    let mut delivered = 0;
    for _ in 0..1000 {
        driver.offer(RX, 0);
        match driver.device.rx_push(&[&frame(60)], false) {
            Ok(_) => delivered += 1,
            Err(error) => {
                assert_eq!(error, RxError::NoBuffer);
                break;
            }
        }
    }
    assert_eq!(delivered, 4096 / u32::from(SIZE));
    driver.device.flush_interrupts();
    assert!(driver.device.rx_push(&[&frame(60)], false).is_ok(), "the next turn");
}

#[test]
fn a_configuration_read_between_equal_generations_is_whole() {
    let driver = Driver::bare(VfConfig::new([2; 6], 1500));
    let (over, mixed, changes) = (AtomicBool::new(false), AtomicBool::new(false), AtomicUsize::new(0));
    let end = Instant::now() + Duration::from_secs(3);
    let read = || {
        while !over.load(Ordering::Relaxed) {
            let from = changes.load(Ordering::SeqCst);
            let before = driver.r::<1>(0x15);
            let (first, last) = (driver.r::<4>(0x2000), driver.r::<2>(0x2004));
            let equal = driver.r::<1>(0x15) == before;
            // After 256 changes the generation is the same again.
            let few = changes.load(Ordering::SeqCst) - from < 200;
            if equal && few && first[0] != last[0] {
                mixed.store(true, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        // Readers that wait for the host's change to end look at the generation at once.
        (0..4).for_each(|_| drop(scope.spawn(read)));
        for n in 0.. {
            if mixed.load(Ordering::Relaxed) || Instant::now() > end {
                break;
            }
            changes.fetch_add(1, Ordering::SeqCst);
            driver.device.set_config(VfConfig::new([if n % 2 == 0 { 4 } else { 2 }; 6], 1500));
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(!mixed.load(Ordering::Relaxed), "half of one configuration and half of the next");
}

#[test]
fn queues_are_offered_with_as_many_entries_as_vhost_users() {
    let driver = Driver::bare(config());
    for queue in [RX, TX] {
        driver.w(0x16, &queue.to_le_bytes());
        assert_eq!(u16::from_le_bytes(driver.r(0x18)), 1024);
    }
}
