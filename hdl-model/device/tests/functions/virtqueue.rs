//! Virtqueues from the engine's side: frames both ways, interrupts and notifications, and guests that break the rules.

use culvert_device::virtio::{Checksum, Discard, NetDevice, RingFault, RxError, VfConfig};

use crate::driver::{
    CONTROL, Driver, F_CSUM, F_CTRL, F_EVENT_IDX, F_GUEST_CSUM, F_MRG_RXBUF, F_VERSION_1, MAC, NEXT, RX,
    SIZE, TX, WRITE, avail, buffer, desc, used,
};

const NO_HEADER: [u8; 12] = [0; 12];

fn config() -> VfConfig {
    VfConfig::new(MAC, 1500)
}

fn frame(len: usize) -> Vec<u8> {
    (0..len).map(|i| i as u8).collect()
}

/// How often the kind of fault with this word was counted.
fn faults(device: &NetDevice, word: &str) -> u64 {
    let index = RingFault::ALL.iter().position(|f| f.as_str() == word).expect("a known word");
    device.counters().faults[index]
}

fn assert_stopped(driver: &Driver, word: &str) {
    assert_eq!(faults(&driver.device, word), 1, "{:?}", driver.device.counters());
    assert_eq!(driver.status() & 0x40, 0x40, "DEVICE_NEEDS_RESET");
    assert!(!driver.device.is_running());
    assert_eq!(driver.device.rx_push(&[&frame(60)], false), Err(RxError::Stopped));
    assert_eq!(driver.take_interrupts(0), 1, "configuration interrupt");
}

#[test]
fn a_frame_is_taken_without_its_header_and_its_descriptor_completed() {
    let mut driver = Driver::start(config(), F_CSUM);
    driver.send(3, [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0], &frame(100));
    assert!(driver.device.has_tx());
    let mut buf = [0; 2048];
    let got = driver.device.tx_pop(&mut buf).expect("a frame");
    assert_eq!(buf[..got.len], frame(100));
    assert_eq!(got.csum, Checksum::Partial { start: 34, offset: 16 });
    assert_eq!(driver.take_used(TX), [(3, 0)]);
    assert!(driver.device.tx_pop(&mut buf).is_none());
    driver.device.flush_interrupts();
    driver.device.flush_interrupts();
    assert_eq!(driver.take_interrupts(2), 1);
    assert_eq!((driver.device.counters().tx_frames, driver.device.counters().tx_bytes), (1, 100));
}

#[test]
fn a_frame_may_be_split_anywhere_the_header_included() {
    let mut driver = Driver::start(config(), 0);
    let bytes = [&NO_HEADER[..], &frame(200)].concat();
    driver.memory.write(buffer(0), &bytes);
    for (i, (from, to)) in [(0, 5), (5, 5), (5, 30), (30, 212)].into_iter().enumerate() {
        let flags = if to == 212 { 0 } else { NEXT };
        driver.describe(TX, i as u16, buffer(0) + from, (to - from) as u32, flags, i as u16 + 1);
    }
    driver.offer(TX, 0);
    let mut buf = [0; 2048];
    assert_eq!(driver.device.tx_pop(&mut buf).map(|got| got.len), Some(200));
    assert_eq!(buf[..200], frame(200));
}

