//! A burst through the core: each half of the fast path runs over the whole burst, so that the prefetches between them
//! have time to arrive.

use culvert_flow::{Checksum, Datapath, FastKey, OuterInfo, Port, Source, Verdict};
use culvert_packet::Reason;

use super::packet::Packet;

/// Packets that go through the core together.
pub const BURST: usize = 32;

/// What the core says of each packet of a burst, in order.
pub(super) struct Verdicts {
    keyed: [Option<FastKey>; BURST],
    done: [(Verdict, OuterInfo); BURST],
}

impl Default for Verdicts {
    fn default() -> Self {
        let nothing = (Verdict::Wait, OuterInfo::default());
        Verdicts { keyed: [None; BURST], done: [nothing; BURST] }
    }
}

impl Verdicts {
    /// Takes `packets`, at most [`BURST`] of them, through the core in order. What the core would do with one after the
    /// other is what it does with all of them.
    #[inline]
    pub(super) fn of(
        &mut self,
        dp: &mut Datapath<'_>,
        packets: &mut [Packet],
        now: u32,
    ) -> &[(Verdict, OuterInfo)] {
        let n = packets.len().min(BURST);
        let (packets, keyed) = (&mut packets[..n], &mut self.keyed[..n]);
        for (packet, keyed) in packets.iter().zip(keyed.iter_mut()) {
            *keyed = match packet.input {
                Port::Vport(id) => dp.fast_key_outbound(packet.bytes(), id),
                Port::Uplink(_) => dp.fast_key_inbound(packet.bytes(), packet.checksum),
                Port::Host | Port::None => None,
            };
            if let Some(keyed) = keyed {
                dp.prefetch_bucket(keyed);
            }
        }
        for keyed in keyed.iter().flatten() {
            dp.prefetch_record(keyed);
        }
        for ((packet, keyed), done) in packets.iter_mut().zip(keyed.iter()).zip(&mut self.done) {
            *done = one(dp, packet, keyed.as_ref(), now);
        }
        &self.done[..n]
    }
}

#[inline(always)]
fn one(
    dp: &mut Datapath<'_>,
    packet: &mut Packet,
    keyed: Option<&FastKey>,
    now: u32,
) -> (Verdict, OuterInfo) {
    let input = packet.input;
    let forwarded = keyed.and_then(|keyed| {
        packet.edit(|frame| match input {
            Port::Vport(id) => dp.fast_apply_outbound(keyed, frame, id, now),
            _ => dp.fast_apply_inbound(keyed, frame, now).map(|(to, id)| (Port::Vport(to), id)),
        })?
    });
    if let Some((to, record)) = forwarded {
        return (Verdict::Forward { to, record, copy: false, capture: false }, OuterInfo::default());
    }
    verify(packet);
    let (source, number, mut punted) = (Source::Port(packet.checksum), packet.number(), None);
    let verdict = packet
        .edit(|frame| dp.process_pipeline(frame, input, source, number, now, &mut punted))
        .unwrap_or(Verdict::Drop { reason: Reason::BadDescriptor });
    (verdict, punted.map_or(OuterInfo::default(), |c| c.outer))
}

/// Verifies the outer UDP checksum of a packet from an uplink whose hardware has not.
#[cold]
fn verify(packet: &mut Packet) {
    if packet.checksum == Checksum::Unknown
        && let Port::Uplink(_) = packet.input
    {
        packet.checksum = Checksum::verify_outer(packet.bytes());
    }
}
