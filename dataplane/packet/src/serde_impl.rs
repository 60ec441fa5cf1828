//! Identifiers in serialised form: addresses and GUIDs as text, numbers as numbers.

use core::fmt;
use core::str::FromStr;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::{Encap, MacAddr, Rdid, VlanId, Vni, VportId, Vsid};
use crate::prefix::Prefix;
use crate::reason::Reason;

struct Text<T>(&'static str, core::marker::PhantomData<T>);

impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for Text<T> {
    type Value = T;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(|e| E::custom(format_args!("{text:?}: {e}")))
    }
}

macro_rules! text {
    ($($name:ty, $what:literal;)*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                d.deserialize_str(Text($what, core::marker::PhantomData))
            }
        }
    )*};
}

text! {
    MacAddr, "a MAC address";
    Rdid, "a GUID";
    Prefix, "an IP prefix";
    Reason, "a reason";
    Encap, "VXLAN or NVGRE";
}

macro_rules! number {
    ($($name:ident($int:ty);)*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                self.get().serialize(s)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                $name::new(<$int>::deserialize(d)?).map_err(D::Error::custom)
            }
        }
    )*};
}

number! {
    Vni(u32);
    Vsid(u32);
    VlanId(u16);
}

impl Serialize for VportId {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(s)
    }
}

impl<'de> Deserialize<'de> for VportId {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        u16::deserialize(d).map(VportId)
    }
}