#[test]
fn bad_frames_are_discarded_and_counted_and_the_queue_goes_on() {
    let mut driver = Driver::start(config(), F_CSUM);
    driver.send(0, NO_HEADER, &frame(13));
    driver.send(1, NO_HEADER, &frame(1900));
    driver.send(2, [1, 0, 0, 0, 0, 0, 50, 0, 49, 0, 0, 0], &frame(100));
    driver.send(3, [0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &frame(100));
    driver.send(4, NO_HEADER, &frame(64));
    let mut buf = [0; 1600];
    assert_eq!(driver.device.tx_pop(&mut buf).map(|got| got.len), Some(64));
    assert_eq!(driver.take_used(TX).len(), 5);
    let discards = driver.device.counters().discards;
    assert_eq!(discards[Discard::Truncated as usize], 1);
    assert_eq!(discards[Discard::Oversize as usize], 1);
    assert_eq!(discards[Discard::BadOffload as usize], 2);
}

#[test]
fn a_received_frame_spans_mergeable_buffers() {
    let mut driver = Driver::start(config(), F_MRG_RXBUF | F_GUEST_CSUM);
    for i in 0..3 {
        driver.describe(RX, i, buffer(u64::from(i)), 64, WRITE, 0);
        driver.offer(RX, i);
    }
    let sent = frame(150);
    driver.device.rx_push(&[&sent[..70], &sent[70..]], true).expect("room");
    assert_eq!(driver.take_used(RX), [(0, 64), (1, 64), (2, 34)]);
    let first = driver.memory.read(buffer(0), 64);
    assert_eq!(first[..12], [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0], "DATA_VALID, three buffers");
    let got = [&first[12..], &driver.memory.read(buffer(1), 64), &driver.memory.read(buffer(2), 34)].concat();
    assert_eq!(got, sent);
    driver.device.flush_interrupts();
    assert_eq!(driver.take_interrupts(1), 1);
    assert_eq!(driver.device.rx_push(&[&sent], true), Err(RxError::NoBuffer));
    assert_eq!(driver.device.counters().rx_no_buffer, 1);
}

#[test]
fn without_mergeable_buffers_a_frame_needs_one_that_holds_it() {
    let mut driver = Driver::start(config(), 0);
    driver.describe(RX, 0, buffer(0), 100, WRITE, 0);
    driver.offer(RX, 0);
    assert_eq!(driver.device.rx_push(&[&frame(89)], true), Err(RxError::TooLong));
    driver.device.rx_push(&[&frame(88)], true).expect("it fits");
    assert_eq!(driver.memory.read(buffer(0), 1), [0], "DATA_VALID was not negotiated");
}

#[test]
fn event_index_limits_interrupts_and_polling_silences_kicks() {
    let mut driver = Driver::start(config(), F_EVENT_IDX);
    let used_event = avail(TX) + 4 + 2 * u64::from(SIZE);
    let avail_event = used(TX) + 4 + 8 * u64::from(SIZE);
    let mut buf = [0; 2048];
    driver.memory.write_u16(used_event, 1);
    driver.send(0, NO_HEADER, &frame(60));
    driver.device.tx_pop(&mut buf).expect("a frame");
    assert_eq!(driver.memory.read_u16(avail_event), 1, "kick at the next frame");
    driver.device.flush_interrupts();
    assert_eq!(driver.take_interrupts(2), 0, "wanted after the second frame only");
    driver.device.set_polling(true);
    driver.send(1, NO_HEADER, &frame(60));
    driver.device.tx_pop(&mut buf).expect("a frame");
    assert_eq!(driver.memory.read_u16(avail_event), 1, "left behind while polling");
    driver.device.flush_interrupts();
    assert_eq!(driver.take_interrupts(2), 1);
    driver.device.set_polling(false);
    assert_eq!(driver.memory.read_u16(avail_event), 2);
}

#[test]
fn without_event_index_the_flags_do_it() {
    let mut driver = Driver::start(config(), 0);
    let mut buf = [0; 2048];
    driver.device.set_polling(true);
    driver.send(0, NO_HEADER, &frame(60));
    driver.device.tx_pop(&mut buf).expect("a frame");
    assert_eq!(driver.memory.read_u16(used(TX)), 1, "VIRTQ_USED_F_NO_NOTIFY");
    driver.memory.write_u16(avail(TX), 1);
    driver.device.flush_interrupts();
    assert_eq!(driver.take_interrupts(2), 0, "VIRTQ_AVAIL_F_NO_INTERRUPT");
    driver.device.set_polling(false);
    assert_eq!(driver.memory.read_u16(used(TX)), 0);
}

#[test]
fn control_commands_are_answered_as_the_host_allows() {
    let mut strict = Driver::start(config(), F_CTRL);
    assert_eq!(strict.control(&[0, 0, 0]), 0, "promiscuous off");
    assert_eq!(strict.control(&[0, 0, 1]), 1, "promiscuous on");
    assert_eq!(strict.control(&[1, 1, 2, 0, 0, 0, 0, 9]), 1, "another address");
    assert_eq!(strict.control(&[1, 1, 2, 0, 0, 0, 0, 7]), 0, "its own address");
    assert_eq!(strict.control(&[2, 0, 5, 0]), 1, "a VLAN");
    assert_eq!(strict.control(&[1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0x5e, 0, 0, 1]), 0, "multicast table");
    assert_eq!(strict.control(&[1, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]), 1, "absurd table");
    assert_eq!(strict.control(&[9, 9]), 1, "unknown");
    assert_eq!(strict.device.rx_mode().multicast, [[1, 0, 0x5e, 0, 0, 1]]);

    let vlans = culvert_device::virtio::VlanPolicy::Only([5].into());
    let mut lax =
        Driver::start(VfConfig { allow_mac_change: true, allow_promisc: true, vlans, ..config() }, F_CTRL);
    assert_eq!(lax.control(&[0, 0, 1]), 0);
    assert_eq!(lax.control(&[1, 1, 2, 0, 0, 0, 0, 9]), 0);
    assert_eq!(lax.control(&[1, 1, 3, 0, 0, 0, 0, 9]), 1, "a group address");
    assert_eq!(lax.control(&[2, 0, 5, 0]), 0);
    assert_eq!(lax.control(&[2, 0, 6, 0]), 1);
    assert_eq!(lax.device.mac(), [2, 0, 0, 0, 0, 9]);
    assert!(lax.device.rx_mode().promiscuous);
    lax.w(0x14, &[0]);
    assert_eq!(lax.device.mac(), MAC, "a reset gives the host's address back");
    assert!(!lax.device.rx_mode().promiscuous);
}

#[test]
fn the_guest_sees_what_the_host_sets() {
    let driver = Driver::start(config(), 0);
    assert_eq!(driver.r::<12>(0x2000), [2, 0, 0, 0, 0, 7, 1, 0, 1, 0, 0xdc, 5]);
    let before = driver.r::<1>(0x15);
    driver.device.set_config(VfConfig { link_up: false, ..config() });
    assert_eq!(driver.r::<2>(0x2006), [0, 0]);
    assert_ne!(driver.r::<1>(0x15), before, "configuration generation");
    assert_eq!(driver.take_interrupts(0), 1);
    assert_eq!(driver.r::<1>(0x1000), [2], "ISR: configuration");
    assert_eq!(driver.r::<1>(0x1000), [0], "cleared by reading");
}

#[test]
fn a_looping_chain_stops_the_queue() {
    let mut driver = Driver::start(config(), 0);
    driver.describe(TX, 0, buffer(0), 10, NEXT, 1);
    driver.describe(TX, 1, buffer(0), 10, NEXT, 0);
    driver.offer(TX, 0);
    assert!(driver.device.tx_pop(&mut [0; 2048]).is_none());
    assert_stopped(&driver, "loop");
}

#[test]
fn indices_out_of_range_stop_the_queue() {
    let mut head = Driver::start(config(), 0);
    head.offer(TX, SIZE);
    assert!(head.device.tx_pop(&mut [0; 2048]).is_none());
    assert_stopped(&head, "descriptor_index");

    let mut next = Driver::start(config(), 0);
    next.describe(TX, 0, buffer(0), 64, NEXT, 0xfff0);
    next.offer(TX, 0);
    assert!(next.device.tx_pop(&mut [0; 2048]).is_none());
    assert_stopped(&next, "descriptor_index");

    let jump = Driver::start(config(), 0);
    jump.memory.write_u16(avail(TX) + 2, SIZE + 1);
    assert!(!jump.device.has_tx());
    assert_stopped(&jump, "available_index");
}

#[test]
fn addresses_outside_of_what_was_mapped_stop_the_queue() {
    for iova in [0, crate::memory::IOVA - 1, crate::memory::IOVA + (4 << 20) - 10, u64::MAX - 3] {
        let mut driver = Driver::start(config(), 0);
        driver.describe_iova(TX, 0, iova, 64, 0, 0);
        driver.offer(TX, 0);
        assert!(driver.device.tx_pop(&mut [0; 2048]).is_none());
        assert_stopped(&driver, "unmapped");
    }
    let mut receive = Driver::start(config(), 0);
    receive.describe_iova(RX, 0, 0x1000, 2048, WRITE, 0);
    receive.offer(RX, 0);
    assert_eq!(receive.device.rx_push(&[&frame(60)], false), Err(RxError::Stopped));
    assert_stopped(&receive, "unmapped");
}

#[test]
fn wrong_descriptors_stop_the_queue() {
    let mut indirect = Driver::start(config(), 0);
    indirect.describe(TX, 0, buffer(0), 64, 4, 0);
    indirect.offer(TX, 0);
    assert!(indirect.device.tx_pop(&mut [0; 2048]).is_none());
    assert_stopped(&indirect, "indirect");

    let mut order = Driver::start(config(), 0);
    order.describe(TX, 0, buffer(0), 64, NEXT | WRITE, 1);
    order.describe(TX, 1, buffer(1), 64, 0, 0);
    order.offer(TX, 0);
    assert!(order.device.tx_pop(&mut [0; 2048]).is_none());
    assert_stopped(&order, "order");

    let mut short = Driver::start(config(), F_MRG_RXBUF);
    short.describe(RX, 0, buffer(0), 11, WRITE, 0);
    short.offer(RX, 0);
    assert_eq!(short.device.rx_push(&[&frame(60)], false), Err(RxError::Stopped));
    assert_stopped(&short, "short_buffer");
}

#[test]
fn a_queue_set_up_wrongly_stops_the_device() {
    for (size, at) in [(0, 0), (3, 0), (2048, 0), (16, 8)] {
        let driver = Driver::bare(config());
        driver.w(0x14, &[3]);
        driver.queue(TX, size, desc(TX) + at);
        assert_eq!(driver.status() & 0x40, 0x40, "size {size}, alignment {at}");
        assert_eq!(faults(&driver.device, "setup"), 1);
    }
}

#[test]
fn descriptors_that_change_under_us_do_no_harm() {
    let mut driver = Driver::start(config(), 0);
    let mut neighbour = Driver::start(config(), 0);
    driver.send(0, NO_HEADER, &frame(1000));
    let memory = driver.memory.file.try_clone().expect("dup");
    let stop = std::sync::atomic::AtomicBool::new(false);
    let mut buf = [0; 2048];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            use std::os::unix::fs::FileExt;
            let mut n = 0u32;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                n = n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let at = desc(TX) + 8 + u64::from(n >> 29) % 8;
                memory.write_at(&n.to_le_bytes()[..1], at).expect("guest memory");
            }
        });
        for round in 0..20_000u16 {
            if !driver.device.is_running() {
                driver.bring_up(F_VERSION_1);
            }
            driver.offer(TX, 0);
            if let Some(got) = driver.device.tx_pop(&mut buf) {
                assert!(got.len <= buf.len());
            }
            neighbour.send(round % SIZE, NO_HEADER, &frame(64));
            assert_eq!(
                neighbour.device.tx_pop(&mut buf).map(|got| got.len),
                Some(64),
                "the neighbour goes on"
            );
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(neighbour.device.counters().tx_frames, 20_000);
}

