//! What not to say, and what to say instead.

/// A name that code must not have.
pub(super) struct Name {
    /// The name; with a `*` at its end, the beginning of names.
    name: &'static str,
    pub(super) say: &'static str,
    /// Where it is banned: the beginning of paths.
    within: &'static str,
}

impl Name {
    pub(super) fn forbids(&self, word: &str) -> bool {
        match self.name.strip_suffix('*') {
            Some(start) => word.starts_with(start),
            None => word == self.name,
        }
    }

    pub(super) fn applies_to(&self, file: &str) -> bool {
        file.starts_with(self.within)
    }
}

const fn name(name: &'static str, say: &'static str) -> Name {
    Name { name, say, within: "" }
}

const fn within(within: &'static str, name: &'static str, say: &'static str) -> Name {
    Name { name, say, within }
}

/// Names of code, files and folders.
pub(super) const NAMES: &[Name] = &[
    // The core.
    name("HotLine", "FlowHot"),
    name("ColdLine", "FlowCold"),
    name("line_out", "fast_outbound"),
    name("line_in", "fast_inbound"),
    name("process_by_stages", "process"),
    name("exception_full", "upcall_full"),
    name("Exception", "Upcall"),
    name("QUEUE_EXCEPTION*", "QUEUE_UPCALL"),
    name("Punted", "Upcall"),
    name("Station", "FdbEntry"),
    // The board and the driver.
    name("Bell", "Notifier"),
    name("show_offered", "doorbell"),
    name("may_forget", "is_volatile"),
    name("carry_out", "execute"),
    name("obey", "execute"),
    // The slow path and the switch.
    name("softpath*", "slowpath or switch"),
    name("SoftDatapath", "HostDatapath"),
    name("HostPart", "HostConfig"),
    within("host-driver/switch/src/", "settle", "apply or drain"),
    within("host-driver/slowpath/src/", "settle", "apply or drain"),
    within("host-driver/", "Step", "FlowCommand, PacketOut or Reinject"),
    within("host-driver/", "returned", "complete_upcall"),
    name("Giver", "Producer"),
    name("Taker", "Consumer"),
    name("payer", "charged_vport"),
    name("passing", "handoff"),
    name("crossing", "handoff"),
    name("Crossing", "Handoff"),
    name("Homes", "SteeringTable"),
    name("homes", "steering"),
    name("send_home", "return_to_owner"),
    within("host-driver/", "Way", "Egress or Direction"),
    name("AWAY", "Egress::Remote"),
    within("host-driver/", "Places", "PortTable"),
    within("host-driver/", "places", "port_table"),
    within("host-driver/", "Team", "WorkerSet"),
    within("host-driver/", "Hand", "WorkerHandle"),
    name("crowd", "idle_vports"),
    name("torn", "corrupt"),
    name("relay", "vmq_bridge"),
    name("Relay", "VmqBridge"),
    within("host-driver/", "Inbox", "ControlRx"),
    within("host-driver/", "Pair", "VmqPort"),
    name("SetSize", "SetVringNum"),
    name("SetPlaces", "SetVringAddr"),
    name("SetMemory", "SetMemTable"),
    name("is_heard", "may_poll"),
    name("hear", "handle_arp"),
    name("revive", "reopen_if_due"),
    name("retire", "destroy"),
    name("SOON", "RETRY_MS"),
    name("LOOKS", "MAX_POLLS"),
    name("SECOND", "AGING_INTERVAL_MS"),
    name("MOST_*", "MAX_..."),
    // Tests and benchmarks.
    name("weather", "fault_injection"),
    within("host-driver/", "World", "Testbed"),
    within("host-driver/", "cable", "port_bridge"),
    within("benches/", "ours", "culvert"),
    within("benches/", "theirs", "ovs_dpdk"),
    within("benches/", "turns", "interleave"),
];

/// Phrases, in any case, in code, comments and documents.
pub(super) const PHRASES: &[(&str, &str)] = &[
    ("straight line", "fast path"),
    ("hot line", "hot part, or FlowHot"),
    ("cold line", "cold part, or FlowCold"),
    ("software path", "switch, or software datapath"),
    ("exception packet", "upcall"),
    ("exception queue", "upcall queue"),
    ("exception share", "upcall share"),
    ("bad weather", "with injected faults"),
    ("any weather", "with injected faults"),
    ("odd file", "invalid descriptor"),
    ("to be had", "available"),
    ("there is not so much", "out of memory or file descriptors"),
    ("there is not that much", "out of memory or file descriptors"),
    ("or no descriptor", "out of memory or file descriptors"),
    ("so and so", "what is meant"),
    ("whose it is", "its owner"),
    ("what came in", "received frames"),
    ("somebody", "who it is"),
    ("is listened to", "is polled"),
    ("calls the memory", "prefetches"),
    ("calls memory", "prefetches"),
    ("no threads", "cannot start the runtime"),
    ("connections of before", "saved connections"),
    ("are not taken over", "are discarded"),
    ("find their way home", "return to their owner"),
];
