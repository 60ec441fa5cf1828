//! The driver on the device model, over vfio-user, with the firmware in the emulated SoC.

mod board;

use std::time::{Duration, Instant};

use culvert_abi::{FlowHot, FlowRecord, Vport};
use culvert_flow::Port;
use culvert_offload::{Event, ReinjectMeta, VfConfig};
use culvert_packet::{MacAddr, Reason, VportId};
use culvert_pf::{Nic, upcall_meta};

use board::{Board, until};

fn record(n: u16) -> FlowRecord {
    let mut record = FlowRecord {
        hot: FlowHot { out: Port::Uplink(0).bits(), ..FlowHot::default() },
        ..FlowRecord::default()
    };
    record.key.direction = 1;
    record.key.src_port = n;
    record
}

fn vport() -> Vport {
    Vport { flags: Vport::PRESENT | Vport::UP, vsid: 5001, quota: 10_000, ..Vport::default() }
}

#[test]
fn tables_packets_and_vfs_work_and_tables_outlive_the_driver() {
    let board = Board::start();
    let nic = board.open();
    assert!(!nic.adopted());
    nic.set_vports(&[(0, vport())]).unwrap();
    let handles = nic.enable_vfs(2, &[VfConfig::new(MacAddr([2, 0, 0, 0, 0, 1]), 1500)]).unwrap();
    assert_eq!(handles.len(), 2);
    nic.start().unwrap();

    let records: Vec<FlowRecord> = (0..2000).map(record).collect();
    assert_eq!(nic.insert(&records).unwrap(), 2000);
    assert_eq!(nic.read_all(10_000).unwrap().len(), 2000);
    assert_eq!(nic.get(&[records[1234].key]).unwrap().len(), 1);

    // A frame from the wire to the host, and one from the host to the wire.
    let mut upcalls = nic.upcalls().unwrap();
    let mut arp = vec![0xff; 6];
    arp.extend([2, 0, 0, 0, 0, 9, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    arp.resize(60, 0);
    board.to_uplink(&arp);
    let (upcall, bytes) = until("the upcall arrives", || {
        let entry = upcalls.pop().unwrap().map(|(e, b)| (upcall_meta(&e).unwrap(), b.to_vec()));
        if entry.is_none() && upcalls.arm() {
            upcalls.interrupt().wait(Duration::from_millis(200)).unwrap();
            upcalls.disarm();
        }
        entry
    });
    assert_eq!((upcall.reason, upcall.input), (Reason::Control, Port::Uplink(0)));
    assert_eq!(bytes, arp);
    upcalls.repost().unwrap();
    nic.batch()
        .packet_out(&ReinjectMeta::from_host(Port::Host), Port::Uplink(0), &[b"headers and ", &arp])
        .unwrap();
    assert_eq!(board.sent_frame(), [&b"headers and "[..], &arp].concat());
    // The board counts a frame after it has sent it.
    until("the frames are counted", || {
        let port = nic.counters().unwrap().uplinks[0];
        ((port.in_packets, port.out_packets) == (1, 1)).then_some(())
    });
    assert!(nic.links().unwrap()[0]);

    drop(upcalls);
    drop(nic);
    let nic = board.open();
    assert!(nic.adopted());
    assert_eq!(nic.read_all(10_000).unwrap().len(), 2000);
    assert_eq!(nic.enable_vfs(2, &[]).unwrap().len(), 2);
    assert_eq!(nic.vports().unwrap()[0].quota, 10_000);
}

#[test]
fn a_queue_can_be_closed_and_reopened_at_once() {
    let board = Board::start();
    let nic = board.open();
    nic.set_vports(&[(4, Vport { target: Vport::VMQ, number: 2, ..vport() })]).unwrap();
    for round in 0..20u8 {
        let mut vmq = nic.vmq(2).unwrap();
        let to = Port::Vport(VportId(4));
        nic.batch().packet_out(&ReinjectMeta::from_host(Port::Host), to, &[&[round; 60]]).unwrap();
        assert_eq!(until("the frame arrives", || vmq.pop().unwrap().map(|(_, b)| b.to_vec())), [round; 60]);
    }
}

#[test]
fn killed_firmware_is_ready_again_within_two_seconds() {
    let board = Board::start();
    let nic = board.open();
    let events = nic.events().unwrap();
    nic.set_vports(&[(0, vport())]).unwrap();
    nic.insert(&[record(1)]).unwrap();
    nic.start().unwrap();
    // Links come up while the board starts.
    while events.next().is_some() {}

    board.kill_firmware();
    let killed = Instant::now();
    let died = until("the report", || events.next().filter(|e| !matches!(e, Event::Link(_) | Event::Vf)));
    assert!(matches!(died, Event::FirmwareDied { epoch: 1, .. }), "{died:?}");
    assert!(killed.elapsed() < Duration::from_millis(1200), "{:?}", killed.elapsed());
    let ready = until("the restart", || events.next().filter(|e| matches!(e, Event::FirmwareReady { .. })));
    assert_eq!(ready, Event::FirmwareReady { epoch: 2 });
    assert!(killed.elapsed() < Duration::from_secs(2), "{:?}", killed.elapsed());
    // The board has restored the tables of the restarted firmware.
    assert_eq!(nic.read_all(10).unwrap().len(), 1);
    nic.set_vports(&[(0, vport())]).unwrap();
    nic.insert(&[record(1), record(2)]).unwrap();
    nic.start().unwrap();
    assert_eq!(nic.read_all(10).unwrap().len(), 2);
    assert_eq!(nic.vports().unwrap()[0].vsid, 5001);
    assert_eq!(reason_of_a_frame_without_vport(&nic), Reason::NoVport);
}

/// Sends a frame to a vport that does not exist. Returns the reason of its drop.
fn reason_of_a_frame_without_vport(nic: &Nic) -> Reason {
    let before = nic.firmware_drops().unwrap();
    let missing = Port::Vport(VportId(999));
    nic.batch().packet_out(&ReinjectMeta::from_host(Port::Host), missing, &[&[0; 60]]).unwrap();
    let after = nic.firmware_drops().unwrap();
    let changed = Reason::ALL.iter().find(|r| after[**r as usize] > before[**r as usize]);
    *changed.expect("a drop")
}