#[test]
fn a_shrinking_memory_file_stops_only_its_own_device() {
    let mut driver = Driver::start(config(), 0);
    let mut neighbour = Driver::start(config(), 0);
    driver.send(0, NO_HEADER, &frame(64));
    let mut buf = [0; 2048];
    assert!(driver.device.tx_pop(&mut buf).is_some());
    driver.send(1, NO_HEADER, &frame(64));
    driver.memory.file.set_len(0x1000).expect("shrink");
    assert!(driver.device.tx_pop(&mut buf).is_none());
    assert_stopped(&driver, "shrunk");
    neighbour.send(0, NO_HEADER, &frame(64));
    assert_eq!(neighbour.device.tx_pop(&mut buf).map(|got| got.len), Some(64));

    // Only the payload is lost: rings intact, write direction.
    let mut receive = Driver::start(config(), 0);
    receive.describe(RX, 0, buffer(0), 2048, WRITE, 0);
    receive.offer(RX, 0);
    receive.memory.file.set_len(buffer(0)).expect("shrink");
    assert_eq!(receive.device.rx_push(&[&frame(1000)], false), Err(RxError::Stopped));
    assert_stopped(&receive, "shrunk");
}

#[test]
fn a_stopped_device_runs_again_after_a_reset() {
    let mut driver = Driver::start(config(), 0);
    driver.offer(TX, SIZE);
    assert!(driver.device.tx_pop(&mut [0; 2048]).is_none());
    driver.bring_up(F_VERSION_1);
    driver.send(0, NO_HEADER, &frame(64));
    assert!(driver.device.tx_pop(&mut [0; 2048]).is_some());
}

