//! The offloads that a backend has, and why it lacks the others.

use culvert_api::view::OffloadView;
use culvert_packet::Reason;

/// Offloads of the Culvert NIC, and their limits.
const OFFLOADED: [(&str, &str); 9] = [
    ("sr-iov", ""),
    ("flow-forwarding", "the host decides on the first packet of each connection"),
    ("acl", "decided with the first packet, then part of the flow record"),
    ("routing", ""),
    ("vxlan", ""),
    ("nvgre", ""),
    ("broadcast-replication", "up to 60 copies; the host makes more"),
    ("checksum", ""),
    ("vmq", ""),
];

/// What the Culvert NIC leaves to the host, and why.
const NOT_OFFLOADED: [(&str, Reason); 4] = [
    ("fragments", Reason::FragmentsNotOffloaded),
    ("ipv6-outer", Reason::Ipv6OuterNotOffloaded),
    ("nat", Reason::NatNotOffloaded),
    ("non-ip", Reason::NotIp),
];

fn view(feature: &str, offloaded: bool, reason: &str) -> OffloadView {
    OffloadView { feature: feature.to_owned(), offloaded, reason: reason.to_owned() }
}

/// Of the Culvert NIC.
pub(super) fn nic() -> Vec<OffloadView> {
    let done = OFFLOADED.iter().map(|(feature, limit)| view(feature, true, limit));
    let not = NOT_OFFLOADED.iter().map(|(feature, reason)| view(feature, false, reason.describe()));
    let segmentation =
        view("tcp-segmentation", false, "not offered: guests send segments that fit their MTU");
    done.chain(not).chain([segmentation]).collect()
}

/// Of the switch: it does everything itself.
pub(super) fn switch() -> Vec<OffloadView> {
    let features =
        OFFLOADED.iter().map(|(feature, _)| feature).filter(|feature| !["sr-iov", "vmq"].contains(feature));
    features.map(|feature| view(feature, false, Reason::NoFlowOffload.describe())).collect()
}
