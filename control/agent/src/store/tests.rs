//! Files that cannot be used, and a disk that is full for a while.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use culvert_api::{Bundle, ResourcePath};

use super::{FILE, Store, Stored};
use crate::Documents;

const FIGURE8: &str = include_str!("../../../../docs/examples/figure8.json");

fn figure8(version: u64) -> Stored {
    let mut documents = Documents::default();
    documents.put_bundle(Bundle::parse(FIGURE8).unwrap().bundle, false);
    Stored { documents, version, ..Stored::default() }
}

/// Opens and reads; the error's text.
fn problem(directory: &Path) -> String {
    let outcome = Store::open(directory).and_then(|store| store.load().map(|stored| stored.version));
    outcome.expect_err("it cannot be used").to_string()
}

#[test]
fn a_store_is_private_and_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let stored = figure8(3);
    let store = Store::open(directory.path()).unwrap();
    store.commit(&Stored::default(), &stored).unwrap();
    drop(store);
    let path = directory.path().join(FILE);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let store = Store::open(directory.path()).unwrap();
    assert_eq!(store.load().unwrap(), stored);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let names: Vec<_> =
        std::fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, [FILE], "nothing else is left");
}

#[test]
fn a_creation_that_was_killed_leaves_nothing_in_the_way() {
    let directory = tempfile::tempdir().unwrap();
    // Everything up to the move happens beside the file.
    std::fs::write(directory.path().join("culvertd.new.1"), "half").unwrap();
    assert_eq!(Store::open(directory.path()).unwrap().load().unwrap(), Stored::default());
}

#[test]
fn a_file_that_cannot_be_used_is_an_error_and_never_an_empty_policy() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE);
    let store = Store::open(directory.path()).unwrap();
    store.claim("host1").unwrap();
    store.commit(&Stored::default(), &figure8(3)).unwrap();
    drop(store);
    let good = std::fs::read(&path).unwrap();
    let mut damaged =
        vec![("zero length", Vec::new()), ("junk", b"junk".repeat(9_000)), ("text", b"{}".to_vec())];
    for part in [1, 3, 4, 100, 4_000, 5_000, good.len() / 4, good.len() / 2, good.len() * 9 / 10] {
        damaged.push(("a part of it", good[..part.min(good.len())].to_vec()));
    }
    let mut header = good.clone();
    header[9..400].fill(0xff);
    damaged.push(("a damaged header", header));
    for (what, bytes) in damaged {
        std::fs::write(&path, &bytes).unwrap();
        let problem = problem(directory.path());
        assert!(problem.contains(FILE), "{what}: {problem}");
        assert!(
            problem.contains("move it away") || problem.contains("not a store"),
            "{what}, {} bytes: {problem}",
            bytes.len()
        );
        assert!(!problem.contains("panicked") && !problem.contains("assert"), "{what}: {problem}");
    }
    // Single bytes: what is read is right, or an error.
    for at in (0..good.len()).step_by(good.len() / 97) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x5a;
        std::fs::write(&path, &bytes).unwrap();
        if let Ok(stored) = Store::open(directory.path()).and_then(|store| store.load()) {
            assert_ne!(stored.documents, Documents::default(), "byte {at}");
        }
    }
    std::fs::write(&path, &good).unwrap();
    let store = Store::open(directory.path()).unwrap();
    store.claim("HOST1").unwrap();
    let other = store.claim("host2").unwrap_err().to_string();
    assert!(
        other.contains("state of host \"host1\", not of \"host2\"") && other.contains("--host host1"),
        "{other}"
    );
}

#[test]
fn a_store_of_another_format_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    store
        .write_with(|db| {
            let write = db.begin_write()?;
            write.open_table(super::STATE)?.insert("format", 7_u64.to_be_bytes().as_slice())?;
            Ok(write.commit()?)
        })
        .unwrap();
    drop(store);
    let problem = problem(directory.path());
    assert!(problem.contains("format 7") && problem.contains("reads format 1"), "{problem}");
}

/// In a mount namespace of the test's own, a disk of one megabyte.
#[test]
fn a_disk_that_was_full_needs_no_restart() {
    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path().to_owned();
    let test = move || {
        let private = mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC);
        private.and_then(|()| mount("none", &at, "tmpfs", MountFlags::empty(), c"size=4m")).unwrap();
        let store = Store::open(&at).unwrap();
        store.commit(&Stored::default(), &figure8(1)).unwrap();
        let filler = at.join("filler");
        let full = std::fs::write(&filler, vec![1; 8 << 20]);
        assert!(full.is_err(), "the disk is small");
        // Changes until the file has to grow.
        let mut version = 1;
        let failed = loop {
            let mut next = figure8(version + 1);
            let path = ResourcePath::parse("/servers/big").unwrap();
            let body = format!(r#"{{"tags": {{"x": "{}"}}}}"#, "y".repeat(300_000 + version as usize));
            next.documents.put(&path, body.as_bytes(), Default::default(), &Default::default()).unwrap();
            match store.commit(&figure8(version), &next) {
                Ok(()) => version += 1,
                Err(e) => break e.to_string(),
            }
            assert!(version < 100, "the disk must be full at last");
        };
        assert!(failed.contains("No space left"), "{failed}");
        assert!(store.problem().unwrap().contains("No space left"));
        store.recover();
        assert!(store.problem().is_some() || store.load().is_ok());
        std::fs::remove_file(&filler).unwrap();
        store.recover();
        assert_eq!(store.problem(), None);
        assert_eq!(store.load().unwrap().version, version, "the failed change is not there");
        store.commit(&store.load().unwrap(), &figure8(500)).unwrap();
        assert_eq!(store.load().unwrap().version, 500);
        drop(store);
        rustix::mount::unmount(&at, rustix::mount::UnmountFlags::DETACH).unwrap();
    };
    let outcome = std::thread::spawn(move || {
        // The namespace is this thread's alone.
        let own = nix::sched::CloneFlags::CLONE_FS | nix::sched::CloneFlags::CLONE_NEWNS;
        nix::sched::unshare(own).is_ok().then(test)
    });
    if outcome.join().expect("the test's thread").is_none() {
        culvert_skip::skip("a mount namespace of its own needs root");
    }
}
