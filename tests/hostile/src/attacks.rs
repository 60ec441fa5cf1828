//! The attacks, in a table. Each is a function that gets a [`Place`] and returns what it saw.

pub mod connections;
pub mod dma_messages;
pub mod eventfds;
pub mod floods;
pub mod frames;
pub mod memories;
pub mod messages;
pub mod resets;
pub mod rings;

use std::io;

use crate::place::Place;
use crate::target::Target;

/// How an attack's process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// By itself, when its time is over.
    Ends,
    /// Killed in the middle.
    Killed,
    /// Stopped for its time, then killed.
    Stopped,
}

/// An attack.
pub struct Attack {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub what: &'static str,
    /// What it can attack.
    pub on: &'static [Target],
    /// How its process ends.
    pub fate: Fate,
    /// Does it; what was to be seen. An error once the place [has begun](Place::has_begun) is the target's answer.
    pub act: fn(&Place) -> io::Result<String>,
}

const ALL: &[Target] = &[Target::Vf, Target::Vmq, Target::Switch];
const VF: &[Target] = &[Target::Vf];
const VHOST: &[Target] = &[Target::Vmq, Target::Switch];

const fn attack(
    name: &'static str,
    on: &'static [Target],
    act: fn(&Place) -> io::Result<String>,
    what: &'static str,
) -> Attack {
    Attack { name, what, on, fate: Fate::Ends, act }
}

