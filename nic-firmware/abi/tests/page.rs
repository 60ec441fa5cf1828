//! `docs/nic-abi.md` against the code: every number on the page is the code's, and every number of the code is there.
//! the page.

#![expect(
    clippy::cast_lossless,
    reason = "constants of every width and variants of enums are compared as 64 bits"
)]

use std::collections::BTreeMap;
use std::fmt;

use culvert_abi::{
    FlowCold, FlowHot, FlowKey, FlowRecord, Group, Peer, Tunnel, VERSION, Vport, command, image, pci, pf,
    regs, soc,
};
use culvert_flow as flow;
use zerocopy::FromZeros;

const PAGE: &str = include_str!("../../../docs/nic-abi.md");
/// Modules whose public numbers are all to be on the page.
const SOURCES: [(&str, &str); 8] = [
    ("", include_str!("../src/lib.rs")),
    ("command", include_str!("../src/command.rs")),
    ("image", include_str!("../src/image.rs")),
    ("pci", include_str!("../src/pci.rs")),
    ("pf", include_str!("../src/offload.rs")),
    ("pf", include_str!("../src/pf.rs")),
    ("regs", include_str!("../src/regs.rs")),
    ("soc", include_str!("../src/soc.rs")),
];

/// What code or page say of a name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fact {
    Value(u64),
    Field { offset: u64, size: u64 },
    Size(u64),
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fact::Value(value) => write!(f, "{value} ({value:#x})"),
            Fact::Field { offset, size } => write!(f, "{size} bytes at offset {offset}"),
            Fact::Size(size) => write!(f, "{size} bytes"),
        }
    }
}

type Facts = BTreeMap<String, Fact>;

fn name(path: &str) -> String {
    path.replace(char::is_whitespace, "")
}

macro_rules! values {
    ($facts:expr, $($path:path),* $(,)?) => {
        $($facts.insert(name(stringify!($path)), Fact::Value($path as u64));)*
    };
}

/// Fields with their places. A field that is missing here does not compile.
macro_rules! layout {
    ($facts:expr, $path:path { $($field:ident),* $(,)? }) => {{
        let whole = <$path>::new_zeroed();
        let start = (&raw const whole).addr();
        let $path { $($field),* } = &whole;
        $(
            let offset = (std::ptr::from_ref($field).addr() - start) as u64;
            let fact = Fact::Field { offset, size: size_of_val($field) as u64 };
            $facts.insert(format!("{}::{}", name(stringify!($path)), stringify!($field)), fact);
        )*
        $facts.insert(name(stringify!($path)), Fact::Size(size_of_val(&whole) as u64));
    }};
}

fn code() -> Facts {
    let mut facts = Facts::new();
    registers(&mut facts);
    operations(&mut facts);
    layouts(&mut facts);
    memory(&mut facts);
    for (action, bits) in flow::Actions::all().iter_names() {
        facts.insert(format!("flow::Actions::{action}"), Fact::Value(bits.bits().into()));
    }
    let ports = [
        ("flow::Port::Vport(0)", flow::Port::Vport(culvert_packet::VportId(0)).bits()),
        ("flow::Port::Uplink(0)", flow::Port::Uplink(0).bits()),
        ("flow::Port::Host", flow::Port::Host.bits()),
        ("flow::Port::None", flow::Port::None.bits()),
        ("soc::BoardPort::Vf(0)", soc::BoardPort::Vf(0).bits()),
        ("soc::BoardPort::Queue(0)", soc::BoardPort::Queue(0).bits()),
        ("soc::BoardPort::Uplink(0)", soc::BoardPort::Uplink(0).bits()),
        ("soc::BoardPort::None", soc::BoardPort::None.bits()),
    ];
    facts.extend(ports.map(|(name, bits)| (name.to_owned(), Fact::Value(bits.into()))));
    facts
}

