//! The connection file of a daemon that ended: whatever stands in it, the next one starts, and restores what is right.

use std::cell::RefCell;
use std::fs::File;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::sync::Arc;

use culvert_api::Bundle;
use culvert_flow::HashSecret;
use culvert_model::{Fabric, Indices, Site, host_config};
use culvert_packet::VportId;
use culvert_policy::Snapshot;
use culvert_slowpath::{ConnectionFile, HostPolicy, Limits, Policy as _, Restored};

use crate::input::Input;
use crate::target::Target;

/// The target.
pub const TARGET: Target = Target { name: "connections", run, seeds };

/// Words of an entry, of the header's chunk and of all before the entries: `connection_store/format.rs`.
const ENTRY: usize = 8;
const VPORTS: usize = 8192;
const ENTRIES: usize = VPORTS + 2 * 65_536;
/// Most entries of an input.
const MOST: usize = 16;

/// The secret of an entry's checksum. An input whose checksums are wrong reaches nothing behind them.
const SECRET: HashSecret = HashSecret([
    0x9e37_79b9_7f4a_7c15,
    0xf39c_c060_5ced_c834,
    0x1082_276b_f3a2_7251,
    0xf86c_6a11_d0c1_8e95,
    0x2767_f0b1_53d2_7b7f,
    0x0347_045b_5bf1_827f,
    0x0188_6f09_2840_3002,
    0xc1d6_4ba4_0f33_5e36,
    0xf06a_d7ae_9717_877e,
]);

/// The clock of the daemon that starts.
const CLOCK: u64 = 5_000_000_000;

/// Files by what makes them up: what the run repairs, the entries that the header claims, bytes less or more than that
/// many take, the header's other words, the vports' words, the entries.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    /// Bits: the boot id is this machine's; checksums are made right; the vports are those of the policy.
    pub(crate) repairs: u8,
    pub(crate) claimed: u8,
    pub(crate) extra: i8,
    pub(crate) header: [u64; 6],
    pub(crate) entries: Vec<[u64; ENTRY]>,
}

impl Parts {
    fn bytes(&self) -> Vec<u8> {
        let words = self.header.iter().chain(self.entries.iter().flatten());
        let words: Vec<u8> = words.flat_map(|word| word.to_le_bytes()).collect();
        [&[self.repairs, self.claimed, self.extra.cast_unsigned()][..], &words].concat()
    }

    fn read(input: &mut Input<'_>) -> Self {
        let mut parts = Parts {
            repairs: input.byte(),
            claimed: input.byte(),
            extra: input.byte().cast_signed(),
            header: std::array::from_fn(|_| input.u64()),
            entries: Vec::new(),
        };
        while !input.is_empty() && parts.entries.len() < MOST {
            parts.entries.push(std::array::from_fn(|_| input.u64()));
        }
        parts
    }
}

/// A connection of two vports of the policy, in each state.
pub(crate) fn intact() -> Parts {
    let snapshot = snapshot();
    let (owner, vport) = snapshot.vports.iter().next().expect("host 1 has a vport");
    let v4 = |address: std::net::IpAddr| match address {
        std::net::IpAddr::V4(v4) => u64::from(u32::from_le_bytes(v4.octets())),
        std::net::IpAddr::V6(_) => 0,
    };
    let local = v4(vport.addresses[0]);
    let rdid = u128::from_le_bytes(vport.rdid.0);
    let entry = |state: u64| {
        let head = u64::from(owner.0) << 32 | 6 << 48 | state << 56;
        let ports = 40_000 << 32 | 443 << 48 | u64::from(CLOCK as u32 - 10);
        [head, ports, local, 0, v4([10, 1, 1, 12].into()), 0, rdid as u64, (rdid >> 64) as u64]
    };
    let header = [u64::from_le_bytes(*b"culvconn"), 1 | 64 << 32, 8, 0, 0, CLOCK - 1000];
    Parts { repairs: 7, claimed: 8, extra: 0, header, entries: (1..7).map(entry).collect() }
}

fn seeds() -> Vec<Vec<u8>> {
    let right = intact();
    let other_boot = Parts { repairs: 6, ..right.clone() };
    let short = Parts { extra: -1, ..right.clone() };
    let unchecked = Parts { repairs: 5, ..right.clone() };
    [right, other_boot, short, unchecked].iter().map(Parts::bytes).collect()
}

