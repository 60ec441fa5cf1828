//! Steps between two ports in memory: a flow's first packet, and what the slow path is shown of those after it.

use std::os::fd::{AsFd, BorrowedFd};

use culvert_flow::TableSizes;
use culvert_flow::tables::Vport;
use culvert_flow::{Actions, FlowHot, FlowRecord, HashSecret, Port, key};
use culvert_offload::{EventFd, UpcallQueue};
use culvert_packet::craft::{self, Ends};
use culvert_packet::{MacAddr, VportId, parse, tcp};

use super::*;
use crate::{Pool, Sent, SwitchPort, SwitchSettings, WorkerSet};

const FROM: Port = Port::Vport(VportId(0));
const TO: Port = Port::Vport(VportId(1));

/// Takes everything.
struct Sink(EventFd);

impl SwitchPort for Sink {
    fn receive(&mut self, _: &mut Pool, _: &mut Vec<Packet>, _: usize) -> std::io::Result<()> {
        Ok(())
    }

    fn send(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>) -> std::io::Result<Sent> {
        let sent = Sent { packets: packets.len() as u64, ..Sent::default() };
        packets.drain(..).for_each(|packet| pool.give(packet));
        Ok(sent)
    }

    fn arm(&mut self) -> bool {
        true
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn forwarder() -> (Forwarder, Box<dyn UpcallQueue>) {
    let sizes = TableSizes { flows: 1024, ..TableSizes::new(0) };
    let settings = SwitchSettings {
        sizes,
        buffers: 64,
        large_buffers: 1,
        ..SwitchSettings::new(1024, HashSecret([7; 9]))
    };
    let (mut f, source) = WorkerSet::single(&settings).expect("memory");
    for n in 0..2 {
        f.set_vport(n, &Vport { flags: Vport::PRESENT | Vport::UP, quota: 1024, ..Vport::default() });
        let open =
            || Ok(Box::new(Sink(EventFd::new().map_err(std::io::Error::other)?)) as Box<dyn SwitchPort>);
        f.attach(Port::Vport(VportId(n as u16)), Box::new(open));
    }
    (f, source)
}

fn syn() -> Vec<u8> {
    let ends = Ends {
        src_mac: MacAddr([2, 0, 0, 0, 0, 1]),
        dst_mac: MacAddr([2, 0, 0, 0, 0, 2]),
        src: [10, 1, 1, 11].into(),
        dst: [10, 1, 1, 12].into(),
    };
    let header =
        tcp::Header { src_port: 1000, dst_port: 80, flags: tcp::Flags::SYN, ..tcp::Header::default() };
    let mut frame = [0; 128];
    let len = craft::tcp(&mut frame, &ends, &header, &[]).expect("fits");
    frame[..len].to_vec()
}

fn arrive(f: &mut Forwarder, frame: &[u8]) {
    let mut packet = f.pool().take().expect("a buffer");
    packet.input = FROM;
    assert!(packet.fill(frame));
    f.burst(&mut vec![packet]);
}

fn sent(f: &Forwarder) -> u64 {
    f.tables().vports[1].tx_packets
}

#[test]
fn the_slow_path_is_shown_tcp_control_but_not_what_it_has_just_decided() {
    let (mut f, mut source) = forwarder();
    let frame = syn();
    arrive(&mut f, &frame);
    let upcall = source.pop().expect("open").expect("a miss");
    assert_eq!((upcall.meta.reason, &upcall.frame), (Reason::Miss, &frame));
    let key = key::outbound(VportId(0), &frame, &parse(&frame).expect("well-formed"));
    let hot = FlowHot { actions: Actions::COPY_TCP_CONTROL.bits(), out: TO.bits(), ..FlowHot::default() };
    let record = FlowRecord { key, hot, ..FlowRecord::default() };
    f.execute(vec![
        FlowCommand::Insert(vec![record]),
        FlowCommand::Reinject(upcall.meta.reinject(), upcall.frame, None),
    ]);
    assert_eq!(sent(&f), 1);
    assert!(source.pop().expect("open").is_none(), "it knows of this one");
    arrive(&mut f, &frame);
    assert_eq!(sent(&f), 2);
    let copy = source.pop().expect("open").expect("a copy");
    assert_eq!((copy.meta.reason, copy.meta.copy.is_some()), (Reason::TcpControl, true));
}
