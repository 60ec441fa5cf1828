//! The engine with a scripted policy: order of commands, tickets, waiting for next hops, takeover of an uplink.

use culvert_offload::ControlCopy;
use culvert_packet::{VportId, parse_outer};

use super::fixture::*;
use super::*;

#[test]
fn a_policy_announces_addresses_and_resolves_next_hops() {
    let commands = engine().take_commands();
    let sent: Vec<_> = commands
        .iter()
        .map(|command| match command {
            FlowCommand::PacketOut(meta, Port::Uplink(n), frame) if meta.ticket.is_none() => {
                (*n, frame[38..42].to_vec())
            }
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [(0, vec![192, 168, 1, 10]), (1, vec![192, 168, 1, 11]), (1, GATEWAY.to_vec())];
    assert_eq!(sent, expected);
}

#[test]
fn records_come_before_the_packet_and_both_directions_together() {
    let mut engine = resolved();
    let packet = frame(REMOTE);
    engine.upcall(punted(VPORT, Reason::Miss, 5, packet.clone()), 2);
    let commands = engine.take_commands();
    let [FlowCommand::Insert(records), FlowCommand::Reinject(meta, sent, _)] = &commands[..] else {
        panic!("{commands:?}")
    };
    assert_eq!(records.len(), 2);
    assert_eq!((meta.ticket, meta.input, sent), (ticket(5), VPORT, &packet));
}

#[test]
fn flows_wait_for_their_next_hop_and_leave_in_order_behind_its_tunnel() {
    let mut engine = engine();
    engine.take_commands();
    for ticket in [5, 6, 5] {
        engine.upcall(punted(VPORT, Reason::Miss, ticket, frame(REMOTE)), 2);
    }
    assert_eq!(engine.take_commands(), vec![]);
    engine.upcall(punted(Port::Uplink(1), Reason::Control, 0, arp_reply()), 3);
    let commands = engine.take_commands();
    let Some(FlowCommand::SetTunnel(7, tunnel)) = commands.first() else { panic!("{commands:?}") };
    assert_eq!((tunnel.uplink, &tunnel.header[..6]), (1, &GATEWAY_MAC.0[..]));
    assert_eq!(tunnel.max_inner, 1600 - 36);
    let order: Vec<u32> = commands
        .iter()
        .filter_map(|s| match s {
            FlowCommand::Reinject(meta, _, _) => meta.ticket.map(|t| u32::from(t.slot)),
            _ => None,
        })
        .collect();
    assert_eq!(order, [5, 6, 5]);
}

#[test]
fn a_reverse_record_is_not_installed_before_its_next_hop_is_known() {
    let mut engine = engine();
    engine.take_commands();
    engine.upcall(punted(VPORT, Reason::Miss, 5, frame(LOCAL)), 2);
    let commands = engine.take_commands();
    let [FlowCommand::Insert(records), FlowCommand::Reinject(..)] = &commands[..] else {
        panic!("{commands:?}")
    };
    assert_eq!(records.len(), 1);
}

#[test]
fn packets_that_wait_for_a_silent_next_hop_are_dropped() {
    let mut engine = engine();
    engine.upcall(punted(VPORT, Reason::Miss, 5, frame(REMOTE)), 0);
    engine.take_commands();
    for second in 1..=6 {
        engine.tick(second * 1000);
    }
    let drops: Vec<_> =
        engine.take_commands().into_iter().filter(|s| matches!(s, FlowCommand::Dropped(..))).collect();
    let [FlowCommand::Dropped(meta, Reason::NextHopTimeout)] = &drops[..] else { panic!("{drops:?}") };
    assert_eq!(meta.ticket, ticket(5));
}

#[test]
fn without_a_ticket_nothing_is_installed() {
    let mut engine = resolved();
    engine.upcall(punted(VPORT, Reason::TableFull, 0, frame(REMOTE)), 2);
    let commands = engine.take_commands();
    let [FlowCommand::PacketOut(meta, Port::Uplink(1), sent)] = &commands[..] else { panic!("{commands:?}") };
    assert_eq!(meta.ticket, None);
    let outer = parse_outer(sent).expect("valid").expect("encapsulated");
    assert_eq!((outer.vsid, &sent[usize::from(outer.inner)..]), (5001, &frame(REMOTE)[..]));
}

#[test]
fn a_flow_that_is_not_offloaded_is_forwarded_with_its_ticket() {
    let mut engine = resolved();
    engine.upcall(punted(VPORT, Reason::Miss, 5, frame(KEPT)), 2);
    let commands = engine.take_commands();
    let [FlowCommand::PacketOut(meta, Port::Vport(VportId(9)), _)] = &commands[..] else {
        panic!("{commands:?}")
    };
    assert_eq!(meta.ticket, ticket(5));
}

#[test]
fn replies_and_drops_return_their_tickets() {
    let mut engine = resolved();
    engine.upcall(punted(VPORT, Reason::Miss, 5, frame(ANSWERED)), 2);
    engine.upcall(punted(VPORT, Reason::Miss, 6, frame(DENIED)), 2);
    let commands = engine.take_commands();
    let [FlowCommand::PacketOut(answer, VPORT, _), FlowCommand::Dropped(denied, Reason::AclDeny)] =
        &commands[..]
    else {
        panic!("{commands:?}")
    };
    assert_eq!((answer.ticket, denied.ticket), (ticket(5), ticket(6)));
}

#[test]
fn a_copy_of_a_tcp_segment_only_updates_the_connection() {
    let mut engine = resolved();
    let mut copy = punted(VPORT, Reason::TcpControl, 0, frame(REMOTE));
    copy.meta.copy = Some(ControlCopy { connection: 42, outer_len: 0 });
    engine.upcall(copy, 2);
    assert_eq!(engine.take_commands(), vec![]);
    assert_eq!(engine.policy().controls, [42]);
}

#[test]
fn the_address_of_a_failed_uplink_moves_with_its_tunnels() {
    let mut engine = resolved();
    engine.set_links([true, false], 10);
    let commands = engine.take_commands();
    let Some(FlowCommand::PacketOut(_, Port::Uplink(0), announcement)) = commands.first() else {
        panic!("{commands:?}")
    };
    assert_eq!(announcement[6..12], [2, 0, 0, 0, 0, 0x11]);
    assert_eq!(
        (&announcement[28..32], &announcement[38..42]),
        (&[192, 168, 1, 11][..], &[192, 168, 1, 11][..])
    );
    let moved = |commands: &[FlowCommand]| {
        commands.iter().find_map(|s| match s {
            FlowCommand::SetTunnel(7, t) => Some(t.uplink),
            _ => None,
        })
    };
    assert_eq!(moved(&commands), Some(0));
    engine.set_links([true, true], 20);
    assert_eq!(moved(&engine.take_commands()), Some(1));
}

#[test]
fn a_tunnel_that_the_policy_no_longer_has_is_removed() {
    let mut engine = resolved();
    engine.replace_tables(&NicTables { tunnels: Vec::new(), ..tables() }, 5);
    let commands = engine.take_commands();
    let [FlowCommand::SetTunnel(7, tunnel)] = &commands[..] else { panic!("{commands:?}") };
    assert_eq!(tunnel.encap, 0);
    engine.upcall(punted(VPORT, Reason::Miss, 5, frame(REMOTE)), 6);
    let commands = engine.take_commands();
    assert!(matches!(commands[..], [FlowCommand::Dropped(_, Reason::GroupMissing)]), "{commands:?}");
}
