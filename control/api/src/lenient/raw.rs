//! Values that are kept as they are, or skipped: read for duplicate names only.

use serde::Deserialize as _;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::MAX_DEPTH;
use super::reader::Reader;
use super::seen::{Key, Names};
use crate::Error;
use crate::names::short;

/// A value of any form.
pub(super) struct Raw<'r, 'a> {
    pub(super) reader: &'r mut Reader<'a>,
    /// Kept; otherwise skipped.
    pub(super) written: bool,
}

impl<'a> Raw<'_, 'a> {
    fn write(&mut self, text: &[u8]) {
        if self.written {
            self.reader.write(text);
        }
    }

    fn part(&mut self) -> Raw<'_, 'a> {
        Raw { reader: &mut *self.reader, written: self.written }
    }

    fn put<E>(self, value: &(impl serde::Serialize + ?Sized)) -> Result<(), E> {
        if self.written {
            self.reader.write_json(value);
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Raw<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.reader.depth >= MAX_DEPTH {
            IgnoredAny::deserialize(deserializer)?;
            self.reader.wrong(|| "a deep structure".into(), || "something less deep".into());
            return Ok(());
        }
        let Raw { reader, written } = self;
        reader.depth += 1;
        let result = deserializer.deserialize_any(Raw { reader: &mut *reader, written });
        reader.depth -= 1;
        result
    }
}

impl<'de> Visitor<'de> for Raw<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.put(&())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.put(&value)
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.put(&value)
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.put(&value)
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.put(&value)
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.put(value)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        self.write(b"{");
        let mut names = Names::default();
        let mut first = true;
        while let Some(key) = map.next_key_seed(Key)? {
            if !names.is_new(&key) {
                let target = &self.reader.target;
                self.reader
                    .findings
                    .error(|| Error::DuplicateProperty { target: target.clone(), name: short(&key) });
            }
            if !std::mem::take(&mut first) {
                self.write(b",");
            }
            if self.written {
                self.reader.write_json(key.as_ref());
            }
            self.write(b":");
            map.next_value_seed(self.part())?;
        }
        self.write(b"}");
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        self.write(b"[");
        let mut first = true;
        loop {
            let mark = self.reader.out.len();
            if !std::mem::take(&mut first) {
                self.write(b",");
            }
            if seq.next_element_seed(self.part())?.is_none() {
                self.reader.out.truncate(mark);
                break;
            }
        }
        self.write(b"]");
        Ok(())
    }
}
