//! The store: desired policy, indices and generations in one file; each change is one transaction.

mod file;
mod format;
mod quiet;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use culvert_api::{AnyResource, Collection};
use culvert_flow::HashSecret;
use culvert_model::Indices;
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable};

use self::file::FILE;
use self::format::{Outcome, RESOURCES, STATE, check_format};
use self::quiet::quiet;
use crate::documents::{Documents, Key};
use crate::{Error, secret};

/// The daemon's database file. A commit is on disk when it returns.
pub struct Store {
    open: Mutex<Open>,
    path: PathBuf,
}

/// The open file.
struct Open {
    /// None: it could not be opened again after an error.
    db: Option<Database>,
    /// What went wrong last, if nothing went well since.
    problem: Option<String>,
}

/// What the store holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stored {
    /// Desired policy.
    pub documents: Documents,
    /// Numbers allocated so far.
    pub indices: Indices,
    /// Counts changes of the desired policy.
    pub version: u64,
}

impl Store {
    /// Opens or creates `culvertd.redb` in this directory.
    ///
    /// # Errors
    /// The directory cannot be used, another daemon has the file open, or the file is damaged or has another format.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        let path = directory.join(FILE);
        let db = quiet(|| file::open_or_create(directory, &path)).map_err(|e| failed(&path, &e))?;
        let open = Mutex::new(Open { db: Some(db), problem: None });
        let store = Self { open, path };
        store.read_with(|read| check_format(&read))?;
        Ok(store)
    }

    /// Its file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the store this host's. A store that was another host's is refused: its numbers and its policy's view are that
    /// host's.
    ///
    /// # Errors
    /// It is another host's, or cannot be written.
    pub fn claim(&self, host: &str) -> Result<(), Error> {
        let path = self.path.display().to_string();
        self.write_with(|db| {
            let write = db.begin_write()?;
            {
                let mut state = write.open_table(STATE)?;
                let found = state.get("host")?.map(|v| v.value().to_vec());
                match found {
                    Some(found) if found.eq_ignore_ascii_case(host.as_bytes()) => return Ok(()),
                    Some(found) => {
                        let found = String::from_utf8_lossy(&found).into_owned();
                        return Err(format!(
                            "this is the state of host \"{found}\", not of \"{host}\": start culvertd with --host {found}, or with \
                             another --state, or move {path} away"
                        )
                        .into());
                    }
                    None => state.insert("host", host.as_bytes())?,
                };
            }
            Ok(write.commit()?)
        })
    }

    /// Secret of the entropy in outer headers, created with the store. It is kept, so that a restart does not move flows
    /// to other paths.
    ///
    /// # Errors
    /// The store cannot be read or written, or the system has no random numbers.
    pub fn entropy(&self) -> Result<HashSecret, Error> {
        self.write_with(read_entropy)
    }

    /// Reads everything.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn load(&self) -> Result<Stored, Error> {
        self.read_with(|read| read_all(&read))
    }

    /// Replaces the state `from` by `to`: all of it or nothing.
    ///
    /// # Errors
    /// The store cannot be written; it keeps the old state.
    pub fn commit(&self, from: &Stored, to: &Stored) -> Result<(), Error> {
        self.write_with(|db| write_changes(db, from, to))
    }

    /// What is wrong with the store; none: the last use went well.
    pub fn problem(&self) -> Option<String> {
        let detail = self.lock().problem.clone()?;
        Some(format!(
            "store {}: {detail}; changes are refused until the disk has room and works again",
            self.path.display()
        ))
    }

    /// After a problem, looks whether the store can be written again.
    pub fn recover(&self) {
        if self.lock().problem.is_none() {
            return;
        }
        // The outcome is kept as the problem.
        let _ = self.write_with(|db| {
            let write = db.begin_write()?;
            {
                // As much as a small change needs.
                let mut state = write.open_table(STATE)?;
                state.insert("probe", [0_u8; 1 << 14].as_slice())?;
                state.remove("probe")?;
            }
            Ok(write.commit()?)
        });
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_with<T>(&self, work: impl FnOnce(ReadTransaction) -> Outcome<T>) -> Result<T, Error> {
        self.write_with(|db| work(db.begin_read()?))
    }

    /// Works on the database. After an error it is closed and opened again: it does not work on after an error of the
    /// disk, and what it held of the failed transaction is given up.
    fn write_with<T>(&self, work: impl FnOnce(&Database) -> Outcome<T>) -> Result<T, Error> {
        let mut open = self.lock();
        if open.db.is_none() {
            match quiet(|| file::open_existing(&self.path)) {
                Ok(db) => open.db = Some(db),
                Err(e) => {
                    open.problem = Some(e.to_string());
                    return Err(failed(&self.path, &e));
                }
            }
        }
        let Open { db: Some(db), .. } = &*open else { return Err(failed(&self.path, &"it is closed")) };
        match quiet(|| work(db)) {
            Ok(done) => {
                open.problem = None;
                Ok(done)
            }
            Err(e) => {
                open.problem = Some(e.to_string());
                let db = open.db.take();
                // What its closing says is what is known already.
                let _ = quiet(|| {
                    drop(db);
                    Ok(())
                });
                Err(failed(&self.path, &e))
            }
        }
    }
}

