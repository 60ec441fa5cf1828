//! The names of an object's properties, to find one that is there twice.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::hash::{BuildHasher, RandomState};

use serde::de::{DeserializeSeed, Deserializer, Visitor};

/// The names of an object so far: eight bytes each, whatever their length. Two names of one hash would count as one name
/// twice, which at ten million names has a probability of one in 10^5.
#[derive(Default)]
pub(crate) struct Names {
    hashes: HashSet<u64>,
    key: RandomState,
}

impl Names {
    /// Whether the name was not there before.
    pub(crate) fn is_new(&mut self, name: &str) -> bool {
        self.hashes.insert(self.key.hash_one(name))
    }
}

/// The name of a property, copied only where it has escapes.
pub(super) struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}
