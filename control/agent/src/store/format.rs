//! The tables of the store, and their format.

use redb::{Database, ReadTransaction, TableDefinition};

/// A result whose error does not name the file yet.
pub(super) type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// `collection/id` in lower case to the resource's JSON.
pub(super) const RESOURCES: TableDefinition<&str, &[u8]> = TableDefinition::new("resources");
/// Single values by name.
pub(super) const STATE: TableDefinition<&str, &[u8]> = TableDefinition::new("state");
/// Format of the two tables. A store of another format is refused.
const FORMAT: u64 = 1;

/// Writes the format into a new database.
pub(super) fn write_format(db: &Database) -> Outcome<()> {
    let write = db.begin_write()?;
    write.open_table(RESOURCES)?;
    write.open_table(STATE)?.insert("format", FORMAT.to_be_bytes().as_slice())?;
    Ok(write.commit()?)
}

pub(super) fn check_format(read: &ReadTransaction) -> Outcome<()> {
    let state = read.open_table(STATE).map_err(|e| format!("it is not a store of culvertd ({e})"))?;
    let found = state.get("format")?.map(|v| v.value().to_vec());
    match found.and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes) {
        Some(FORMAT) => Ok(()),
        Some(other) => Err(format!(
            "it has format {other}, and this culvertd reads format {FORMAT}: use the culvertd that wrote it, or another --state"
        )
        .into()),
        None => Err("it is not a store of culvertd (it has no format)".into()),
    }
}
