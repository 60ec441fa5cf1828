//! One packet through the data path: the fast path, and the pipeline behind it (parse, key, hash, probe, apply).
//!
//! Engines that work on bursts call the two halves of the fast path over the whole burst and then the pipeline for each
//! packet that is left; they do not rewrite either.

use culvert_packet::{Fragment, Reason, VportId};

use crate::classify::Classified;
use crate::datapath::Datapath;
use crate::frame::Frame;
use crate::outer::Checksum;
use crate::pending::{BufferId, Ticket};
use crate::port::Port;
use crate::record::{Direction, FlowKey};
use crate::table::RecordId;
use crate::verdict::Verdict;

/// Where a packet comes from.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// A port, which has just received it.
    Port(Checksum),
    /// The host, which re-injects a punted packet: it takes the record of its flow.
    Reinjected {
        /// The pending flow that it was punted for.
        ticket: Option<Ticket>,
        /// Its classification, where the host still has it: it is then not parsed again. The frame must be unchanged.
        classified: Option<&'a Classified>,
    },
    /// The waiting list of a pending flow that is decided now.
    Pended {
        /// The flow's record.
        record: RecordId,
        /// What was known of the packet's checksum when it came.
        checksum: Checksum,
    },
}

/// What the flow table says of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Probe {
    /// A live record of the current generation.
    Hit(RecordId),
    /// A live record of an older generation.
    Stale(RecordId),
    /// The host is deciding; the number of the pending flow.
    Pending(u16),
    /// No record.
    Miss,
}

impl Datapath<'_> {
    /// Processes one packet, which lies in `buffer`: the fast path, then the pipeline. Counts drops; the engine counts
    /// everything else when it is done. For a [`Verdict::Punt`], `punted` becomes the packet's classification, or `None` if
    /// it has no flow key; for other verdicts `punted` means nothing.
    #[inline(always)]
    pub fn process(
        &mut self,
        frame: &mut Frame<'_>,
        input: Port,
        source: Source<'_>,
        buffer: BufferId,
        now: u32,
        punted: &mut Option<Classified>,
    ) -> Verdict {
        let forwarded = match (source, input) {
            (Source::Port(_), Port::Vport(id)) => self.fast_outbound(frame, id, now),
            (Source::Port(checksum), Port::Uplink(_)) => {
                self.fast_inbound(frame, checksum, now).map(|(id, record)| (Port::Vport(id), record))
            }
            _ => None,
        };
        match forwarded {
            Some((to, record)) => Verdict::Forward { to, record, copy: false, capture: false },
            None => self.process_pipeline(frame, input, source, buffer, now, punted),
        }
    }

    /// Processes one packet as [`process`](Self::process) does, without the fast path.
    #[inline(never)]
    pub fn process_pipeline(
        &mut self,
        frame: &mut Frame<'_>,
        input: Port,
        source: Source<'_>,
        buffer: BufferId,
        now: u32,
        punted: &mut Option<Classified>,
    ) -> Verdict {
        let classified = match source {
            Source::Port(checksum) | Source::Pended { checksum, .. } => {
                self.classify(frame.bytes(), input, checksum)
            }
            Source::Reinjected { classified: Some(known), .. } => self.classify_again(known, input),
            Source::Reinjected { .. } => self.classify(frame.bytes(), input, Checksum::Unknown),
        };
        let c = match classified {
            Ok(c) => c,
            Err(verdict) => {
                *punted = None;
                return self.without_key(verdict, frame, input, source);
            }
        };
        let verdict = match self.lookup(&c.key, source) {
            Ok(id) => self.apply(id, frame, &c, now),
            Err((probe, hash)) => self.not_live(probe, &c, hash, buffer, now),
        };
        match verdict {
            Verdict::Drop { reason } => self.count_drop(reason, input),
            Verdict::Punt { .. } => *punted = Some(c),
            _ => {}
        }
        verdict
    }

    /// The record that serves a packet: the one of its pending flow, or what the table has for its key.
    ///
    /// # Errors
    /// No record serves it: what the table says, and the key's hash.
    #[inline(always)]
    fn lookup(&self, key: &FlowKey, source: Source<'_>) -> Result<RecordId, (Probe, u64)> {
        match source {
            Source::Pended { record, .. } => return Ok(record),
            Source::Reinjected { ticket: Some(ticket), .. } => {
                if let Some(id) = self.pending.decided(ticket).filter(|&id| self.table.key(id) == key) {
                    return Ok(id);
                }
            }
            Source::Port(_) | Source::Reinjected { ticket: None, .. } => {}
        }
        let hash = self.table.hash(key);
        match self.probe(key, hash) {
            Probe::Hit(id) => Ok(id),
            other => Err((other, hash)),
        }
    }

    /// Looks a key up: its record, and whether that is live and of the current generations.
    #[inline(always)]
    pub fn probe(&self, key: &FlowKey, hash: u64) -> Probe {
        let Some(id) = self.table.find(key, hash) else { return Probe::Miss };
        let hot = self.table.hot(id);
        if hot.pending != 0 {
            return Probe::Pending(hot.pending - 1);
        }
        let generation = |port: Port| match port {
            Port::Vport(VportId(n)) => self.vports.get(usize::from(n)).map_or(0, |v| v.generation),
            _ => 0,
        };
        let outbound = key.direction == Direction::Outbound as u8;
        let fresh = self.map_cells.get(usize::from(hot.map_cell)).is_some_and(|&g| g == hot.gen_map)
            && (!outbound || generation(Port::from_bits(key.source)) == hot.gen_src)
            && generation(hot.out()) == hot.gen_dst;
        if fresh { Probe::Hit(id) } else { Probe::Stale(id) }
    }

    /// The verdict on a packet that has no flow key. Requests for our provider addresses are answered here.
    #[cold]
    fn without_key(
        &mut self,
        verdict: Verdict,
        frame: &mut Frame<'_>,
        input: Port,
        source: Source<'_>,
    ) -> Verdict {
        match (verdict, source, input) {
            (Verdict::Punt { reason: Reason::Control, .. }, Source::Port(_), Port::Uplink(uplink))
                if self.answer_arp(frame, uplink) =>
            {
                return Verdict::Answer;
            }
            (Verdict::Drop { reason }, ..) => self.count_drop(reason, input),
            _ => {}
        }
        verdict
    }

    /// The verdict on a packet whose flow has no record that may serve it.
    #[cold]
    fn not_live(&mut self, probe: Probe, c: &Classified, hash: u64, buffer: BufferId, now: u32) -> Verdict {
        if c.headers.fragment != Fragment::None {
            return Verdict::Punt { reason: Reason::Fragment, ticket: None };
        }
        let (opened, reason) = match probe {
            Probe::Pending(slot) => match self.pending.ticket(slot) {
                Some(ticket) => (Ok(ticket), Reason::Pending),
                None if self.pending.wait(slot, buffer) => return Verdict::Wait,
                None => return Verdict::Drop { reason: Reason::PendingOverflow },
            },
            Probe::Stale(id) => (self.reopen(id), Reason::Stale),
            Probe::Miss | Probe::Hit(_) => (self.open(&c.key, hash, now), Reason::Miss),
        };
        match opened {
            Ok(ticket) => Verdict::Punt { reason, ticket: Some(ticket) },
            Err(refused) => Verdict::Punt { reason: refused.0, ticket: None },
        }
    }
}
