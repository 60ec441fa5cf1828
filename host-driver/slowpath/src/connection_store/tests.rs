//! The format of the connection file: what was written is read back, and nothing else is.

use std::net::IpAddr;
use std::path::PathBuf;

use culvert_packet::{MacAddr, Rdid, VportId};
use culvert_policy::connection::{Ends, State};
use culvert_policy::{Connection, ConnectionId};
use proptest::collection::vec;
use proptest::prelude::*;
use tempfile::TempDir;

use super::ConnectionFile;
use super::format::{self, BootId, ENTRIES_AT, ENTRY_WORDS, Header, Unusable, VPORTS_AT, VportIdentity};
use super::lock::Lock;
use super::previous::PreviousConnections;

const BOOT: BootId = BootId([9; 16]);
const STATES: [State; 6] = [
    State::Timed,
    State::Opening,
    State::Established,
    State::Closing(false),
    State::Closing(true),
    State::Closed,
];

fn connection() -> impl Strategy<Value = Connection> {
    let v4 = any::<([u8; 4], [u8; 4])>().prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b)));
    let v6 = any::<([u8; 16], [u8; 16])>().prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b)));
    let rest = (any::<[u8; 16]>(), any::<u8>(), any::<(u16, u16)>(), any::<u16>(), 0..STATES.len());
    (prop_oneof![v4, v6], rest).prop_map(|((a, b), (rdid, protocol, (from, to), owner, state))| Connection {
        ends: Ends { rdid: Rdid(rdid), protocol, first: (a, from), second: (b, to) },
        owner: VportId(owner),
        state: STATES[state],
        last_seen: 0,
        keys: [None, None],
    })
}

fn one() -> Connection {
    let ends = Ends {
        rdid: Rdid([7; 16]),
        protocol: 6,
        first: ([10, 1, 1, 11].into(), 1000),
        second: ([10, 1, 1, 12].into(), 80),
    };
    Connection { ends, owner: VportId(3), state: State::Established, last_seen: 0, keys: [None, None] }
}

/// The bytes of a file with these entries.
fn bytes(entries: &[[u64; ENTRY_WORDS]]) -> Vec<u8> {
    let header = Header { entries: entries.len() as u32, boot: BOOT, alive: 77 };
    let mut words = vec![0; ENTRIES_AT];
    words[..6].copy_from_slice(&header.encode());
    words.extend(entries.iter().flatten());
    words.iter().flat_map(|word: &u64| word.to_le_bytes()).collect()
}

fn read(bytes: &[u8]) -> Result<PreviousConnections, Unusable> {
    PreviousConnections::read(bytes, BOOT)
}

proptest! {
    #[test]
    fn an_entry_is_read_as_it_was_written(c in connection(), n: u32, seen: u32) {
        let words = format::encode(n, &c, seen);
        prop_assert_ne!(words[0], 0);
        prop_assert_eq!(format::decode(n, &words), Some((c, seen)));
    }

    #[test]
    fn random_words_are_no_connection(words: [u64; ENTRY_WORDS], n: u32) {
        prop_assert_eq!(format::decode(n, &words), None);
    }

    /// Corrupt: one bit has changed, the entry has another index, or a part is of another entry.
    #[test]
    fn an_entry_that_is_corrupt_is_no_connection(
        (a, b) in (connection(), connection()), n in 0u32..1000, seen: u32, bit in 0usize..512, part in 1usize..ENTRY_WORDS,
    ) {
        let whole = format::encode(n, &a, seen);
        let mut changed = whole;
        changed[bit / 64] ^= 1 << (bit % 64);
        let is_time = bit / 64 == 1 && bit % 64 < 32;
        prop_assert_eq!(format::decode(n, &changed).is_some(), is_time);
        prop_assert_eq!(format::decode(n + 1, &whole), None);
        let mut mixed = format::encode(n, &b, seen);
        mixed[..part].copy_from_slice(&whole[..part]);
        let found = format::decode(n, &mixed);
        prop_assert!(found.is_none() || found == Some((a, seen)) || found == Some((b, seen)));
    }

    /// A daemon that is killed within an update leaves an intact entry behind.
    #[test]
    fn after_each_stored_word_of_an_update_the_entry_is_the_old_or_the_new_one(
        c in connection(), state in 0..STATES.len(), n: u32, seen: (u32, u32),
    ) {
        let before = format::encode(n, &c, seen.0);
        let later = Connection { state: STATES[state], ..c };
        let after = format::encode(n, &later, seen.1);
        // In the order of stores: the first word last.
        let mut now = before;
        for word in (1..ENTRY_WORDS).chain([0]) {
            now[word] = after[word];
            let (found, _) = format::decode(n, &now).expect("an intact entry");
            prop_assert!(found == c || found == later);
        }
    }

    #[test]
    fn random_files_are_refused(all in vec(any::<u8>(), 0..3000)) {
        prop_assert!(read(&all).is_err());
    }

    #[test]
    fn a_file_with_random_parts_has_only_what_was_written(
        all in vec(connection(), 1..20), at in any::<prop::sample::Index>(), noise in vec(any::<u8>(), 1..200),
    ) {
        let entries: Vec<_> = (0u32..).zip(&all).map(|(n, c)| format::encode(n, c, 5)).collect();
        let mut file = bytes(&entries);
        // Another test changes the header's first words.
        let at = 48 + at.index(file.len() - 48 - noise.len());
        file[at..at + noise.len()].copy_from_slice(&noise);
        let previous = read(&file).expect("its header is whole");
        let known = |c: &Connection| all.contains(c);
        prop_assert!(previous.connections.iter().all(|(c, _)| known(c)));
        let touched = noise.len() / 64 + 2;
        prop_assert!(previous.connections.len() + touched >= all.len());
    }
}

