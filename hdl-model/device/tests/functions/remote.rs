//! Memory without a file descriptor: the device asks the client, in the layout that the client speaks, on a thread that
//! waits for nobody else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use culvert_device::dma::{ByMessage, Fault};
use culvert_device::virtio::{Delivery, RxError};
use culvert_virtio::GuestMemory;

use crate::client::{DMA_MAP, DMA_UNMAP, dma_map, dma_unmap};
use crate::driver::{F_VERSION_1, RX, TX, WRITE, buffer};
use crate::memory::IOVA;
use crate::unshared::{Unshared, frame, wait_until};

/// Longer than the second that the board once waited for an answer.
const STOPPED: Duration = Duration::from_millis(2500);

#[test]
fn both_layouts_of_dma_messages_are_understood() {
    for packed in [false, true] {
        let guest = Unshared::start(packed);
        guest.write(0x50, &[7; 100]);
        let device = guest.vf.device();
        let remote = Arc::clone(&guest.remote());
        let access = ByMessage::new(device.memory(), &remote);
        let mut bytes = [0; 100];
        access.read(IOVA + 0x50, &mut bytes).expect("read");
        assert_eq!(bytes, [7; 100]);
        access.write(IOVA + 0x0ff0, &[9; 33]).expect("write, over a page's end");
        assert_eq!(guest.read(0x0ff0, 33), [9; 33], "packed: {packed}");
        guest.refuse(true);
        assert_eq!(access.read(IOVA + 0x2000, &mut bytes), Err(Fault::Remote), "refused by the client");
        assert_eq!(access.read(IOVA - 0x1000, &mut bytes), Err(Fault::Unmapped));
    }
}

#[test]
fn the_engine_never_asks_the_client() {
    let guest = Unshared::start(false);
    let device = guest.vf.device();
    assert_eq!(device.memory().view().read(IOVA, &mut [0; 4]), Err(Fault::Remote));
    assert_eq!(device.memory().view().write(IOVA, &[0; 4]), Err(Fault::Remote));
    assert_eq!(guest.requests(), 0);
}

#[test]
fn frames_pass_both_ways_by_messages_and_are_counted() {
    for packed in [false, true] {
        let mut guest = Unshared::start(packed);
        guest.bring_up(F_VERSION_1);
        guest.send(0, &frame(100));
        let mut buf = [0; 2048];
        let got = guest.pop(&mut buf).expect("a frame");
        assert_eq!(buf[..got.len], frame(100));
        wait_until("the chain is given back", || guest.used(TX) == 1);

        guest.post(0, 2048);
        let device = guest.vf.device();
        assert_eq!(device.rx_push(&[&frame(60)[..14], &frame(60)[14..]], false), Ok(Delivery::Queued));
        wait_until("the frame arrives", || guest.used(RX) == 1);
        assert_eq!(guest.read(buffer(0) + 12, 60), frame(60));
        wait_until("it is counted", || device.counters().rx_frames == 1);
        assert_eq!(device.take_late().delivered, (1, 60));

        // Without a buffer it is lost, as from a full ring.
        assert_eq!(device.rx_push(&[&frame(61)], false), Ok(Delivery::Queued));
        wait_until("it is dropped", || device.counters().rx_no_buffer == 1);
        assert_eq!(device.take_late().lost[RxError::NoBuffer as usize], (1, 61));
        assert_eq!(device.counters().by_message, 2);
    }
}

#[test]
fn control_commands_are_answered_by_messages() {
    let mut guest = Unshared::start(true);
    guest.bring_up(F_VERSION_1 | crate::driver::F_CTRL);
    guest.pop(&mut [0; 64]);
    guest.control(&[1, 1, 2, 0, 0, 0, 0, 9]);
    wait_until("an answer", || guest.read(buffer(101), 1) == [1]);
    guest.control(&[0, 0, 0]);
    wait_until("an answer", || guest.read(buffer(101), 1) == [0]);
}

#[test]
fn a_silent_client_keeps_nobody_waiting_and_loses_only_its_own_frames() {
    let mut guest = Unshared::start(false);
    guest.bring_up(F_VERSION_1);
    guest.answer(false);
    let device = guest.vf.device();
    let begin = Instant::now();
    let mut results = Vec::new();
    let mut neighbour =
        crate::driver::Driver::start(culvert_device::virtio::VfConfig::new(crate::driver::MAC, 1500), 0);
    for round in 0..400u16 {
        assert!(device.tx_pop(&mut [0; 2048]).is_none());
        results.push(device.rx_push(&[&frame(60)], false));
        device.service_control();
        device.flush_interrupts();
        device.set_polling(round % 2 == 0);
        neighbour.send(round % crate::driver::SIZE, [0; 12], &frame(64));
        assert!(neighbour.device.tx_pop(&mut [0; 2048]).is_some(), "the neighbour goes on");
    }
    assert!(begin.elapsed() < Duration::from_secs(5), "the engine waited for the client");
    assert!(device.is_running());
    let full = results.iter().filter(|result| **result == Err(RxError::NoBuffer)).count();
    assert!((100..=400 - 256).contains(&full), "{full} of 400 frames found no room");
    // Everything that was queued is counted once the client is gone.
    let device = Arc::clone(device);
    drop(guest);
    let late = device.take_late();
    let stopped = results.iter().filter(|result| **result == Err(RxError::Stopped)).count() as u64;
    assert_eq!(late.lost[RxError::Stopped as usize].0 + full as u64 + stopped, 400);
    assert_eq!(device.counters().rx_stopped + device.counters().rx_no_buffer, 400);
}

