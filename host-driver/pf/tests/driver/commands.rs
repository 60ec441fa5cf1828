//! Flow and table commands: written entries can be read back, and a refusal names its reason.

use std::ops::ControlFlow;
use std::time::Instant;

use culvert_abi::command::{CellWrite, Op};
use culvert_abi::{FlowKey, FlowRecord, Group, Peer, Tunnel, Vport};
use culvert_offload::{FlowTables as _, Scan};
use culvert_packet::Reason;
use culvert_pf::Error;

use crate::fixtures::{record, vport};
use crate::testbed::{start_board, until};

#[test]
fn records_are_inserted_read_found_and_deleted_in_bulk() {
    let board = start_board();
    let nic = board.ready();
    let records: Vec<FlowRecord> = (0..300).map(record).collect();
    assert_eq!(nic.insert(&records).unwrap(), 300);
    let mut all = nic.read_all(1000).unwrap();
    all.sort_by_key(|r| r.key.src_port);
    assert_eq!(all.len(), 300);
    assert!(
        all.iter().zip(&records).all(|(read, sent)| read.key == sent.key && read.hot.out == sent.hot.out)
    );
    assert_eq!(nic.read_all(7).unwrap().len(), 7);

    let keys: Vec<FlowKey> = records.iter().map(|r| r.key).collect();
    assert_eq!(nic.get(&keys[10..50]).unwrap().len(), 40);
    assert_eq!(nic.delete(&keys[..100]).unwrap(), 100);
    assert_eq!(nic.get(&keys[..50]).unwrap().len(), 0);
    nic.clear().unwrap();
    assert_eq!(nic.read_all(1000).unwrap().len(), 0);
}

#[test]
fn only_unused_records_are_idle() {
    let board = start_board();
    let nic = board.ready();
    nic.insert(&[record(1)]).unwrap();
    let idle = |ms| nic.scan(Scan::Idle(ms), 10).unwrap().len();
    assert_eq!(idle(60_000), 0);
    until("the record is idle", || (idle(20) == 1).then_some(()));
}

#[test]
fn how_long_records_are_idle_is_the_boards_time() {
    let board = start_board();
    let nic = board.ready();
    let idle_times = || {
        let mut all = Vec::new();
        nic.visit(Scan::All, &mut |record, idle| {
            all.push((record.key.src_port, idle));
            ControlFlow::Continue(())
        })
        .unwrap();
        all
    };
    let before = Instant::now();
    nic.insert(&[record(1)]).unwrap();
    until("the record is idle", || (idle_times()[0].1 >= 50).then_some(()));
    nic.insert(&[record(2)]).unwrap();
    let mut idle = idle_times();
    let limit = before.elapsed().as_millis() as u32 + 1;
    idle.sort_by_key(|(port, _)| *port);
    let [(_, old), (_, new)] = idle[..] else { panic!("two records, not {idle:?}") };
    assert!(old >= 50 && new < old && old <= limit, "{idle:?}, {limit} ms passed");
}

#[test]
fn a_refusal_names_its_reason() {
    let board = start_board();
    let nic = board.ready();
    let bad = FlowRecord { key: FlowKey::default(), ..record(1) };
    let refused = nic.insert(&[bad]).unwrap_err();
    assert!(matches!(refused, Error::Refused { op: Op::FlowInsert, reason: Reason::BadDescriptor, .. }));
    assert!(matches!(nic.set_tunnels(&[(9999, Tunnel::default())]), Err(Error::Refused { .. })));
    nic.batch().insert(&[bad]).unwrap();
    nic.fence().unwrap();
    assert_eq!(until("the refusal is counted", || nic.refused().get(&Reason::BadDescriptor).copied()), 1);
}

#[test]
fn tables_are_written_and_vports_read_back() {
    let board = start_board();
    let nic = board.open();
    nic.set_vports(&[(3, vport(Vport::VF, 1)), (5, vport(Vport::VMQ, 0))]).unwrap();
    let peer = |n: u16| Peer { addr: [n as u8; 16], family: 4, index: n, reserved: 0 };
    nic.set_peers(&(0..150).map(peer).collect::<Vec<_>>()).unwrap();
    nic.set_local(&[peer(200)]).unwrap();
    nic.set_groups(&[(1, Group { len: 1, ..Group::default() })]).unwrap();
    nic.set_tunnels(&[(1, Tunnel { encap: 1, ..Tunnel::default() })]).unwrap();
    nic.set_cells(&[CellWrite { cell: CellWrite::VPORT + 3, value: 17 }, CellWrite { cell: 9, value: 4 }])
        .unwrap();
    let vports = nic.vports().unwrap();
    assert_eq!(vports.len(), 64);
    assert_eq!((vports[3].number, vports[3].generation, vports[5].target), (1, 17, Vport::VMQ));
    assert_eq!(nic.tunnel_counters().unwrap().len(), 64);
    assert!(matches!(nic.set_cells(&[CellWrite { cell: u32::MAX, value: 0 }]), Err(Error::Refused { .. })));
}

#[test]
fn several_threads_may_send_commands() {
    let board = start_board();
    let nic = board.ready();
    std::thread::scope(|scope| {
        for thread in 0..4u16 {
            let nic = &nic;
            scope.spawn(move || {
                for n in 0..20 {
                    nic.insert(&[record(thread * 100 + n)]).unwrap();
                    assert_eq!(nic.get(&[record(thread * 100 + n).key]).unwrap().len(), 1);
                }
            });
        }
    });
    assert_eq!(nic.read_all(1000).unwrap().len(), 80);
}