#[rustfmt::skip]
fn registers(facts: &mut Facts) {
    values!(facts, VERSION, pci::VENDOR, pci::PF_DEVICE, pci::VF_DEVICE, pci::PF_REVISION, pci::CLASS_ETHERNET,
        pci::TOTAL_VFS, pci::PF_VECTORS, pci::VECTOR_EVENT, pci::VECTOR_MAILBOX, pci::VECTOR_QUEUE0);
    values!(facts, regs::BAR0_LEN, regs::MAGIC, regs::MAGIC_VALUE, regs::ABI, regs::CAPS, regs::LINK, regs::FW_STATE,
        regs::FW_EPOCH, regs::FW_HEARTBEAT, regs::FW_ERROR, regs::FW_CONTROL, regs::FW_START, regs::FW_STOP,
        regs::FW_IMAGE_LOW, regs::FW_IMAGE_HIGH, regs::FW_IMAGE_LEN, regs::EVENTS, regs::EVENT_LINK,
        regs::EVENT_FIRMWARE, regs::EVENT_VF, regs::EVENT_QUEUE, regs::LOG_HEAD, regs::LOG, regs::LOG_LEN, regs::PANIC,
        regs::PANIC_LEN);
    values!(facts, regs::MBOX_BELL, regs::MBOX_DONE, regs::MBOX_REQUEST, regs::MBOX_REPLY, regs::MBOX_WORDS,
        regs::mailbox::HELLO, regs::mailbox::CONFIGURE, regs::mailbox::START, regs::mailbox::ECHO);
    values!(facts, regs::QUEUES, regs::QUEUE_STRIDE, regs::QUEUE_COUNT, regs::QUEUE_COMMAND, regs::QUEUE_UPCALL,
        regs::QUEUE_COMPLETION, regs::QUEUE_CAPTURE, regs::QUEUE_VMQ0, regs::QUEUE_BASE_LOW, regs::QUEUE_BASE_HIGH,
        regs::QUEUE_SIZE, regs::QUEUE_STATE, regs::QUEUE_RUNNING, regs::QUEUE_FAULT, regs::QUEUE_BELL);
    values!(facts, regs::VFS, regs::VF_STRIDE, regs::VF_MAC_LOW, regs::VF_MAC_HIGH, regs::VF_MTU, regs::VF_FLAGS,
        regs::VF_LINK_UP, regs::VF_ALLOW_MAC, regs::VF_ALLOW_PROMISC, regs::VF_UPCALL_SHARE, regs::VF_DRIVER_OK);
    values!(facts, regs::DROPS, regs::FW_FINISHED, regs::FW_PUNTED, regs::PORTS, regs::PORT_STRIDE,
        regs::FirmwareState::Off, regs::FirmwareState::Booting, regs::FirmwareState::Ready,
        regs::FirmwareState::Dead, regs::FirmwareState::Refused);
}

#[rustfmt::skip]
fn operations(facts: &mut Facts) {
    values!(facts, command::Op::Frame, command::Op::InjectLookup, command::Op::InjectOut, command::Op::Dropped,
        command::Op::FlowInsert, command::Op::FlowDelete, command::Op::FlowRead, command::Op::FlowIdle,
        command::Op::FlowClear, command::Op::FlowGet, command::Op::TunnelSet, command::Op::GroupSet,
        command::Op::PeersSet, command::Op::LocalSet, command::Op::VportSet, command::Op::VportRead,
        command::Op::CellsSet, command::Op::VmqFilters, command::Op::DropsRead, command::Op::TunnelRead,
        command::Op::HostRestart, command::Op::Fence, command::Op::Transmit, command::Op::Upcall,
        command::Op::Drop, command::Op::Complete, command::Op::Lost, command::Op::OF_VM, command::CellWrite::VPORT);
    values!(facts, pf::RING_HEADER, pf::HOST_INDEX, pf::HOST_SLEEPS, pf::NIC_INDEX, pf::NIC_SLEEPS, pf::MAX_PAYLOAD,
        pf::OffloadBits::NONE, pf::OffloadBits::PARTIAL, pf::OffloadBits::VERIFIED, pf::OffloadBits::BAD);
    values!(facts, image::MAGIC, image::MAX_LEN, image::ImageError::Length, image::ImageError::Magic,
        image::ImageError::Abi, image::ImageError::Address, image::ImageError::Crc);
    values!(facts, flow::Port::MAX_VPORTS, flow::Port::UPLINKS, Vport::PRESENT, Vport::UP, Vport::VF, Vport::VMQ);
}

