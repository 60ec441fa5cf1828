//! The store's file: created whole or not at all, and looked at before the database reads it.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use redb::{Database, DatabaseError};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::format::{Outcome, write_format};

/// Name of the file in the state directory.
pub(super) const FILE: &str = "culvertd.redb";
/// What a file of the database begins with.
const MAGIC: &[u8] = b"redb";
/// What to do with a file that cannot be used.
const REMEDY: &str = "restore it from a backup, or move it away and apply the policy again";

/// Opens the file, or creates it if there is none.
pub(super) fn open_or_create(directory: &Path, path: &Path) -> Outcome<Database> {
    fs::create_dir_all(directory)?;
    match open_existing(path) {
        Err(e) if is_missing(e.as_ref()) => {}
        opened => return opened,
    }
    create(directory, path)?;
    open_existing(path)
}

fn is_missing(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == ErrorKind::NotFound)
}

/// Writes a new database beside the place where it belongs, and moves it there when it is on disk.
fn create(directory: &Path, path: &Path) -> Outcome<()> {
    let temporary = path.with_extension(format!("new.{}", std::process::id()));
    // What a creation that was killed has left.
    let _ = fs::remove_file(&temporary);
    let written = || -> Outcome<()> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&temporary)?;
        let db = Database::builder().create_file(file)?;
        write_format(&db)?;
        drop(db);
        File::open(&temporary)?.sync_all()?;
        match renameat_with(CWD, &temporary, CWD, path, RenameFlags::NOREPLACE) {
            // Another daemon was faster: its file is opened, or is locked.
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(e) => return Err(std::io::Error::from(e).into()),
        }
        Ok(File::open(directory)?.sync_all()?)
    };
    let outcome = written();
    let _ = fs::remove_file(&temporary);
    outcome
}

/// Opens a file that is there.
pub(super) fn open_existing(path: &Path) -> Outcome<Database> {
    let mut start = Vec::new();
    File::open(path)?.take(MAGIC.len() as u64).read_to_end(&mut start)?;
    if start.is_empty() {
        return Err(format!("it is empty; {REMEDY}").into());
    }
    if start != MAGIC {
        return Err(format!("it is not a database; {REMEDY}").into());
    }
    let metadata = fs::metadata(path)?;
    if metadata.permissions().mode() & 0o777 != 0o600 {
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
    }
    match Database::open(path) {
        Ok(db) => Ok(db),
        Err(DatabaseError::DatabaseAlreadyOpen) => {
            Err("another culvertd uses it: stop that one, or use another --state".into())
        }
        Err(DatabaseError::Storage(redb::StorageError::Io(e)))
            if !matches!(
                e.kind(),
                ErrorKind::UnexpectedEof | ErrorKind::InvalidData | ErrorKind::InvalidInput
            ) =>
        {
            Err(e.into())
        }
        Err(e) => Err(format!("it is damaged ({e}); {REMEDY}").into()),
    }
}