#[test]
fn a_client_that_was_stopped_finds_its_queue_as_it_left_it() {
    let mut guest = Unshared::start(false);
    guest.bring_up(F_VERSION_1);
    guest.send(0, &frame(100));
    assert!(guest.pop(&mut [0; 2048]).is_some());
    guest.answer(false);
    guest.send(1, &frame(101));
    wait_until("the device asks", || guest.unanswered());
    std::thread::sleep(STOPPED);
    guest.answer(true);
    assert_eq!(guest.pop(&mut [0; 2048]).map(|got| got.len), Some(101));
    assert!(guest.vf.device().is_running());
}

#[test]
fn an_unmap_does_not_wait_for_the_clients_own_unanswered_reads() {
    let mut guest = Unshared::start(false);
    guest.call(DMA_MAP, &dma_map(3, 0, IOVA + 0x1000_0000, 0x1000)).expect("another range");
    guest.bring_up(F_VERSION_1);
    guest.pop(&mut [0; 64]);
    guest.answer(false);
    guest.send(0, &frame(100));
    wait_until("the device asks", || guest.unanswered());
    guest.call(DMA_UNMAP, &dma_unmap(0, IOVA + 0x1000_0000, 0x1000)).expect("unmap");
    assert!(guest.unanswered(), "the read goes on");
    guest.answer(true);
    assert_eq!(guest.pop(&mut [0; 2048]).map(|got| got.len), Some(100));
    assert_eq!(guest.vf.device().counters().faults.iter().sum::<u64>(), 0);
}

#[test]
fn a_read_is_given_up_when_its_range_is_unmapped_and_the_queue_goes_on_when_it_is_back() {
    let mut guest = Unshared::start(false);
    guest.bring_up(F_VERSION_1);
    guest.pop(&mut [0; 64]);
    guest.answer(false);
    guest.send(0, &frame(100));
    wait_until("the device asks", || guest.unanswered());
    guest.unmap();
    // Never answered, as by a client for which the range is no more.
    guest.forget_request();
    guest.answer(true);
    guest.map();
    assert_eq!(guest.pop(&mut [0; 2048]).map(|got| got.len), Some(100));
    assert_eq!(guest.vf.device().counters().faults.iter().sum::<u64>(), 0);
}

#[test]
fn a_reset_does_not_wait_for_an_answer_and_the_device_runs_again() {
    let mut guest = Unshared::start(false);
    for round in 0..3 {
        guest.answer(true);
        guest.bring_up(F_VERSION_1);
        guest.pop(&mut [0; 64]);
        guest.send(0, &frame(100 + round));
        assert_eq!(guest.pop(&mut [0; 2048]).map(|got| got.len), Some(100 + round));
        guest.answer(false);
        guest.send(1, &frame(60));
        wait_until("the device asks", || guest.unanswered());
        guest.write_register(0x14, &[0]);
        assert_eq!(guest.read_register(0x14, 1), [0]);
        guest.forget_request();
    }
}

#[test]
fn a_guest_that_breaks_the_rules_by_message_stops_its_own_queue() {
    let mut guest = Unshared::start(false);
    guest.bring_up(F_VERSION_1);
    guest.pop(&mut [0; 64]);
    guest.offer(TX, 999);
    wait_until("the device asks for a reset", || guest.read_register(0x14, 1)[0] & 0x40 != 0);
    assert!(!guest.vf.device().is_running());
    guest.bring_up(F_VERSION_1);
    guest.send(0, &frame(70));
    assert_eq!(guest.pop(&mut [0; 2048]).map(|got| got.len), Some(70));
}

#[test]
fn a_client_that_reads_nothing_ends_with_its_connection() {
    let mut guest = Unshared::start(false);
    guest.bring_up(F_VERSION_1);
    guest.post(0, 2048);
    guest.stop_reading();
    // More than the socket holds, in replies that nobody reads.
    guest.flood(2000);
    let device = Arc::clone(guest.vf.device());
    let begin = Instant::now();
    for _ in 0..300 {
        assert!(device.tx_pop(&mut [0; 2048]).is_none());
        let _ = device.rx_push(&[&frame(60)], false);
        device.flush_interrupts();
    }
    assert!(begin.elapsed() < Duration::from_secs(5), "the engine waited for the client");
    guest.end();
    assert!(begin.elapsed() < Duration::from_secs(15), "the VF waited for the client");
}

#[test]
fn buffers_alone_in_unshared_memory_are_served_by_messages() {
    let mut guest = Unshared::with_shared_rings();
    guest.bring_up(F_VERSION_1);
    guest.send(3, &frame(90));
    assert_eq!(guest.pop(&mut [0; 2048]).map(|got| got.len), Some(90));
    guest.describe(RX, 0, buffer(0), 2048, WRITE);
    guest.offer(RX, 0);
    assert_eq!(guest.vf.device().rx_push(&[&frame(61)], false), Ok(Delivery::Queued));
    wait_until("the frame arrives", || guest.used(RX) == 1);
    assert_eq!(guest.read(buffer(0) + 12, 61), frame(61));
}