fn read_entropy(db: &Database) -> Outcome<HashSecret> {
    let write = db.begin_write()?;
    let bytes = {
        let mut state = write.open_table(STATE)?;
        let found = state.get("entropy")?.map(|v| v.value().to_vec());
        match found {
            Some(found) => found.try_into().map_err(|_| "the secret has a wrong length")?,
            None => {
                let bytes = secret::random().map_err(|e| e.to_string())?;
                state.insert("entropy", bytes.as_slice())?;
                bytes
            }
        }
    };
    write.commit()?;
    Ok(secret::from_bytes(&bytes))
}

fn read_all(read: &ReadTransaction) -> Outcome<Stored> {
    let (resources, state) = (read.open_table(RESOURCES)?, read.open_table(STATE)?);
    let mut all = BTreeMap::new();
    for entry in resources.iter()? {
        let (name, value) = entry?;
        let (collection, id) = name.value().split_once('/').ok_or("a resource has a wrong key")?;
        let collection = Collection::from_name(collection)?;
        let resource = AnyResource::from_text(collection, value.value())
            .map_err(|e| format!("{} is damaged: {e}", name.value()))?;
        all.insert((collection, id.to_owned()), resource);
    }
    let number = |name: &str| -> Outcome<Option<u64>> {
        match state.get(name)? {
            Some(bytes) => Ok(Some(u64::from_be_bytes(bytes.value().try_into()?))),
            None => Ok(None),
        }
    };
    let count = number("count")?;
    if count.is_some_and(|count| count != all.len() as u64) {
        return Err(format!(
            "it has {} resources, not the {} that were written",
            all.len(),
            count.unwrap_or(0)
        )
        .into());
    }
    let indices = match state.get("indices")? {
        Some(bytes) => serde_json::from_slice(bytes.value())?,
        None => Indices::default(),
    };
    let version = number("version")?.unwrap_or(0);
    Ok(Stored { documents: Documents::from_stored(all), indices, version })
}

fn write_changes(db: &Database, from: &Stored, to: &Stored) -> Outcome<()> {
    let write = db.begin_write()?;
    {
        let mut resources = write.open_table(RESOURCES)?;
        for (key, _) in from.documents.iter().filter(|(key, _)| to.documents.top(key).is_none()) {
            resources.remove(name(key).as_str())?;
        }
        for (key, resource) in to.documents.iter() {
            if from.documents.top(key).is_some_and(|old| old.is_same(resource)) {
                continue;
            }
            resources.insert(name(key).as_str(), resource.to_text()?.as_slice())?;
        }
        let mut state = write.open_table(STATE)?;
        if from.indices != to.indices {
            state.insert("indices", serde_json::to_vec(&to.indices)?.as_slice())?;
        }
        let count = to.documents.iter().count() as u64;
        state.insert("count", count.to_be_bytes().as_slice())?;
        state.insert("version", to.version.to_be_bytes().as_slice())?;
    }
    Ok(write.commit()?)
}

fn failed(path: &Path, detail: &dyn ToString) -> Error {
    Error::Store { path: path.to_owned(), detail: detail.to_string() }
}

fn name((collection, id): &Key) -> String {
    format!("{}/{id}", collection.name())
}
