//! Tests of the archive writer against the system's own reader.

use std::fs;
use std::process::{Command, Stdio};

use super::cpio::Archive;

#[test]
fn an_archive_has_the_bytes_that_the_format_asks_for() {
    let mut archive = Archive::default();
    archive.file("ab", 0o644, b"hello").unwrap();
    let bytes = archive.finish();
    let header = "070701\
         00000001000081a400000000000000000000000100000000\
         0000000500000000000000000000000000000000\
         0000000300000000";
    assert_eq!(&bytes[..110], header.as_bytes());
    // 110 + 3 bytes of name are padded to 116, 5 bytes of contents to 124.
    assert_eq!(&bytes[110..124], b"ab\0\0\0\0hello\0\0\0");
    assert_eq!(&bytes[124..130], b"070701");
    assert!(bytes.len().is_multiple_of(4));
    assert!(bytes.windows(11).any(|window| window == b"TRAILER!!!\0"));
}

/// Where the machine has a cpio, it must read what the writer wrote.
#[test]
fn cpio_reads_the_archive() {
    let folder = tempfile::tempdir().unwrap();
    let mut archive = Archive::default();
    archive.folder("bin");
    archive.file("bin/tool", 0o755, &[7; 4099]).unwrap();
    archive.symlink("bin/sh", "tool").unwrap();
    let file = folder.path().join("archive");
    fs::write(&file, archive.finish()).unwrap();
    let cpio = Command::new("cpio")
        .args(["--extract", "--quiet", "--no-preserve-owner"])
        .current_dir(folder.path())
        .stdin(fs::File::open(&file).unwrap())
        .stderr(Stdio::inherit())
        .status();
    let Ok(status) = cpio else {
        eprintln!("this machine has no cpio: only the format's test has run");
        return;
    };
    assert!(status.success());
    assert_eq!(fs::read(folder.path().join("bin/sh")).unwrap(), [7; 4099]);
}
