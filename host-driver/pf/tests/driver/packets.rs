//! Packets between NIC and host: upcalls with tickets, verdicts and packets in order, VMQs.

use std::time::Duration;

use culvert_abi::Vport;
use culvert_abi::command::{Op, VmqFilter};
use culvert_abi::soc::BoardPort;
use culvert_flow::Port;
use culvert_offload::{ReinjectMeta, UpcallMeta};
use culvert_packet::{Reason, VportId};
use culvert_pf::{RxQueue, upcall_meta};

use crate::fixtures::{frame, record, vport};
use crate::testbed::{dropped, start_board, until};

/// Waits for the next upcall.
fn next(queue: &mut RxQueue) -> (UpcallMeta, Vec<u8>) {
    let upcall = until("an upcall arrives", || {
        let upcall = queue.pop().unwrap().map(|(e, bytes)| (upcall_meta(&e).unwrap(), bytes.to_vec()));
        upcall.or_else(|| {
            if queue.arm() {
                queue.interrupt().wait(Duration::from_millis(500)).unwrap();
                queue.disarm();
            }
            None
        })
    });
    queue.repost().unwrap();
    upcall
}

#[test]
fn a_verdict_and_its_packets_keep_their_order() {
    let board = start_board();
    let nic = board.open();
    nic.set_vports(&[(0, vport(Vport::VF, 7))]).unwrap();
    nic.start().unwrap();
    let mut upcalls = nic.upcalls().expect("once");
    assert!(nic.upcalls().is_none());

    for _ in 0..3 {
        board.frame(BoardPort::Vf(7), &frame(1));
    }
    let (first, bytes) = next(&mut upcalls);
    assert_eq!((first.reason, first.input, bytes), (Reason::Miss, Port::Vport(VportId(0)), frame(1)));
    assert!(first.ticket.is_some() && first.copy.is_none());
    let others: Vec<_> = (0..2).map(|_| next(&mut upcalls)).collect();
    assert!(others.iter().all(|(e, _)| (e.reason, e.ticket) == (Reason::Pending, first.ticket)));

    let mut batch = nic.batch();
    batch.insert(&[record(1)]).unwrap();
    batch.reinject(&first.reinject(), &frame(1)).unwrap();
    drop(batch);
    // The host has decided, and two upcalls are outstanding: this packet waits behind them.
    nic.fence().unwrap();
    board.frame(BoardPort::Vf(7), &frame(1));
    nic.fence().unwrap();
    assert_eq!(board.sent().len(), 1);
    let mut batch = nic.batch();
    batch.reinject(&others[0].0.reinject(), &frame(1)).unwrap();
    batch.dropped(&others[1].0.reinject(), Reason::AclDeny, 1).unwrap();
    drop(batch);
    nic.fence().unwrap();
    assert_eq!(board.sent(), vec![(BoardPort::Uplink(0), frame(1)); 2]);
    assert_eq!(dropped(&nic, Reason::AclDeny), 1);
    // The record is live: the NIC forwards by itself.
    board.frame(BoardPort::Vf(7), &frame(1));
    nic.fence().unwrap();
    assert_eq!(until("the frame arrives", || board.sent().pop()).1, frame(1));
}

#[test]
fn a_frame_of_the_host_in_parts_leaves_unchanged() {
    let board = start_board();
    let nic = board.open();
    nic.batch()
        .packet_out(
            &ReinjectMeta::from_host(Port::Host),
            Port::Uplink(1),
            &[b"outer headers and ", b"a frame"],
        )
        .unwrap();
    nic.fence().unwrap();
    assert_eq!(board.sent(), [(BoardPort::Uplink(1), b"outer headers and a frame".to_vec())]);
    let long = [0; 2000];
    assert!(nic.batch().packet_out(&ReinjectMeta::from_host(Port::Host), Port::Uplink(1), &[&long]).is_err());
}