#[rustfmt::skip]
fn memory(facts: &mut Facts) {
    values!(facts, soc::RAM_BASE, soc::RAM_LEN, soc::IMAGE_LEN, soc::CTRL, soc::RX_RING, soc::RX_SIZE, soc::TX_RING,
        soc::TX_SIZE, soc::TX_HEADERS, soc::HEADER_LEN, soc::LOG, soc::PANIC, soc::TABLES, soc::BUFFERS,
        soc::BUFFER_LEN, soc::HEADROOM, soc::BUFFER_COUNT, soc::READY, soc::NO_BUFFER);
    values!(facts, soc::ctrl::FW_READY, soc::ctrl::FW_ABI, soc::ctrl::HEARTBEAT, soc::ctrl::FW_SLEEPS,
        soc::ctrl::BOARD_SLEEPS, soc::ctrl::RX_PRODUCED, soc::ctrl::RX_CONSUMED, soc::ctrl::TX_PRODUCED,
        soc::ctrl::TX_CONSUMED, soc::ctrl::MBOX_BELL, soc::ctrl::MBOX_DONE, soc::ctrl::LOG_HEAD, soc::ctrl::EPOCH,
        soc::ctrl::FLOWS_LOG2, soc::ctrl::FINISHED, soc::ctrl::PUNTED, soc::ctrl::BENCH, soc::ctrl::BENCH_INSTRET,
        soc::ctrl::BENCH_PACKETS, soc::ctrl::MBOX_REQUEST, soc::ctrl::MBOX_REPLY);
    // Flags stand with the descriptor that has them.
    let flags = [("RELEASE", soc::RELEASE), ("COPY", soc::COPY), ("CAPTURE", soc::CAPTURE), ("SHARE", soc::SHARE)];
    for (flag, bits) in flags {
        facts.insert(format!("soc::Descriptor::{flag}"), Fact::Value(bits.into()));
    }
    let soc::Sizes { flows, tunnels, groups, peers, vports, pending } = soc::Sizes::new(0);
    let sizes = [("flows", flows), ("tunnels", tunnels), ("groups", groups), ("peers", peers), ("vports", vports),
        ("pending", pending)];
    facts.extend(sizes.map(|(name, n)| (format!("soc::Sizes::{name}"), Fact::Value(n.into()))));
}

