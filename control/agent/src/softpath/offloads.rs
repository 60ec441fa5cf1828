//! What the NIC does for the host, and what not and why.

use culvert_api::view::OffloadView;
use culvert_packet::Reason;

/// Done by the NIC, with what limits it.
const DONE: [(&str, &str); 9] = [
    ("sr-iov", ""),
    ("flow-forwarding", "the first packet of each connection is decided by the host"),
    ("acl", "decided with the first packet, then part of the flow"),
    ("routing", ""),
    ("vxlan", ""),
    ("nvgre", ""),
    ("broadcast-replication", "up to 60 copies; more are made by the host"),
    ("checksum", ""),
    ("vmq", ""),
];

/// Done by the host, and why.
const NOT_DONE: [(&str, Reason); 4] = [
    ("fragments", Reason::FragmentsNotOffloaded),
    ("ipv6-outer", Reason::Ipv6OuterNotOffloaded),
    ("nat", Reason::NatNotOffloaded),
    ("non-ip", Reason::NotIp),
];

fn view(feature: &str, offloaded: bool, reason: &str) -> OffloadView {
    OffloadView { feature: feature.to_owned(), offloaded, reason: reason.to_owned() }
}

/// Of the Culvert NIC.
pub(super) fn of_nic() -> Vec<OffloadView> {
    let done = DONE.iter().map(|(feature, limit)| view(feature, true, limit));
    let not = NOT_DONE.iter().map(|(feature, reason)| view(feature, false, reason.describe()));
    let segmentation =
        view("tcp-segmentation", false, "not offered: guests send segments that fit their MTU");
    done.chain(not).chain([segmentation]).collect()
}

/// Of an interface that the software path uses: it does all by itself.
pub(super) fn of_software() -> Vec<OffloadView> {
    let features =
        DONE.iter().map(|(feature, _)| feature).filter(|feature| !["sr-iov", "vmq"].contains(feature));
    features.map(|feature| view(feature, false, Reason::NoFlowOffload.describe())).collect()
}
