//! The core's fast path over a burst: each half runs over all packets, so that prefetched memory arrives meanwhile.

use culvert_flow::{Checksum, Classified, Datapath, FastKey, Port, Source, Verdict};
use culvert_packet::Reason;

use crate::packet::Packet;
use crate::pended::PendedPackets;
use crate::steering::SteeringTable;

/// Packets of a burst.
pub const BURST: usize = 32;

/// Scratch memory of a burst, in the order of its packets.
pub(super) struct BurstPipeline {
    keyed: [Option<FastKey>; BURST],
    verdicts: [Verdict; BURST],
    /// The parsed packets whose verdict is to punt them. Means nothing for other verdicts.
    punted: [Option<Classified>; BURST],
}

impl Default for BurstPipeline {
    fn default() -> Self {
        BurstPipeline { keyed: [None; BURST], verdicts: [Verdict::Wait; BURST], punted: [None; BURST] }
    }
}

impl BurstPipeline {
    /// Runs `packets`, at most [`BURST`], through the core in order.
    #[inline]
    pub(super) fn run(
        &mut self,
        dp: &mut Datapath<'_>,
        packets: &mut [Packet],
        now: u32,
        pended: &mut PendedPackets,
        steering: &SteeringTable,
    ) {
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
        let results = self.verdicts.iter_mut().zip(&mut self.punted);
        for ((packet, keyed), (verdict, punted)) in packets.iter_mut().zip(keyed.iter()).zip(results) {
            *verdict = fast_path(dp, packet, keyed.as_ref(), now).unwrap_or_else(|| {
                packet.number = pended.next_number(|| steering.charged_vport(packet));
                let verdict = pipeline(dp, packet, now, punted);
                if verdict == Verdict::Wait {
                    pended.reserve();
                }
                verdict
            });
        }
    }

    /// The verdict on packet `n` of the last run, as the core gives it for one packet after the other, and the parsed packet
    /// if it is punted.
    #[inline(always)]
    pub(super) fn verdict(&self, n: usize) -> (Verdict, Option<&Classified>) {
        (self.verdicts[n], self.punted[n].as_ref())
    }
}

#[inline(always)]
fn fast_path(
    dp: &mut Datapath<'_>,
    packet: &mut Packet,
    keyed: Option<&FastKey>,
    now: u32,
) -> Option<Verdict> {
    let (keyed, input) = (keyed?, packet.input);
    let (to, record) = packet.edit(|frame| match input {
        Port::Vport(id) => dp.fast_apply_outbound(keyed, frame, id, now),
        _ => dp.fast_apply_inbound(keyed, frame, now).map(|(to, id)| (Port::Vport(to), id)),
    })??;
    Some(Verdict::Forward { to, record, copy: false, capture: false })
}

fn pipeline(
    dp: &mut Datapath<'_>,
    packet: &mut Packet,
    now: u32,
    punted: &mut Option<Classified>,
) -> Verdict {
    verify_outer_checksum(packet);
    let (input, source, number) = (packet.input, Source::Port(packet.checksum), packet.number);
    packet
        .edit(|frame| dp.process_pipeline(frame, input, source, number, now, punted))
        .unwrap_or(Verdict::Drop { reason: Reason::BadDescriptor })
}

/// Verifies the outer UDP checksum of a packet from an uplink whose hardware has not.
#[cold]
fn verify_outer_checksum(packet: &mut Packet) {
    if packet.checksum == Checksum::Unknown
        && let Port::Uplink(_) = packet.input
    {
        packet.checksum = Checksum::verify_outer(packet.bytes());
    }
}