#[rustfmt::skip]
fn layouts(facts: &mut Facts) {
    layout!(facts, pf::Entry { addr, len, op, reason, port, target, peer, ticket, cookie, arg0, arg1, now, inner,
        original_len, offload, vsid, reserved });
    layout!(facts, pf::OffloadBits { checksum, gso, mss, start, offset });
    layout!(facts, command::CellWrite { cell, value });
    layout!(facts, command::VmqFilter { mac, vmq, vsid, vport });
    layout!(facts, command::TunnelCounters { packets, bytes });
    layout!(facts, image::Header { magic, abi, load, entry, len, crc });
    layout!(facts, soc::Descriptor { buffer, offset, len, op, reason, flags, port, target, ticket, cookie, now, arg0,
        vport, peer, header_len, inner, arg1, offload, vsid, reserved });
    layout!(facts, FlowRecord { key, hot, cold });
    layout!(facts, FlowKey { direction, encap, source, vsid, dst_mac, vlan, src_mac, family, protocol, src, dst,
        src_port, dst_port, fragment, zero });
    layout!(facts, FlowHot { actions, tunnel, out, dst_mac, vlan, nat_addr, nat_port, entropy, vsid, last_used,
        packets, bytes, gen_src, gen_dst, gen_map, map_cell, pending });
    layout!(facts, FlowCold { connection, nat_addr6, rules, created, incarnation });
    layout!(facts, Tunnel { encap, uplink, header_len, ip_offset, max_inner, ip_sum, header, packets, bytes,
        reserved });
    layout!(facts, Group { len, reserved, members });
    layout!(facts, Peer { addr, family, index, reserved });
    layout!(facts, Vport { flags, target, number, reserved, vsid, generation, records, quota, rx_packets, rx_bytes,
        tx_packets, tx_bytes, drops });
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn quoted(text: &str) -> Option<&str> {
    text.split('`').nth(1)
}

/// What the page says, with the line where it does. A heading's name is that of the tables under it.
fn page() -> BTreeMap<String, (usize, Fact)> {
    let mut found = BTreeMap::new();
    let (mut chapter, mut section) = (String::new(), String::new());
    for (line, text) in PAGE.lines().enumerate().map(|(n, text)| (n + 1, text)) {
        if text.starts_with('#') {
            let deeper = text.starts_with("###");
            let named = quoted(text).map(str::to_owned);
            section = named.unwrap_or_else(|| if deeper { chapter.clone() } else { String::new() });
            if !deeper {
                chapter.clone_from(&section);
            }
            let size = text.rsplit_once(", ").and_then(|(_, size)| number(size.strip_suffix(" bytes")?));
            if let Some(size) = size {
                found.insert(section.clone(), (line, Fact::Size(size)));
            }
            continue;
        }
        let cells: Vec<&str> = text.split('|').map(str::trim).collect();
        let (fact, name) = match cells[..] {
            ["", first, second, third, ..] => match (number(first), number(second)) {
                (Some(offset), Some(size)) => (Fact::Field { offset, size }, quoted(third)),
                (Some(value), None) => (Fact::Value(value), quoted(second)),
                _ => continue,
            },
            _ => continue,
        };
        let name = name.unwrap_or_else(|| panic!("docs/nic-abi.md:{line}: the row has no name"));
        let whole = if section.is_empty() { name.to_owned() } else { format!("{section}::{name}") };
        if let Some((before, _)) = found.insert(whole.clone(), (line, fact)) {
            panic!("docs/nic-abi.md:{line}: {whole} is in line {before} already");
        }
    }
    found
}

#[test]
fn the_page_says_what_the_code_says() {
    let (code, page) = (code(), page());
    let mut wrong = Vec::new();
    for (name, (line, says)) in &page {
        match code.get(name) {
            Some(is) if is == says => {}
            Some(is) => wrong.push(format!("docs/nic-abi.md:{line}: {name}: write {is} instead of {says}")),
            None => wrong.push(format!("docs/nic-abi.md:{line}: take {name} out, or list it in this test")),
        }
    }
    for (name, is) in code.iter().filter(|(name, _)| !page.contains_key(*name)) {
        wrong.push(format!("docs/nic-abi.md: add {name}: {is}"));
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// Public constants, and variants with a number, in the modules' text: a new one must come onto the page.
#[test]
fn nothing_public_is_left_out() {
    let code = code();
    let mut missing = Vec::new();
    for (module, text) in SOURCES {
        let known = |name: &str| {
            let ours = |path: &&String| {
                path.strip_prefix(module).is_some_and(|p| p.split("::").last() == Some(name))
            };
            code.keys().find(ours).is_some()
        };
        for (n, line) in text.lines().enumerate() {
            let words: Vec<&str> = line.trim().split([' ', ':', '(', '<', ',']).collect();
            let name = match words[..] {
                ["pub", "const", name, ..] if name != "fn" => name,
                ["pub", "const"] | ["//" | "///" | "//!", ..] => continue,
                [variant, "=", ..] if variant.starts_with(char::is_uppercase) => variant,
                _ => continue,
            };
            if !known(name) {
                missing.push(format!("src/{module}.rs:{}: {name}", n + 1));
            }
        }
    }
    assert!(missing.is_empty(), "not in this test and on the page:\n{}\n", missing.join("\n"));
}
