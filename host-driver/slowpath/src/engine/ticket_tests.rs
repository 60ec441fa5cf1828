//! Property: whatever the engine is given, it returns every ticket exactly once.

use std::collections::HashMap;

use culvert_packet::{Encap, MacAddr, OuterSpec, craft};
use proptest::prelude::*;

use super::fixture::*;
use super::*;

/// A frame from the wire around `inner`.
fn wire(inner: &[u8]) -> Vec<u8> {
    let spec = OuterSpec {
        encap: Encap::Vxlan,
        src_mac: GATEWAY_MAC,
        dst_mac: MacAddr([2, 0, 0, 0, 0, 0x11]),
        vlan: None,
        src: [192, 168, 2, 20].into(),
        dst: [192, 168, 1, 11].into(),
    };
    let mut frame = [0; 256];
    let template = spec.template().expect("same family");
    let len = craft::encapsulated(&mut frame, &template, 5001, 50_000, inner).expect("fits");
    frame[..len].to_vec()
}

#[derive(Clone, Debug)]
enum Event {
    Packet { input: u8, to: u16, ticket: bool, cut: usize },
    Arp,
    Tick,
    Links([bool; 2]),
    Tables { tunnels: bool },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (0u8..3, 1u16..7, any::<bool>(), prop_oneof![9 => Just(0usize), 1 => 0usize..60])
            .prop_map(|(input, to, ticket, cut)| Event::Packet { input, to, ticket, cut }),
        1 => Just(Event::Arp),
        2 => Just(Event::Tick),
        1 => any::<[bool; 2]>().prop_map(Event::Links),
        1 => any::<bool>().prop_map(|tunnels| Event::Tables { tunnels }),
    ]
}

fn count_tickets(commands: Vec<FlowCommand>, seen: &mut HashMap<u32, u32>) {
    for command in commands {
        let meta = match command {
            FlowCommand::Reinject(meta, _, _)
            | FlowCommand::PacketOut(meta, ..)
            | FlowCommand::Dropped(meta, _) => meta,
            FlowCommand::Insert(_) | FlowCommand::Delete(_) | FlowCommand::SetTunnel(..) => continue,
        };
        if let Some(ticket) = meta.ticket {
            *seen.entry(u32::from(ticket.slot)).or_insert(0) += 1;
        }
    }
}

proptest! {
    /// For any order of events each ticket is returned once, and none is left over.
    #[test]
    fn every_ticket_comes_back_exactly_once(events in proptest::collection::vec(event(), 1..120)) {
        let mut engine = engine();
        let (mut now, mut tickets, mut seen) = (0u32, 0u32, HashMap::new());
        for event in events {
            match event {
                Event::Packet { input, to, ticket, cut } => {
                    let (port, mut bytes) = match input {
                        0 => (VPORT, frame(to)),
                        1 => (Port::Uplink(1), wire(&frame(to))),
                        _ => (Port::Uplink(1), arp_reply()),
                    };
                    bytes.truncate(bytes.len() - cut.min(bytes.len()));
                    let reason = if input == 2 { Reason::Control } else { Reason::Miss };
                    tickets += u32::from(ticket);
                    engine.upcall(punted(port, reason, if ticket { tickets } else { 0 }, bytes), now);
                }
                Event::Arp => engine.upcall(punted(Port::Uplink(1), Reason::Control, 0, arp_reply()), now),
                Event::Tick => {
                    now += 1000;
                    engine.tick(now);
                }
                Event::Links(up) => engine.set_links(up, now),
                Event::Tables { tunnels: true } => engine.replace_tables(&tables(), now),
                Event::Tables { tunnels: false } => engine.replace_tables(&NicTables { tunnels: Vec::new(), ..tables() }, now),
            }
            count_tickets(engine.take_commands(), &mut seen);
        }
        engine.replace_tables(&NicTables::default(), now);
        count_tickets(engine.take_commands(), &mut seen);
        prop_assert_eq!(seen.len() as u32, tickets);
        prop_assert!(seen.values().all(|n| *n == 1));
    }
}