/// All attacks, in the order in which they are made.
pub const ATTACKS: &[Attack] = &[
    // Rings and descriptors.
    attack("random-descriptors", ALL, rings::random_descriptors, "random descriptors under traffic"),
    attack("loops", ALL, rings::loops, "chains without an end"),
    attack("nested-tables", ALL, rings::nested_tables, "tables of descriptors in tables"),
    attack(
        "empty-descriptors",
        ALL,
        rings::empty_descriptors,
        "descriptors of no bytes, alone and in chains",
    ),
    attack(
        "huge-lengths",
        ALL,
        rings::huge_lengths,
        "descriptors of 4 GiB, and that end beyond all addresses",
    ),
    attack("unmapped-addresses", ALL, rings::unmapped_addresses, "buffers where no memory is"),
    attack("index-jumps", ALL, rings::index_jumps, "an available index that jumps"),
    attack("heads-beyond", ALL, rings::heads_beyond, "chains that begin beyond the table"),
    attack("overlapping-rings", ALL, rings::overlapping_rings, "a used ring over the descriptor table"),
    attack("strange-sizes", ALL, rings::strange_sizes, "rings of 0, 3, 255, 32,769 descriptors"),
    attack("changing-rings", ALL, rings::changing_rings, "rings that change while they are read"),
    attack(
        "writable-transmit",
        ALL,
        rings::writable_transmit,
        "transmit buffers to be written, receive buffers to be read",
    ),
    attack(
        "no-receive-buffers",
        ALL,
        rings::no_receive_buffers,
        "a receive ring that stays empty, while frames come",
    ),
    // Work.
    attack("longest-chains", ALL, floods::longest_chains, "frames in 256 descriptors each"),
    attack("tiny-segments", ALL, floods::tiny_segments, "frames of 60 KB to be cut into segments of 8 bytes"),
    attack("new-flows", ALL, floods::new_flows, "each frame a new flow"),
    attack("syn-flood", ALL, floods::syn_flood, "each frame a new TCP connection"),
    attack("broadcast-flood", ALL, floods::broadcast_flood, "broadcast frames as fast as they go"),
    attack("arp-flood", ALL, floods::arp_flood, "ARP requests as fast as they go"),
    attack("kick-flood", ALL, floods::kick_flood, "kicks without work"),
    attack("random-frames", ALL, frames::random_frames, "frames of random bytes and lengths"),
    attack("random-headers", ALL, frames::random_headers, "random virtio headers before good frames"),
    // Eventfds.
    attack("full-calls", ALL, eventfds::full_calls, "interrupt eventfds that are full and block"),
    attack(
        "emptied-calls",
        ALL,
        eventfds::emptied_calls,
        "interrupt eventfds that are filled and emptied in a race",
    ),
    attack("pipe-calls", ALL, eventfds::pipe_calls, "interrupts that are full pipes and sockets"),
    attack("closed-calls", ALL, eventfds::closed_calls, "interrupts whose reader is gone"),
    attack("other-calls", ALL, eventfds::other_calls, "interrupts that are files, epolls, timers, folders"),
    attack(
        "other-kicks",
        VHOST,
        eventfds::other_kicks,
        "kicks that are files, epolls, timers, pipes, or always readable",
    ),
    // Memory.
    attack("fuse", ALL, memories::fuse, "memory in a file system that does not answer"),
    attack("deaf-fuse", ALL, memories::deaf_fuse, "memory in a file system that answers nothing at all"),
    attack("fuse-ring", ALL, memories::fuse_ring, "rings in a file system that does not answer, under kicks"),
    attack(
        "odd-files",
        ALL,
        memories::odd_files,
        "memory that is a folder, device, pipe, read-only or empty file",
    ),
    attack("sparse-files", ALL, memories::sparse_files, "memory files of up to 64 TiB"),
    attack("many-maps", ALL, memories::many_maps, "more maps than anybody needs"),
    attack(
        "overlapping-maps",
        ALL,
        memories::overlapping_maps,
        "maps that overlap, and end beyond all addresses",
    ),
    attack("shrinking", ALL, memories::shrinking, "memory that shrinks under traffic"),
    attack("growing", ALL, memories::growing, "memory that shrinks and grows under traffic"),
    attack("punched", ALL, memories::punched, "memory that loses its pages under traffic"),
    attack("remapped", ALL, memories::remapped, "memory that is mapped again and again under traffic"),
    // Messages by which a VF reads memory that it cannot map.
    attack(
        "unanswered-reads",
        VF,
        dma_messages::unanswered,
        "reads of memory by message that are never answered",
    ),
    attack("slow-reads", VF, dma_messages::slow, "reads that are answered after 200 ms each"),
    attack(
        "wrong-reads",
        VF,
        dma_messages::wrong,
        "reads that are answered with wrong lengths, ids, errors, or twice",
    ),
    attack("unmap-while-reading", VF, dma_messages::unmap_while_reading, "DMA_UNMAP while a read waits"),
    // Connections and messages.
    attack("silence", ALL, connections::silence, "a connection without a word"),
    attack("half-message", ALL, connections::half_message, "half a message, and a header that promises more"),
    attack("byte-by-byte", ALL, connections::byte_by_byte, "messages in single bytes"),
    attack("never-reads", ALL, connections::never_reads, "requests whose replies are never read"),
    attack(
        "leaves-at-each-step",
        ALL,
        connections::leaves_at_each_step,
        "a VMM that leaves at each step of its start",
    ),
    attack("connect-flood", ALL, connections::connect_flood, "1,000 connections, and 100 that stay"),
    attack(
        "descriptor-flood",
        ALL,
        connections::descriptor_flood,
        "all the file descriptors that messages can carry",
    ),
    attack(
        "random-messages",
        ALL,
        messages::random_messages,
        "messages of random commands and fields, under traffic",
    ),
    attack(
        "random-regions",
        VF,
        messages::random_regions,
        "reads and writes of all regions at random offsets",
    ),
    // Resets and settings.
    attack(
        "reset-in-traffic",
        ALL,
        resets::reset_in_traffic,
        "resets and GET_VRING_BASE in the middle of bursts",
    ),
    attack("on-and-off", ALL, resets::on_and_off, "queues that are enabled and disabled in a loop"),
    attack("other-features", ALL, resets::other_features, "features that change under traffic"),
    attack(
        "control-flood",
        VF,
        resets::control_flood,
        "filter tables and huge commands on the control queue",
    ),
    Attack {
        name: "killed",
        what: "a VMM that is killed in the middle of a burst",
        on: ALL,
        fate: Fate::Killed,
        act: floods::burst_until_killed,
    },
    Attack {
        name: "stopped",
        what: "a VMM that is stopped in the middle of a burst, and killed later",
        on: ALL,
        fate: Fate::Stopped,
        act: floods::burst_until_killed,
    },
];

/// The attack of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Attack> {
    ATTACKS.iter().find(|attack| attack.name == name)
}
