//! Bring-up and adoption of a NIC; death and restart of its firmware; events; VFs.

use std::time::{Duration, Instant};

use culvert_abi::Vport;
use culvert_abi::regs::{EVENT_LINK, EVENT_QUEUE, LINK, QUEUE_STATE, QUEUE_STRIDE, QUEUES};
use culvert_offload::{Event, VfConfig};
use culvert_packet::{MacAddr, Reason};
use culvert_pf::{Config, Error, Nic};

use crate::fixtures::{frame, record, vport};
use crate::testbed::{ROUTER, config, dropped, image, start_board, until};

#[test]
fn a_nic_is_brought_up_from_nothing() {
    let board = start_board();
    let nic = board.open();
    assert!(!nic.adopted());
    assert_eq!(board.loaded(), (image(), 1));
    let identity = nic.identity();
    assert_eq!((identity.uplinks, identity.total_vfs, identity.vmqs), (2, 64, 16));
    let firmware = nic.firmware();
    assert_eq!((firmware.version, firmware.flows, firmware.epoch), (culvert_abi::VERSION, 1024, 1));
    assert_eq!((nic.router_mac(), nic.links().unwrap()), (ROUTER, [true, true]));
    nic.start().unwrap();
    nic.fence().unwrap();
    assert!(nic.firmware_log().unwrap().contains("booted"));
}

/// The error text of a bring-up with this image.
fn refusal(image: Vec<u8>) -> String {
    let config = Config { image, ..config() };
    Nic::open(start_board().device(), &config).err().expect("refused").to_string()
}

#[test]
fn an_unusable_image_is_refused_with_reason_and_remedy() {
    let mut damaged = image();
    *damaged.last_mut().unwrap() ^= 1;
    assert!(refusal(damaged).contains("checksum"));
    assert!(
        refusal(b"#!/bin/sh, a script that is no firmware image".to_vec()).contains("not a firmware image")
    );
    let mut other = image();
    other[4] ^= 0xff;
    assert!(refusal(other).contains("another version"));
    assert!(refusal(image()[..36].to_vec()).contains("cargo xtask firmware"));
}

#[test]
fn another_device_or_another_version_of_the_board_is_refused() {
    let other = start_board();
    other.set_register(culvert_abi::regs::MAGIC, 0);
    assert!(matches!(Nic::open(other.device(), &config()), Err(Error::WrongDevice { .. })));
    let old = start_board();
    old.set_register(culvert_abi::regs::ABI, 99);
    assert!(matches!(Nic::open(old.device(), &config()), Err(Error::Abi { part: "board", found: 99, .. })));
}

#[test]
fn a_nic_that_forwards_is_adopted_with_its_tables() {
    let board = start_board();
    let nic = board.ready();
    nic.insert(&[record(1)]).unwrap();
    nic.start().unwrap();
    // A packet is at the host when the driver ends.
    board.frame(culvert_abi::soc::BoardPort::Vf(0), &frame(2));
    until("the upcall", || nic.firmware_status().ok().filter(|_| nic.fence().is_ok()));
    drop(nic);

    let nic = board.open();
    assert!(nic.adopted());
    assert_eq!(board.loaded().1, 1, "the firmware was restarted");
    assert_eq!(nic.read_all(100).unwrap().len(), 1);
    assert_eq!(dropped(&nic, Reason::HostRestart), 1);
}

#[test]
fn firmware_that_runs_without_tables_is_configured() {
    let board = start_board();
    drop(board.open());
    let nic = board.open();
    assert!(!nic.adopted());
    assert_eq!(board.loaded().1, 1);
    nic.fence().unwrap();
}

#[test]
fn dead_firmware_is_reported_within_a_second_and_configured_after_its_restart() {
    let board = start_board();
    let nic = board.ready();
    let events = nic.events().expect("once");
    assert!(nic.events().is_none());
    nic.insert(&[record(1)]).unwrap();
    let killed = Instant::now();
    board.kill("index out of bounds");
    let died = until("the report", || events.next());
    assert!(killed.elapsed() < Duration::from_secs(1));
    let Event::FirmwareDied { epoch: 1, panic, log } = died else { panic!("{died:?}") };
    assert_eq!((panic.as_str(), log.as_str()), ("index out of bounds", "booted.."));
    assert!(matches!(nic.insert(&[record(2)]), Err(Error::FirmwareDead { .. })));
    assert!(matches!(nic.batch().insert(&[record(2)]), Err(Error::FirmwareDead { .. })));

    board.restart();
    let ready = until("the restart", || events.next());
    assert_eq!(ready, Event::FirmwareReady { epoch: 2 });
    assert_eq!(nic.read_all(10).unwrap().len(), 0);
    nic.set_vports(&[(0, vport(Vport::VF, 0))]).unwrap();
    nic.insert(&[record(1), record(2)]).unwrap();
    assert_eq!(nic.read_all(10).unwrap().len(), 2);
}

#[test]
fn an_outstanding_command_fails_when_the_firmware_dies() {
    let board = start_board();
    let nic = board.open();
    // The driver does not know yet that the firmware is dead: nothing reads the command.
    std::thread::scope(|scope| {
        board.kill("");
        let begun = Instant::now();
        let command = scope.spawn(|| nic.fence());
        assert!(matches!(command.join().unwrap(), Err(Error::FirmwareDead { .. })));
        assert!(begun.elapsed() < Duration::from_secs(1));
    });
}

#[test]
fn links_and_stopped_queues_are_reported() {
    let board = start_board();
    let nic = board.open();
    let events = nic.events().unwrap();
    board.set_register(LINK, 2);
    board.event(EVENT_LINK);
    assert_eq!(until("the link", || events.next()), Event::Link([false, true]));
    board.set_register(QUEUES + QUEUE_STRIDE + QUEUE_STATE, 2);
    board.event(EVENT_QUEUE);
    assert_eq!(until("the queue", || events.next()), Event::QueueStopped { queue: 1 });
}

#[test]
fn vfs_are_configured_before_they_are_enabled() {
    use culvert_abi::regs::{VF_FLAGS, VF_LINK_UP, VF_MAC_HIGH, VF_MAC_LOW, VF_MTU, VF_STRIDE, VFS};
    let board = start_board();
    let nic = board.open();
    let vf = VfConfig::new(MacAddr([0x02, 1, 2, 3, 4, 5]), 1450);
    let handles = nic.enable_vfs(2, &[vf, vf]).unwrap();
    assert_eq!(handles.len(), 2);
    let second = |register| board.register(VFS + VF_STRIDE + register);
    assert_eq!((second(VF_MAC_LOW), second(VF_MAC_HIGH)), (0x0302_0102, 0x0504));
    assert_eq!((second(VF_MTU), second(VF_FLAGS)), (1450, VF_LINK_UP));
    assert!(!nic.vf_is_driven(1).unwrap());
}