#[test]
fn an_entry_of_this_version_is_these_words() {
    let words = format::encode(5, &one(), 0x0102_0304);
    let expected = [
        // The lower half is the checksum. Another checksum needs another version of the format.
        0x0306_0003_3c93_2428,
        0x0050_03e8_0102_0304,
        0x0b01_010a,
        0,
        0x0c01_010a,
        0,
        0x0707_0707_0707_0707,
        0x0707_0707_0707_0707,
    ];
    assert_eq!(words, expected);
}

#[test]
fn another_format_is_refused_with_its_reason() {
    let file = bytes(&[format::encode(0, &one(), 5); 1]);
    let told = |at: usize, byte: u8| {
        let mut file = file.clone();
        file[at] = byte;
        read(&file).unwrap_err().to_string()
    };
    assert_eq!(read(&file).unwrap().connections, [(one(), 5)]);
    assert!(told(0, b'C').contains("no connection file"));
    assert!(told(8, 2).contains("version 2"));
    assert!(told(12, 96).contains("96 bytes"));
    assert!(told(16, 2).contains("2 entries"), "{}", told(16, 2));
    assert!(told(23, 1).contains("more than"));
    assert!(told(24, 1).contains("before this machine was started"));
}

#[test]
fn a_file_that_was_cut_or_grew_is_refused() {
    let file = bytes(&[format::encode(0, &one(), 5), [0; ENTRY_WORDS]]);
    let cuts =
        [0, 7, 47, 48, 8 * VPORTS_AT - 1, 8 * VPORTS_AT, 8 * ENTRIES_AT, file.len() - 64, file.len() - 1];
    for len in cuts {
        assert!(read(&file[..len]).is_err(), "{len} bytes");
    }
    for more in 1..10 {
        assert!(read(&[file.clone(), vec![0; more]].concat()).is_err(), "{more} bytes more");
    }
    assert_eq!(read(&file).unwrap().connections.len(), 1);
}

#[test]
fn vports_are_read_as_they_were_written() {
    let mut file = bytes(&[]);
    let all = [(0, [2, 0, 0, 0, 0, 1], 5001), (7, [0xfe; 6], 16_777_214), (65_535, [0; 6], 0)];
    for (n, mac, vsid) in all {
        let at = 8 * (VPORTS_AT + 2 * n);
        let words = VportIdentity { mac: MacAddr(mac), vsid }.encode();
        file[at..at + 16].copy_from_slice(words.map(u64::to_le_bytes).as_flattened());
    }
    let previous = read(&file).unwrap();
    let expected = all.map(|(n, mac, vsid)| (VportId(n as u16), VportIdentity { mac: MacAddr(mac), vsid }));
    assert_eq!(previous.vports.into_iter().collect::<Vec<_>>(), expected);
}

fn store_path() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("culvertd.sock.connections");
    (dir, path)
}

fn id(place: u32) -> ConnectionId {
    ConnectionId(1 << 32 | u64::from(place))
}

/// What the next daemon reads from the file.
fn reopened(path: &std::path::Path, limit: usize) -> PreviousConnections {
    ConnectionFile::open(path, limit).unwrap().take_previous().unwrap()
}

#[test]
fn the_next_daemon_reads_what_a_killed_daemon_has_written() {
    let (_dir, path) = store_path();
    let mut file = ConnectionFile::open(&path, 100_000).unwrap();
    assert_eq!(file.take_previous(), None);
    file.begin(10, 1010).unwrap();
    let far = Connection { owner: VportId(9), ..one() };
    file.put(id(0), &Connection { last_seen: 15, ..one() });
    file.put(id(1), &one());
    file.put(id(99_999), &Connection { last_seen: 20, ..far });
    file.put(id(100_000), &one());
    file.clear(id(1));
    file.clear(id(50_000));
    file.put_vport(VportId(3), Some(VportIdentity { mac: MacAddr([2; 6]), vsid: 5001 }));
    file.publish().unwrap();
    file.put_alive(1030);
    // No other daemon can open the file until this one ends.
    let refused = ConnectionFile::open(&path, 100_000).err().unwrap();
    assert!(matches!(refused, crate::Error::ConnectionsInUse { .. }), "{refused}");
    drop(file);
    let previous = reopened(&path, 100_000);
    assert_eq!(previous.connections, [(one(), 1015), (far, 1020)]);
    assert_eq!((previous.alive, previous.corrupt, previous.vports.len()), (1030, 0, 1));
    // Unused entries occupy no blocks.
    let blocks = std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(&path).unwrap());
    assert!(blocks * 512 < 500_000, "{blocks} blocks");
}