#[test]
fn without_bus_mastering_memory_is_not_touched() {
    let mut driver = Driver::start(config(), 0);
    driver.send(0, NO_HEADER, &frame(64));
    driver.device.config_write(4, &[2, 0]);
    assert!(!driver.device.has_tx());
    driver.device.config_write(4, &[6, 0]);
    assert!(driver.device.has_tx());
}

#[test]
fn features_that_were_not_offered_are_refused() {
    for features in [F_VERSION_1 | 1 << 11, F_CSUM] {
        let driver = Driver::bare(config());
        driver.w(0x14, &[3]);
        for (select, half) in [(0u32, features as u32), (1, (features >> 32) as u32)] {
            driver.w(0x08, &select.to_le_bytes());
            driver.w(0x0c, &half.to_le_bytes());
        }
        driver.w(0x14, &[0xb]);
        assert_eq!(driver.status(), 3);
    }
}

#[test]
fn a_control_queue_without_room_for_the_answer_stops() {
    let mut driver = Driver::start(config(), F_CTRL);
    driver.describe(CONTROL, 0, buffer(0), 3, 0, 0);
    driver.offer(CONTROL, 0);
    driver.kick(CONTROL);
    driver.device.service_control();
    assert_stopped(&driver, "short_buffer");
}

#[test]
fn an_unmap_waits_for_nobody_but_takes_the_memory_away() {
    let mut driver = Driver::start(config(), 0);
    driver.send(0, NO_HEADER, &frame(64));
    driver.device.memory().unmap(crate::memory::IOVA, driver.memory.len).expect("unmap");
    assert!(driver.device.tx_pop(&mut [0; 2048]).is_none());
    assert_stopped(&driver, "unmapped");
}
