//! Shadow of the firmware's configuration: what the host has sent, kept by the board. A restarted firmware gets it again at
//! once, also while no daemon runs. The dead firmware's own memory is not trusted.

use std::collections::{BTreeMap, HashMap, VecDeque};

use culvert_abi::command::{CellWrite, Op, VmqFilter};
use culvert_abi::pf::MAX_PAYLOAD;
use culvert_abi::regs::{MBOX_WORDS, mailbox};
use culvert_abi::{FlowKey, FlowRecord, Peer};
use zerocopy::{FromBytes, IntoBytes};

const KEY: usize = size_of::<FlowKey>();
const RECORD: usize = size_of::<FlowRecord>();
/// Records kept at most. The oldest go first; their connections come back with their next packet.
const RECORDS: usize = 1 << 19;

/// A command with its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) op: Op,
    pub(super) arg0: u32,
    pub(super) payload: Vec<u8>,
}

/// The host's mail and commands.
#[derive(Default)]
pub(super) struct Shadow {
    configure: Option<[u32; MBOX_WORDS]>,
    /// The driver has said START.
    started: bool,
    /// Tunnels, groups, vports by index; local addresses and filters under index 0.
    entries: BTreeMap<(u8, u32), Vec<u8>>,
    peers: BTreeMap<[u8; 16], Peer>,
    cells: HashMap<u32, u32>,
    records: HashMap<[u8; KEY], ([u8; RECORD], u64)>,
    order: VecDeque<([u8; KEY], u64)>,
    sequence: u64,
}

fn items<T: FromBytes>(payload: &[u8]) -> impl Iterator<Item = T> + '_ {
    payload.chunks_exact(size_of::<T>()).filter_map(|c| T::read_from_bytes(c).ok())
}

impl Shadow {
    /// Notes a request of the host in the mailbox.
    pub(super) fn mail(&mut self, request: &[u32; MBOX_WORDS]) {
        match request[0] {
            mailbox::CONFIGURE => {
                // As in the firmware: its tables stay, its flows go.
                self.configure = Some(*request);
                self.records.clear();
                self.order.clear();
            }
            mailbox::START => self.started = true,
            _ => {}
        }
    }

    /// Whether the driver has said START.
    pub(super) fn is_started(&self) -> bool {
        self.started
    }

    /// Notes a command of the host.
    pub(super) fn command(&mut self, op: Op, arg0: u32, payload: &[u8]) {
        match op {
            Op::TunnelSet | Op::GroupSet | Op::VportSet => {
                self.entries.insert((op as u8, arg0 & 0xffff), payload.to_vec());
            }
            Op::LocalSet | Op::VmqFilters => {
                self.entries.insert((op as u8, 0), payload.to_vec());
            }
            Op::PeersSet => {
                if arg0 == 1 {
                    self.peers.clear();
                }
                // As many as the firmware has room for.
                for peer in items::<Peer>(payload) {
                    if self.peers.len() < 8192 {
                        self.peers.insert(peer.addr, peer);
                    }
                }
            }
            Op::CellsSet => {
                let writes = items::<CellWrite>(payload).filter(|w| w.cell < CellWrite::VPORT * 2);
                self.cells.extend(writes.map(|w| (w.cell, w.value)));
            }
            Op::FlowInsert => {
                for record in payload.chunks_exact(RECORD) {
                    self.insert(record);
                }
            }
            Op::FlowDelete => {
                for key in payload.chunks_exact(KEY).filter_map(|k| <[u8; KEY]>::try_from(k).ok()) {
                    self.records.remove(&key);
                }
            }
            Op::FlowClear => {
                self.records.clear();
                self.order.clear();
            }
            _ => {}
        }
    }

    fn insert(&mut self, record: &[u8]) {
        let Ok(record) = <[u8; RECORD]>::try_from(record) else { return };
        let Some(key) = record.first_chunk::<KEY>().copied() else { return };
        self.sequence += 1;
        self.records.insert(key, (record, self.sequence));
        self.order.push_back((key, self.sequence));
        // An entry of the order counts only if the record has not been inserted again or deleted since.
        while self.records.len() > RECORDS || self.order.len() > 2 * RECORDS.max(self.records.len()) {
            let Some((key, sequence)) = self.order.pop_front() else { break };
            if self.records.get(&key).is_some_and(|(_, s)| *s == sequence) {
                self.records.remove(&key);
            }
        }
    }