#[test]
fn frames_for_a_vport_without_vf_arrive_in_its_vmq() {
    let board = start_board();
    let nic = board.open();
    let mut vmq = nic.vmq(2).unwrap();
    assert!(nic.vmq(16).is_err());
    nic.set_vports(&[(0, vport(Vport::VF, 0)), (4, vport(Vport::VMQ, 2))]).unwrap();
    let filter = VmqFilter { mac: [2, 0, 0, 0, 0, 2], vmq: 2, vsid: 5001, vport: 4 };
    nic.set_vmq_filters(&[filter]).unwrap();
    nic.batch()
        .packet_out(&ReinjectMeta::from_host(Port::Host), Port::Vport(VportId(4)), &[&frame(9)])
        .unwrap();
    let got = until("the frame arrives", || vmq.pop().unwrap().map(|(e, bytes)| (e.op, bytes.to_vec())));
    assert_eq!(got, (Op::Transmit as u8, frame(9)));
    vmq.repost().unwrap();
    assert!(!vmq.is_stopped().unwrap());
}

#[test]
fn more_packets_than_the_ring_holds_leave_in_order() {
    let board = start_board();
    let nic = board.open();
    let mut batch = nic.batch();
    for n in 0..3000u16 {
        batch.packet_out(&ReinjectMeta::from_host(Port::Host), Port::Uplink(0), &[&n.to_be_bytes()]).unwrap();
    }
    drop(batch);
    nic.fence().unwrap();
    let sent: Vec<u16> = board.sent().iter().map(|(_, b)| u16::from_be_bytes([b[0], b[1]])).collect();
    assert_eq!(sent, (0..3000).collect::<Vec<_>>());
}

#[test]
fn frames_of_vms_fill_only_their_share_of_the_ring() {
    let board = start_board();
    let nic = board.open();
    nic.set_vports(&[(4, vport(Vport::VMQ, 2))]).unwrap();
    nic.start().unwrap();
    let mut upcalls = nic.upcalls().expect("once");
    let (input, frame) = (Port::Vport(VportId(4)), frame(9));
    let (outer, inner) = frame.split_at(40);

    // Without a doorbell the board does not see them: all stay in the ring.
    let mut accepted = 0;
    while nic.enqueue(input, &[outer, inner]).unwrap() {
        accepted += 1;
    }
    assert!((32..1024).contains(&accepted), "{accepted}");
    assert!(!nic.enqueue_drops(input, Reason::RingFull, 3).unwrap());
    let mut batch = nic.batch();
    for _ in 0..accepted {
        batch.dropped(&ReinjectMeta::from_host(input), Reason::AclDeny, 1).unwrap();
    }
    drop(batch);
    // They have no flow record yet: each is an upcall, in the order in which they were enqueued.
    for n in 0..accepted {
        let (upcall, bytes) = next(&mut upcalls);
        let reason = if n == 0 { Reason::Miss } else { Reason::Pending };
        assert_eq!((upcall.reason, upcall.input, bytes), (reason, input, frame.clone()));
    }
    assert_eq!(dropped(&nic, Reason::AclDeny), accepted);
    until("the ring has room", || nic.enqueue_drops(input, Reason::RingFull, 3).unwrap().then_some(()));
    nic.doorbell().unwrap();
    nic.fence().unwrap();
    assert_eq!(dropped(&nic, Reason::RingFull), 3);
    let vports = nic.vports().unwrap();
    assert_eq!(vports[4].drops, accepted + 3);
    assert!(nic.enqueue(input, &[&[0; 2000]]).is_err());
}

#[test]
fn frames_of_vms_do_not_wait_for_a_batch() {
    let board = start_board();
    let nic = board.open();
    nic.set_vports(&[(4, vport(Vport::VMQ, 2))]).unwrap();
    nic.start().unwrap();
    let mut upcalls = nic.upcalls().expect("once");
    let (input, frame) = (Port::Vport(VportId(4)), frame(9));
    assert!(nic.enqueue(input, &[&frame]).unwrap());
    let batch = nic.batch();
    let (sender, answer) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let enqueued = nic.enqueue(input, &[&frame]).unwrap();
            let counted = nic.enqueue_drops(input, Reason::RingFull, 3).unwrap();
            nic.doorbell().unwrap();
            sender.send((enqueued, counted)).unwrap();
        });
        let answer = answer.recv_timeout(Duration::from_secs(10));
        drop(batch);
        assert_eq!(answer, Ok((false, false)), "they are to be tried again");
    });
    // The batch has published the frame that was enqueued before it.
    assert_eq!(next(&mut upcalls).1, frame);
}
