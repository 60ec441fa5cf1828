//! The store: desired policy, indices and generations in one file, changed in one transaction each time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use culvert_api::Collection;
use culvert_flow::HashSecret;
use culvert_model::Indices;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde_json::Value;

use crate::Error;
use crate::documents::{Documents, Key};

/// `collection/id` in lower case to the resource's JSON.
const RESOURCES: TableDefinition<&str, &[u8]> = TableDefinition::new("resources");
/// One value each by name.
const STATE: TableDefinition<&str, &[u8]> = TableDefinition::new("state");
/// Form of the two tables; a store of another form is refused, never guessed at.
const FORMAT: u64 = 1;

/// The daemon's file. Every commit is on disk when it returns.
pub struct Store {
    db: Database,
    path: PathBuf,
}

/// What the store holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stored {
    /// Desired policy.
    pub documents: Documents,
    /// Numbers given so far.
    pub indices: Indices,
    /// Counts changes of the desired policy.
    pub version: u64,
}

impl Store {
    /// Opens or makes `culvertd.redb` in this directory.
    ///
    /// # Errors
    /// The directory cannot be used, another daemon has the file, or it is of another form.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        let path = directory.join("culvertd.redb");
        let failed = |detail: String| Error::Store { path: path.clone(), detail };
        std::fs::create_dir_all(directory).map_err(|e| failed(e.to_string()))?;
        let db = Database::create(&path).map_err(|e| failed(e.to_string()))?;
        let store = Self { db, path: path.clone() };
        store.check_format()?;
        Ok(store)
    }

    fn failed(&self, detail: &dyn ToString) -> Error {
        Error::Store { path: self.path.clone(), detail: detail.to_string() }
    }

    fn check_format(&self) -> Result<(), Error> {
        let write = self.db.begin_write().map_err(|e| self.failed(&e))?;
        {
            write.open_table(RESOURCES).map_err(|e| self.failed(&e))?;
            let mut state = write.open_table(STATE).map_err(|e| self.failed(&e))?;
            let found = state.get("format").map_err(|e| self.failed(&e))?.map(|v| v.value().to_vec());
            match found {
                None => {
                    state.insert("format", FORMAT.to_be_bytes().as_slice()).map_err(|e| self.failed(&e))?;
                }
                Some(bytes) if bytes == FORMAT.to_be_bytes() => {}
                Some(_) => return Err(self.failed(&"was written by another version of culvertd")),
            }
        }
        write.commit().map_err(|e| self.failed(&e))
    }

    /// The secret of the entropy shown on the wire, made when the store is: it stays, so that a restart does not move
    /// every flow to another path.
    ///
    /// # Errors
    /// It cannot be read or written, or the system has no random numbers.
    pub fn entropy(&self) -> Result<HashSecret, Error> {
        let write = self.db.begin_write().map_err(|e| self.failed(&e))?;
        let mut bytes = [0u8; 72];
        {
            let mut state = write.open_table(STATE).map_err(|e| self.failed(&e))?;
            let found = state.get("entropy").map_err(|e| self.failed(&e))?.map(|v| v.value().to_vec());
            match found {
                Some(found) => bytes = found.try_into().map_err(|_| self.failed(&"has a bad secret"))?,
                None => {
                    getrandom::fill(&mut bytes).map_err(|e| self.failed(&e))?;
                    state.insert("entropy", bytes.as_slice()).map_err(|e| self.failed(&e))?;
                }
            }
        }
        write.commit().map_err(|e| self.failed(&e))?;
        let mut words = [0u64; 9];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u64::from_be_bytes(*bytes);
        }
        Ok(HashSecret(words))
    }

    /// Everything in it.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn load(&self) -> Result<Stored, Error> {
        let read = self.db.begin_read().map_err(|e| self.failed(&e))?;
        let resources = read.open_table(RESOURCES).map_err(|e| self.failed(&e))?;
        let state = read.open_table(STATE).map_err(|e| self.failed(&e))?;
        let mut all: BTreeMap<Key, Arc<Value>> = BTreeMap::new();
        for entry in resources.iter().map_err(|e| self.failed(&e))? {
            let (name, value) = entry.map_err(|e| self.failed(&e))?;
            let (collection, id) =
                name.value().split_once('/').ok_or_else(|| self.failed(&"has a bad key"))?;
            let collection = Collection::from_name(collection).map_err(|e| self.failed(&e))?;
            let value = serde_json::from_slice(value.value()).map_err(|e| self.failed(&e))?;
            all.insert((collection, id.to_owned()), Arc::new(value));
        }
        let indices = match state.get("indices").map_err(|e| self.failed(&e))? {
            Some(bytes) => serde_json::from_slice(bytes.value()).map_err(|e| self.failed(&e))?,
            None => Indices::default(),
        };
        let version = match state.get("version").map_err(|e| self.failed(&e))? {
            Some(bytes) => {
                let bytes = bytes.value().try_into().map_err(|_| self.failed(&"has a bad version"))?;
                u64::from_be_bytes(bytes)
            }
            None => 0,
        };
        Ok(Stored { documents: Documents::from_stored(all), indices, version })
    }

    /// Goes from one state to the next, all of it or nothing.
    ///
    /// # Errors
    /// It cannot be written; the old state stays.
    pub fn commit(&self, from: &Stored, to: &Stored) -> Result<(), Error> {
        let write = self.db.begin_write().map_err(|e| self.failed(&e))?;
        {
            let mut resources = write.open_table(RESOURCES).map_err(|e| self.failed(&e))?;
            let old: BTreeMap<&Key, &Arc<Value>> = from.documents.iter().collect();
            let new: BTreeMap<&Key, &Arc<Value>> = to.documents.iter().collect();
            for key in old.keys().filter(|k| !new.contains_key(*k)) {
                resources.remove(name(key).as_str()).map_err(|e| self.failed(&e))?;
            }
            for (key, value) in &new {
                if old.get(key).is_some_and(|o| Arc::ptr_eq(o, value)) {
                    continue;
                }
                let bytes = serde_json::to_vec(value.as_ref()).map_err(|e| self.failed(&e))?;
                resources.insert(name(key).as_str(), bytes.as_slice()).map_err(|e| self.failed(&e))?;
            }
            let mut state = write.open_table(STATE).map_err(|e| self.failed(&e))?;
            if from.indices != to.indices {
                let bytes = serde_json::to_vec(&to.indices).map_err(|e| self.failed(&e))?;
                state.insert("indices", bytes.as_slice()).map_err(|e| self.failed(&e))?;
            }
            state.insert("version", to.version.to_be_bytes().as_slice()).map_err(|e| self.failed(&e))?;
        }
        write.commit().map_err(|e| self.failed(&e))
    }
}

fn name((collection, id): &Key) -> String {
    format!("{}/{id}", collection.name())
}
