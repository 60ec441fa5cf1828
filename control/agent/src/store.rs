//! The store: desired policy, indices and generations in one file; each change is one transaction.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use culvert_api::Collection;
use culvert_flow::HashSecret;
use culvert_model::Indices;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde_json::Value;

use crate::documents::{Documents, Key};
use crate::{Error, secret};

/// A result whose error does not name the file yet.
type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// `collection/id` in lower case to the resource's JSON.
const RESOURCES: TableDefinition<&str, &[u8]> = TableDefinition::new("resources");
/// Single values by name.
const STATE: TableDefinition<&str, &[u8]> = TableDefinition::new("state");
/// Format of the two tables. A store of another format is refused.
const FORMAT: u64 = 1;

/// The daemon's database file. A commit is on disk when it returns.
pub struct Store {
    db: Database,
    path: PathBuf,
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
    /// The directory cannot be used, another daemon has the file open, or the file has another format.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        let path = directory.join("culvertd.redb");
        let open = || -> Outcome<Database> {
            std::fs::create_dir_all(directory)?;
            Ok(Database::create(&path)?)
        };
        let db = open().map_err(|e| failed(&path, &e))?;
        let store = Self { db, path };
        store.named(store.check_format())?;
        Ok(store)
    }

    /// Its file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Secret of the entropy in outer headers, created with the store. It is kept, so that a restart does not move flows
    /// to other paths.
    ///
    /// # Errors
    /// The store cannot be read or written, or the system has no random numbers.
    pub fn entropy(&self) -> Result<HashSecret, Error> {
        self.named(self.read_entropy())
    }

    /// Reads everything.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn load(&self) -> Result<Stored, Error> {
        self.named(self.read())
    }

    /// Replaces the state `from` by `to`: all of it or nothing.
    ///
    /// # Errors
    /// The store cannot be written; it keeps the old state.
    pub fn commit(&self, from: &Stored, to: &Stored) -> Result<(), Error> {
        self.named(self.write(from, to))
    }

    /// Adds the file's name to an error.
    fn named<T>(&self, outcome: Outcome<T>) -> Result<T, Error> {
        outcome.map_err(|e| failed(&self.path, &e))
    }

    fn check_format(&self) -> Outcome<()> {
        let write = self.db.begin_write()?;
        {
            write.open_table(RESOURCES)?;
            let mut state = write.open_table(STATE)?;
            let found = state.get("format")?.map(|v| v.value().to_vec());
            match found {
                None => {
                    state.insert("format", FORMAT.to_be_bytes().as_slice())?;
                }
                Some(bytes) if bytes == FORMAT.to_be_bytes() => {}
                Some(_) => return Err("written by another version of culvertd".into()),
            }
        }
        Ok(write.commit()?)
    }

    fn read_entropy(&self) -> Outcome<HashSecret> {
        let write = self.db.begin_write()?;
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

    fn read(&self) -> Outcome<Stored> {
        let read = self.db.begin_read()?;
        let (resources, state) = (read.open_table(RESOURCES)?, read.open_table(STATE)?);
        let mut all = BTreeMap::new();
        for entry in resources.iter()? {
            let (name, value) = entry?;
            let (collection, id) = name.value().split_once('/').ok_or("a resource has a wrong key")?;
            let collection = Collection::from_name(collection)?;
            let value = serde_json::from_slice(value.value())?;
            all.insert((collection, id.to_owned()), Arc::new(value));
        }
        let indices = match state.get("indices")? {
            Some(bytes) => serde_json::from_slice(bytes.value())?,
            None => Indices::default(),
        };
        let version = match state.get("version")? {
            Some(bytes) => u64::from_be_bytes(bytes.value().try_into()?),
            None => 0,
        };
        Ok(Stored { documents: Documents::from_stored(all), indices, version })
    }

    fn write(&self, from: &Stored, to: &Stored) -> Outcome<()> {
        let write = self.db.begin_write()?;
        {
            let mut resources = write.open_table(RESOURCES)?;
            let old: BTreeMap<&Key, &Arc<Value>> = from.documents.iter().collect();
            let new: BTreeMap<&Key, &Arc<Value>> = to.documents.iter().collect();
            for key in old.keys().filter(|k| !new.contains_key(*k)) {
                resources.remove(name(key).as_str())?;
            }
            for (key, value) in &new {
                if old.get(key).is_some_and(|o| Arc::ptr_eq(o, value)) {
                    continue;
                }
                resources.insert(name(key).as_str(), serde_json::to_vec(value.as_ref())?.as_slice())?;
            }
            let mut state = write.open_table(STATE)?;
            if from.indices != to.indices {
                state.insert("indices", serde_json::to_vec(&to.indices)?.as_slice())?;
            }
            state.insert("version", to.version.to_be_bytes().as_slice())?;
        }
        Ok(write.commit()?)
    }
}

fn failed(path: &Path, detail: &dyn ToString) -> Error {
    Error::Store { path: path.to_owned(), detail: detail.to_string() }
}

fn name((collection, id): &Key) -> String {
    format!("{}/{id}", collection.name())
}