/// Host 1 of an example.
fn snapshot() -> Arc<Snapshot> {
    thread_local! {
        static SNAPSHOT: Arc<Snapshot> = {
            let text = include_str!("../../../docs/examples/figure8.json");
            let bundle = Bundle::parse(text).expect("an example is right").bundle;
            let fabric = Arc::new(Fabric::check(&bundle).expect("an example is right").fabric);
            let host = fabric.hosts[0].name.clone();
            let site = Site { host, entropy: HashSecret([7; 9]), vfs: 64, vmqs: 16 };
            host_config(fabric, &site, &mut Indices::default()).expect("it fits").snapshot
        };
    }
    SNAPSHOT.with(Arc::clone)
}

struct Scratch {
    _folder: tempfile::TempDir,
    path: PathBuf,
    boot: [u64; 2],
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new({
        let folder = crate::scratch::folder();
        let path = folder.path().join("connections");
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
        let id = u128::from_str_radix(&digits, 16).unwrap_or_default().swap_bytes();
        Scratch { _folder: folder, path, boot: [id as u64, (id >> 64) as u64] }
    });
}

/// Runs one input.
pub fn run(data: &[u8]) {
    let parts = Parts::read(&mut Input::new(data));
    let (restored, connections) = restore(&parts);
    let Restored { restored, expired, denied, no_room, corrupt } = restored;
    assert_eq!(restored, connections);
    assert!(restored + expired + denied + no_room + corrupt <= parts.entries.len(), "{restored:?}");
}

/// What the next daemon restores, and how many connections it has.
pub(crate) fn restore(parts: &Parts) -> (Restored, usize) {
    let snapshot = snapshot();
    SCRATCH.with_borrow(|scratch| {
        write(scratch, parts, &snapshot);
        let limits = Limits { connections: 12, per_vport: 4, ..Limits::default() };
        let file = ConnectionFile::open(&scratch.path, limits.connections).expect("no other daemon is here");
        let mut policy = HostPolicy::new(&limits).without_records().stored_in(file);
        policy.set(&snapshot);
        let restored = policy.restore(0, CLOCK);
        (restored, policy.connections())
    })
}

fn write(scratch: &Scratch, parts: &Parts, snapshot: &Snapshot) {
    let mut header = parts.header;
    if parts.repairs & 1 != 0 {
        header[0] = u64::from_le_bytes(*b"culvconn");
        header[1] = 1 | 64 << 32;
        header[2] = parts.claimed.into();
        header[3..5].copy_from_slice(&scratch.boot);
    }
    let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&scratch.path);
    let file = file.expect("a file in a folder of ours");
    let put = |at: usize, words: &[u64]| {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        file.write_all_at(&bytes, 8 * at as u64).expect("there is room");
    };
    put(0, &header);
    let len = 8 * (ENTRIES + ENTRY * usize::from(parts.claimed)) as i64 + i64::from(parts.extra);
    for (n, entry) in (0..).zip(&parts.entries) {
        let mut words = *entry;
        if parts.repairs & 2 != 0 {
            let low = u64::from(u32::MAX);
            let mut checked = words;
            checked[0] &= !low;
            checked[1] = checked[1] & !low | n;
            words[0] = checked[0] | SECRET.hash(&checked) >> 32;
        }
        put(ENTRIES + ENTRY * n as usize, &words);
    }
    if parts.repairs & 4 != 0 {
        for (VportId(n), vport) in &snapshot.vports {
            let m = vport.mac.0;
            let mac = u64::from_le_bytes([m[0], m[1], m[2], m[3], m[4], m[5], 0, 0x80]);
            put(VPORTS + 2 * usize::from(*n), &[mac, vport.vsid.into()]);
        }
    }
    file.set_len(len.cast_unsigned()).expect("there is room");
}

#[cfg(test)]
mod tests {
    use super::{intact, restore};

    /// Otherwise the seeds reach nothing behind the format's first checks.
    #[test]
    fn the_seed_is_restored() {
        let (restored, connections) = restore(&intact());
        assert!(restored.corrupt == 0 && restored.restored > 0, "{restored:?}");
        assert_eq!(restored.restored, connections);
    }
}
