//! Frames over a vport's socket, both ways.

use super::*;

#[test]
fn frames_pass_both_ways_and_names_vanish() {
    let dir = tempfile::tempdir().expect("directory");
    let mut host = HostPort::bind(dir.path(), VportId(3)).expect("bound");
    assert!(!host.send(b"nobody is there"));
    let path = socket_path(dir.path(), VportId(3));
    let owner = SyntheticPort::open(&path).expect("listening");
    assert_eq!(host.receive(), None);
    assert!(host.send(b"to the owner"));
    let limit = Duration::from_secs(2);
    assert_eq!(owner.receive(limit).expect("open").as_deref(), Some(&b"to the owner"[..]));
    assert_eq!(owner.receive(Duration::from_millis(1)).expect("open"), None);
    owner.send(b"from the owner").expect("open");
    assert_eq!(host.receive().as_deref(), Some(&b"from the owner"[..]));
    drop((owner, host));
    assert_eq!(std::fs::read_dir(dir.path()).expect("readable").count(), 0);
}
