//! What a trace says of a packet that is too long for a tunnel or for an uplink's interface.

use culvert_api::view::{TraceReply, Verdict};
use culvert_flow::Port;
use culvert_packet::Reason;
use culvert_policy::Decision;
use culvert_policy::snapshot::Snapshot;
use culvert_slowpath::{ForwardOutcome, PacketTrace};

use super::conditions::Conditions;
use super::host_watch::tunnel_limit;

/// Makes a packet that would be dropped for its length a drop, with the place and the limit.
pub(super) fn explain(
    traced: &PacketTrace,
    snapshot: &Snapshot,
    conditions: &Conditions,
    reply: &mut TraceReply,
) {
    let Ok(Decision::Forward(forward)) = &traced.decision else { return };
    match &traced.outcome {
        ForwardOutcome::Drop(Reason::MtuExceeded) => {
            let limit = tunnel_limit(snapshot, forward.record.hot.tunnel).unwrap_or_default();
            reply.reason = format!("{}: {limit}", Reason::MtuExceeded.as_str());
            reply.verdict = Verdict::Drop;
        }
        ForwardOutcome::Send(frames) => {
            let refused = frames.iter().find_map(|(port, frame)| too_long(*port, frame, conditions));
            if let Some(why) = refused {
                reply.reason = format!("{}: {why}", Reason::TooLong.as_str());
                // The other copies of a broadcast leave.
                if frames.len() == 1 {
                    reply.verdict = Verdict::Drop;
                    (reply.outputs, reply.frame) = Default::default();
                }
            }
        }
        ForwardOutcome::Drop(_) => {}
    }
}

fn too_long(port: Port, frame: &[u8], conditions: &Conditions) -> Option<String> {
    let Port::Uplink(n) = port else { return None };
    let uplink = conditions.uplinks.get(&n)?;
    let mtu = uplink.mtu?;
    // The MTU counts neither the Ethernet header nor a VLAN tag.
    let tag = if matches!(frame.get(12..14), Some([0x81, 0] | [0x88, 0xa8])) { 4 } else { 0 };
    let len = frame.len().saturating_sub(14 + tag) as u32;
    let name = &uplink.interface;
    (len > mtu).then(|| {
        format!(
            "with its outer headers it has {len} bytes, and the interface {name} of uplink {n} sends at most {mtu} (its MTU)"
        )
    })
}
