//! Sends each value where it belongs, by its shape: resources, objects, lists, scalars.

use std::fmt::Write;

use serde::Deserialize as _;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::raw::Raw;
use super::reader::Reader;
use super::scalar::Scalar;
use super::seen::Names;
use super::{MAX_DEPTH, MAX_TEXTS};
use crate::{Error, Shape};

impl Reader<'_> {
    /// Reads a resource of this shape, whose place begins with `parent`. Returns its name, and whether its canonical text
    /// is of use.
    pub(crate) fn resource<'de, D: Deserializer<'de>>(
        &mut self,
        deserializer: D,
        shape: &Shape,
        parent: &str,
        default_id: Option<&str>,
    ) -> Result<(Option<String>, bool), D::Error> {
        self.out.clear();
        self.target = format!("{parent}/?");
        self.default_id = default_id.map(str::to_owned);
        self.last_id = None;
        let (marks, errors) = (self.findings.marks(), self.error_count());
        let written = Value { reader: self, shape }.deserialize(deserializer)?;
        let id = self.last_id.take().or_else(|| default_id.map(str::to_owned));
        if let Some(id) = &id {
            let after = format!("{parent}/{}", crate::names::short(id));
            self.findings.rename(marks, &format!("{parent}/?"), &after);
        }
        let right = written && self.error_count() == errors;
        Ok((id, right))
    }
}

/// A value that should have a shape. Its output says whether it was written; if not, it counts as left out.
pub(super) struct Value<'r, 'a> {
    pub(super) reader: &'r mut Reader<'a>,
    pub(super) shape: &'r Shape,
}

impl<'de> DeserializeSeed<'de> for Value<'_, '_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        if self.reader.depth >= MAX_DEPTH {
            IgnoredAny::deserialize(deserializer)?;
            return Ok(self.reader.wrong(|| "a deep structure".into(), || "something less deep".into()));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_, '_> {
    type Value = bool;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_bool<E>(self, value: bool) -> Result<bool, E> {
        Ok(self.reader.scalar(self.shape, &Scalar::Truth(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<bool, E> {
        Ok(self.reader.scalar(self.shape, &Scalar::Whole(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<bool, E> {
        Ok(self.reader.scalar(self.shape, &Scalar::Number(value.to_string())))
    }

    fn visit_f64<E>(self, value: f64) -> Result<bool, E> {
        Ok(self.reader.scalar(self.shape, &Scalar::Number(value.to_string())))
    }

    fn visit_str<E>(self, value: &str) -> Result<bool, E> {
        Ok(self.reader.scalar(self.shape, &Scalar::Text(value)))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<bool, A::Error> {
        let Value { reader, shape } = self;
        reader.depth += 1;
        let result = match shape {
            Shape::Object(properties) => reader.object(map, properties),
            Shape::Map | Shape::Any => {
                Raw { reader: &mut *reader, written: true }.visit_map(map).map(|()| true)
            }
            Shape::List(element) => {
                // One element in place of a list.
                reader.write(b"[");
                Value { reader: &mut *reader, shape: element }.visit_map(map).inspect(|_| reader.write(b"]"))
            }
            Shape::Text { .. } | Shape::Integer | Shape::Boolean => {
                let skipped = Raw { reader: &mut *reader, written: false }.visit_map(map);
                skipped.map(|()| reader.wrong(|| "an object".into(), || shape.expected()))
            }
        };
        reader.depth -= 1;
        result
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<bool, A::Error> {
        let Value { reader, shape } = self;
        reader.depth += 1;
        let result = match shape {
            Shape::List(element) => reader.list(seq, element).map(|()| true),
            Shape::Any => Raw { reader: &mut *reader, written: true }.visit_seq(seq).map(|()| true),
            _ => {
                let skipped = Raw { reader: &mut *reader, written: false }.visit_seq(seq);
                skipped.map(|()| reader.wrong(|| "a list".into(), || shape.expected()))
            }
        };
        reader.depth -= 1;
        result
    }
}

impl Reader<'_> {
    fn list<'de, A: SeqAccess<'de>>(&mut self, mut seq: A, element: &Shape) -> Result<(), A::Error> {
        self.write(b"[");
        let (start, place) = (self.out.len(), self.target.len());
        let is_text = !matches!(element, Shape::Object(_));
        let mut names = Names::default();
        for n in 0_usize.. {
            let (mark, marks) = (self.out.len(), self.findings.marks());
            if mark > start {
                self.write(b",");
            }
            let _ = write!(self.target, "[{n}]");
            self.last_id = None;
            let written = seq.next_element_seed(Value { reader: &mut *self, shape: element })?;
            if let Some(id) = self.last_id.take() {
                let after = format!("{}[{}]", &self.target[..place], crate::names::short(&id));
                self.findings.rename(marks, &self.target, &after);
                if !names.is_new(&id.to_ascii_lowercase()) {
                    self.findings.error(|| Error::DuplicateId { target: after });
                }
            }
            self.target.truncate(place);
            match written {
                Some(true) => {}
                Some(false) => self.out.truncate(mark),
                None => {
                    self.out.truncate(mark);
                    break;
                }
            }
            if is_text && n == MAX_TEXTS {
                let target = &self.target;
                self.findings.error(|| Error::TooMany {
                    target: target.clone(),
                    what: "elements",
                    limit: MAX_TEXTS,
                });
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                break;
            }
        }
        self.write(b"]");
        Ok(())
    }
}
