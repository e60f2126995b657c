//! Lists of named entries in which no name may stand twice. Must not know what an entry is.

use std::fmt;
use std::marker::PhantomData;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use super::error::{Fault, Part, WeightsError};

/// Sorts by name.
///
/// # Errors
/// The first name that stands there twice.
pub(super) fn refuse_duplicates<V>(file: &Path, pairs: &mut [(String, V)]) -> Result<(), WeightsError> {
    pairs.sort_by(|(left, _), (right, _)| left.cmp(right));
    let twice = pairs.windows(2).find(|pair| pair[0].0 == pair[1].0);
    twice.map_or(Ok(()), |pair| Err(Fault::Duplicate.of(file, Part::Tensor(pair[0].0.clone()))))
}

/// Reads a JSON text.
///
/// # Errors
/// What the parser says.
pub(super) fn parse<T: for<'de> Deserialize<'de>>(json: &[u8]) -> Result<T, String> {
    serde_json::from_slice(json).map_err(|error| error.to_string())
}

/// A JSON object as the list of its entries, without `__metadata__`: an entry given twice is kept twice.
pub(super) struct Pairs<V>(pub(super) Vec<(String, V)>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Pairs<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PairsVisitor(PhantomData))
    }
}

struct PairsVisitor<V>(PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for PairsVisitor<V> {
    type Value = Pairs<V>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object with an entry a tensor")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let value = map.next_value().map_err(|why| A::Error::custom(format_args!("tensor `{name}`: {why}")))?;
            pairs.push((name, value));
        }
        Ok(Pairs(pairs))
    }
}
