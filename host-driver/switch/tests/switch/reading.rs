//! What looking at a switch shows: counters of all workers, drops by vport and reason, and flows with their idle times.

use std::ops::ControlFlow;

use culvert_flow::tables::Vport;
use culvert_flow::{FlowHot, FlowRecord, HashSecret, Port, key};
use culvert_offload::{DeviceInfo as _, FlowTables as _, Scan, TableWrite};
use culvert_packet::craft::{self, Ends};
use culvert_packet::{MacAddr, Reason, VportId, parse, tcp};
use culvert_switch::{MemPort, Switch, SwitchSettings};

const VPORTS: u16 = 1000;

fn switch(workers: usize) -> Switch {
    let settings = SwitchSettings {
        buffers: 256,
        large_buffers: 8,
        workers: vec![None; workers],
        ..SwitchSettings::new(1 << 14, HashSecret([7; 9]))
    };
    let switch = Switch::inline(&settings).unwrap();
    let up = Vport { flags: Vport::PRESENT | Vport::UP, quota: u32::MAX, ..Vport::default() };
    let vports: Vec<_> = (0..VPORTS).map(|n| (n, Vport { vsid: 5000 + u32::from(n), ..up })).collect();
    switch.write(TableWrite::Vports(&vports)).unwrap();
    switch
}

/// A record of vport `n` that drops.
fn dropping(n: u16, port: u16) -> (Vec<u8>, FlowRecord) {
    let ends = Ends {
        src_mac: MacAddr([2, 0, 0, 0, 0, 1]),
        dst_mac: MacAddr([2, 0, 0, 0, 0, 2]),
        src: [10, 1, 1, 1].into(),
        dst: [10, 1, 1, 2].into(),
    };
    let header = tcp::Header { src_port: port, dst_port: 80, ..tcp::Header::default() };
    let mut frame = [0; 128];
    let len = craft::tcp(&mut frame, &ends, &header, &[]).unwrap();
    let headers = parse(&frame[..len]).unwrap();
    let key = key::outbound(VportId(n), &frame[..len], &headers);
    let record = FlowRecord { key, hot: FlowHot::drop(Reason::AclDeny), ..FlowRecord::default() };
    (frame[..len].to_vec(), record)
}

#[test]
fn a_reading_has_all_vports_with_their_links_workers_and_drops_by_reason() {
    let switch = switch(2);
    let mut guests = Vec::new();
    for n in [3, 300, 999] {
        let guest = MemPort::new().unwrap();
        switch.attach(Port::Vport(VportId(n)), guest.opener()).unwrap();
        let (frame, record) = dropping(n, 1024);
        switch.insert(&[record]).unwrap();
        for _ in 0..n {
            guest.push(frame.clone());
            while switch.poll(1) {}
        }
        guests.push(guest);
    }
    let reading = switch.reading().unwrap();
    let numbers: Vec<u16> = reading.vports.iter().map(|vport| vport.number).collect();
    assert_eq!(numbers, (0..VPORTS).collect::<Vec<_>>());
    for vport in &reading.vports {
        let attached = [3, 300, 999].contains(&vport.number);
        let dropped = if attached { u64::from(vport.number) } else { 0 };
        assert_eq!(vport.table.vsid, 5000 + u32::from(vport.number));
        assert_eq!((vport.link, vport.worker.is_some()), (attached.then_some(true), attached));
        assert_eq!(vport.table.drops, dropped);
        assert_eq!(
            vport.drops.iter().map(|(_, count)| count).sum::<u64>(),
            dropped,
            "each drop has a reason"
        );
        assert!(vport.drops.iter().all(|(reason, _)| *reason == Reason::AclDeny), "{:?}", vport.drops);
    }
    assert_eq!(reading.drops, [(Reason::AclDeny, 3 + 300 + 999)]);
    assert_eq!(reading.flows, 3);
    assert_eq!(reading.workers.iter().map(|worker| worker.vports).sum::<u64>(), 3);
    assert_eq!(reading.workers.iter().map(|worker| worker.flow_capacity).collect::<Vec<_>>(), [1 << 14; 2]);
    assert_eq!(reading.vports.len(), switch.vports().unwrap().iter().filter(|v| v.flags != 0).count());
}

#[test]
fn flows_are_idle_since_their_last_packet() {
    let switch = switch(1);
    let guest = MemPort::new().unwrap();
    switch.attach(Port::Vport(VportId(0)), guest.opener()).unwrap();
    switch.poll(1000);
    let (used, record) = dropping(0, 1024);
    let (_, other) = dropping(0, 1025);
    switch.insert(&[record, other]).unwrap();
    guest.push(used);
    while switch.poll(4000) {}
    switch.poll(4500);
    let mut idle = Vec::new();
    switch
        .visit(Scan::All, &mut |record, idle_ms| {
            idle.push((record.key.src_port, idle_ms));
            ControlFlow::Continue(())
        })
        .unwrap();
    idle.sort_unstable();
    assert_eq!(idle, [(1024, 500), (1025, 3500)]);
}

#[test]
fn a_look_at_flows_shows_each_once_and_stops_when_asked() {
    let switch = switch(2);
    let records: Vec<FlowRecord> = (0..5000).map(|port| dropping(port % 7, port).1).collect();
    switch.insert(&records).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    switch
        .visit(Scan::All, &mut |record, _| {
            assert!(seen.insert(record.key.src_port), "each once");
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(seen.len(), 5000);
    let mut count = 0;
    let mut stop = |_: &FlowRecord, _| {
        count += 1;
        if count == 300 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    switch.visit(Scan::All, &mut stop).unwrap();
    assert_eq!(count, 300);
    assert_eq!(switch.scan(Scan::All, 10).unwrap().len(), 10);
    assert_eq!(switch.scan(Scan::All, 0).unwrap().len(), 0);
}
