//! What a document is, by its outermost names.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::names::short;

/// What a document is, by its outermost names.
pub(super) enum Form {
    Collections,
    /// `{"value": [...]}`.
    Answer,
    Resource,
    List,
    Other(String),
}

impl<'de> Deserialize<'de> for Form {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Outermost;
        impl<'de> Visitor<'de> for Outermost {
            type Value = Form;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a document")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Form, A::Error> {
                let mut form = Form::Collections;
                while let Some(name) = map.next_key::<std::borrow::Cow<'de, str>>()? {
                    map.next_value::<IgnoredAny>()?;
                    match name.to_ascii_lowercase().as_str() {
                        "properties" | "resourceref" | "resourceid" => form = Form::Resource,
                        "value" if matches!(form, Form::Collections) => form = Form::Answer,
                        _ => {}
                    }
                }
                Ok(form)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Form, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Form::List)
            }
            fn visit_unit<E>(self) -> Result<Form, E> {
                Ok(Form::Other("null".into()))
            }
            fn visit_bool<E>(self, value: bool) -> Result<Form, E> {
                Ok(Form::Other(value.to_string()))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Form, E> {
                Ok(Form::Other(value.to_string()))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Form, E> {
                Ok(Form::Other(value.to_string()))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Form, E> {
                Ok(Form::Other(value.to_string()))
            }
            fn visit_str<E>(self, value: &str) -> Result<Form, E> {
                Ok(Form::Other(format!("\"{}\"", short(value))))
            }
        }
        deserializer.deserialize_any(Outermost)
    }
}