    /// The CONFIGURE that begins a replay. `None` before the driver has said START: it configures a new firmware itself.
    pub(super) fn configure(&self) -> Option<[u32; MBOX_WORDS]> {
        self.configure.filter(|_| self.started)
    }

    /// All of it as commands, in an order in which each can rely on those before.
    pub(super) fn replay(&self) -> VecDeque<Command> {
        let mut all = VecDeque::new();
        for (&(op, arg0), payload) in &self.entries {
            if let Some(op) = Op::from_u8(op) {
                all.push_back(Command { op, arg0, payload: payload.clone() });
            }
        }
        let mut batch = |op: Op, items: &mut dyn Iterator<Item = Vec<u8>>| {
            let mut payload = Vec::new();
            for item in items {
                if payload.len() + item.len() > MAX_PAYLOAD as usize {
                    all.push_back(Command { op, arg0: 0, payload: std::mem::take(&mut payload) });
                }
                payload.extend(item);
            }
            if !payload.is_empty() {
                all.push_back(Command { op, arg0: 0, payload });
            }
        };
        batch(Op::PeersSet, &mut self.peers.values().map(|p| p.as_bytes().to_vec()));
        let cell = |(&cell, &value): (&u32, &u32)| CellWrite { cell, value }.as_bytes().to_vec();
        batch(Op::CellsSet, &mut self.cells.iter().map(cell));
        batch(Op::FlowInsert, &mut self.records.values().map(|(record, _)| record.to_vec()));
        all
    }
}

const _: () = assert!(size_of::<VmqFilter>() == 16 && MAX_PAYLOAD as usize >= RECORD);

#[cfg(test)]
mod tests {
    use super::*;

    fn record(n: u32) -> FlowRecord {
        let mut record = FlowRecord::default();
        record.key.direction = 1;
        record.key.vsid = n;
        record
    }

    #[test]
    fn what_is_replayed_is_what_the_host_said_last() {
        let mut shadow = Shadow::default();
        shadow.command(Op::TunnelSet, 3, &[1; 128]);
        shadow.command(Op::TunnelSet, 3, &[2; 128]);
        shadow.command(Op::CellsSet, 0, CellWrite { cell: 7, value: 1 }.as_bytes());
        shadow.command(Op::CellsSet, 0, CellWrite { cell: 7, value: 2 }.as_bytes());
        shadow.command(Op::FlowInsert, 0, [record(1), record(2)].as_bytes());
        shadow.command(Op::FlowDelete, 0, record(1).key.as_bytes());
        let replay = Vec::from(shadow.replay());
        assert_eq!(replay[0], Command { op: Op::TunnelSet, arg0: 3, payload: vec![2; 128] });
        assert_eq!(replay[1].payload, CellWrite { cell: 7, value: 2 }.as_bytes());
        assert_eq!(replay[2].payload, record(2).as_bytes());
        assert_eq!(replay.len(), 3);
    }

    #[test]
    fn a_new_configuration_forgets_the_flows_and_keeps_the_tables() {
        let mut shadow = Shadow::default();
        shadow.command(Op::LocalSet, 0, &[1; 24]);
        shadow.command(Op::FlowInsert, 0, record(1).as_bytes());
        let mut request = [0; MBOX_WORDS];
        request[0] = mailbox::CONFIGURE;
        shadow.mail(&request);
        let replay = Vec::from(shadow.replay());
        assert_eq!(replay, [Command { op: Op::LocalSet, arg0: 0, payload: vec![1; 24] }]);
        // The driver is still about to configure this firmware.
        assert_eq!(shadow.configure(), None);
        let mut start = [0; MBOX_WORDS];
        start[0] = mailbox::START;
        shadow.mail(&start);
        assert_eq!(shadow.configure(), Some(request));
        shadow.mail(&request);
        assert_eq!(shadow.configure(), Some(request));
    }
}