#[test]
fn dropping_the_lock_releases_it_although_a_forked_child_has_a_copy_of_its_descriptor() {
    let (_dir, path) = store_path();
    let lock = Lock::acquire(&path).unwrap().unwrap();
    assert!(Lock::acquire(&path).unwrap().is_none());
    // As a fork does for as long as the child has not called exec.
    let copy = lock.file.try_clone().unwrap();
    drop(lock);
    assert!(Lock::acquire(&path).unwrap().is_some());
    drop(copy);
}

#[test]
fn until_a_file_is_published_the_previous_one_is_valid() {
    let (_dir, path) = store_path();
    let mut file = ConnectionFile::open(&path, 100).unwrap();
    file.begin(0, 0).unwrap();
    file.put(id(0), &one());
    file.publish().unwrap();
    drop(file);
    let mut next = ConnectionFile::open(&path, 200).unwrap();
    next.begin(0, 0).unwrap();
    // The daemon is killed before it publishes its file.
    drop(next);
    assert_eq!(reopened(&path, 100).connections.len(), 1);
    let mut last = ConnectionFile::open(&path, 200).unwrap();
    last.begin(0, 0).unwrap();
    last.publish().unwrap();
    drop(last);
    assert_eq!(reopened(&path, 100).connections, []);
}

#[test]
fn an_unusable_file_is_discarded() {
    let (_dir, path) = store_path();
    std::fs::write(&path, b"something else").unwrap();
    let mut file = ConnectionFile::open(&path, 100).unwrap();
    assert_eq!(file.take_previous(), None);
    file.begin(0, 0).unwrap();
    file.put(id(7), &one());
    file.publish().unwrap();
    drop(file);
    assert_eq!(reopened(&path, 100).connections, [(one(), 0)]);
    // A symbolic link, or a file that others may write, is discarded as well.
    let other = path.with_file_name("other");
    std::fs::rename(&path, &other).unwrap();
    std::os::unix::fs::symlink(&other, &path).unwrap();
    assert_eq!(ConnectionFile::open(&path, 100).unwrap().take_previous(), None);
    std::fs::rename(&other, &path).unwrap();
    assert_eq!(reopened(&path, 100).connections.len(), 1);
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o660)).unwrap();
    assert_eq!(ConnectionFile::open(&path, 100).unwrap().take_previous(), None);
}

/// The file is cut, removed or replaced by a program with access to it: the daemon goes on, and writes all connections
/// anew.
#[test]
fn a_file_that_was_damaged_is_noticed_and_written_anew() {
    let cut = |path: &std::path::Path, len| {
        std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(len).unwrap();
    };
    type Damage<'d> = (&'static str, &'d dyn Fn(&std::path::Path));
    let damages: [Damage<'_>; 5] = [
        ("emptied", &|path| cut(path, 0)),
        ("cut within the entries", &|path| cut(path, 8 * ENTRIES_AT as u64 + 100)),
        ("longer", &|path| cut(path, 1 << 30)),
        ("removed", &|path| std::fs::remove_file(path).unwrap()),
        ("replaced", &|path| {
            std::fs::remove_file(path).unwrap();
            std::fs::write(path, b"another").unwrap();
        }),
    ];
    for (name, damage) in damages {
        let (_dir, path) = store_path();
        let mut file = ConnectionFile::open(&path, 1000).unwrap();
        file.begin(0, 1000).unwrap();
        file.put(id(0), &one());
        file.publish().unwrap();
        assert!(!file.put_alive(2000), "{name}: whole");
        assert_eq!(file.problem(), None);
        damage(&path);
        // Connections come and go meanwhile, also at the end of the file.
        file.put(id(5), &one());
        file.put(id(999), &one());
        file.clear(id(5));
        assert!(file.put_alive(3000), "{name}: noticed");
        let all = [(id(0), one()), (id(1), one()), (id(999), one())];
        file.write_anew(all.iter().map(|(id, c)| (*id, c)), None, 2000, 3000);
        assert!(!file.put_alive(4000), "{name}: whole again");
        assert!(file.problem().unwrap().contains("was damaged"), "{name}: {:?}", file.problem());
        assert!(!file.put_alive(70_000));
        assert_eq!(file.problem(), None, "{name}: it was told for long enough");
        drop(file);
        let previous = reopened(&path, 1000);
        assert_eq!((previous.connections.len(), previous.corrupt), (3, 0), "{name}");
        assert_eq!(previous.connections[2], (one(), 1000), "{name}: by the system's clock");
    }
}
