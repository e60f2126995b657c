//! Reading a checkpoint's `config.json`: numbers with their bounds, so that an absurd file is an error that names its
//! field and not an allocation.

use serde_json::Value;

use crate::error::Error;

/// The largest size that any model has by far; what is larger is a broken file.
const LARGEST: u64 = 1 << 26;

/// A `config.json`, read field by field.
#[derive(Clone, Copy)]
pub(super) struct Config<'a>(pub &'a Value);

impl<'a> Config<'a> {
    /// A size that must be there, at least 1.
    pub(super) fn size(self, field: &str) -> Result<usize, Error> {
        self.optional_size(field)?.ok_or_else(|| Error::config(field, "is missing"))
    }

    /// A size that must be there and not exceed another.
    pub(super) fn size_up_to(self, field: &str, (bound, most): (&str, usize)) -> Result<usize, Error> {
        match self.size(field)? {
            size if size <= most => Ok(size),
            size => Err(Error::config(field, format!("{size} exceeds {bound} {most}"))),
        }
    }

    /// A size that may be absent or null.
    pub(super) fn optional_size(self, field: &str) -> Result<Option<usize>, Error> {
        match self.0.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_u64() {
                Some(size @ 1..=LARGEST) => Ok(Some(size as usize)),
                _ => Err(Error::config(field, format!("must be between 1 and {LARGEST}, not {value}"))),
            },
        }
    }

    /// A small positive number, such as the epsilon of a norm; `default` where it is absent or null.
    pub(super) fn epsilon(self, field: &str, default: f32) -> Result<f32, Error> {
        match self.0.get(field) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => match value.as_f64() {
                Some(number) if number > 0.0 && number < 1.0 => Ok(number as f32),
                _ => Err(Error::config(field, format!("must lie between 0 and 1, not {value}"))),
            },
        }
    }

    /// A positive number that may be absent or null.
    pub(super) fn optional_positive(self, field: &str) -> Result<Option<f64>, Error> {
        match self.0.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_f64() {
                Some(number) if number > 0.0 && number.is_finite() => Ok(Some(number)),
                _ => Err(Error::config(field, format!("must be a positive number, not {value}"))),
            },
        }
    }

    /// The object in a field that must be there.
    pub(super) fn inner(self, field: &str) -> Result<Self, Error> {
        match self.0.get(field) {
            Some(value @ Value::Object(_)) => Ok(Self(value)),
            _ => Err(Error::config(field, "is missing, or no object")),
        }
    }

    /// Refuses a file that has none of these fields, or null in them.
    pub(super) fn present(self, fields: &[&str]) -> Result<(), Error> {
        match fields.iter().any(|field| self.0.get(field).is_some_and(|value| !value.is_null())) {
            true => Ok(()),
            false => Err(Error::config(fields.join(" or "), "is missing")),
        }
    }

    /// A switch; absent or null is false.
    pub(super) fn flag(self, field: &str) -> bool {
        self.0.get(field).and_then(Value::as_bool).unwrap_or(false)
    }

    /// Refuses every value of a field but one; absent is that one.
    pub(super) fn only(self, field: &str, supported: &str) -> Result<(), Error> {
        match self.0.get(field) {
            None | Some(Value::Null) => Ok(()),
            Some(Value::String(found)) if found == supported => Ok(()),
            Some(found) => Err(Error::config(field, format!("{found} is not supported; {supported:?} is"))),
        }
    }
}

/// Checks that `divisor` divides `number`.
pub(super) fn divides(number: (&str, usize), divisor: (&str, usize)) -> Result<usize, Error> {
    match number.1.is_multiple_of(divisor.1) {
        true => Ok(number.1 / divisor.1),
        false => Err(Error::config(number.0, format!("{} is not a multiple of {} {}", number.1, divisor.0, divisor.1))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_absurd_size_is_named() {
        let config = json!({"hidden_size": 1u64 << 40, "layers": 0, "eps": 3.0, "act": "relu", "top": 9, "clip": -1.0});
        let config = Config(&config);
        assert!(config.size("hidden_size").unwrap_err().to_string().contains("hidden_size: must be between 1 and"));
        assert!(config.size("layers").unwrap_err().to_string().contains("not 0"));
        assert!(config.size("heads").unwrap_err().to_string().contains("heads: is missing"));
        assert!(config.epsilon("eps", 1e-6).unwrap_err().to_string().contains("not 3"));
        assert!(config.only("act", "silu").unwrap_err().to_string().contains("\"relu\" is not supported"));
        assert!(config.size_up_to("top", ("experts", 4)).unwrap_err().to_string().contains("top: 9 exceeds experts 4"));
        assert!(
            config.optional_positive("clip").unwrap_err().to_string().contains("must be a positive number, not -1")
        );
        assert!(config.present(&["none", "act"]).is_ok());
        assert!(config.present(&["none", "neither"]).unwrap_err().to_string().contains("none or neither: is missing"));
        assert!(config.inner("eps").is_err() && config.inner("none").is_err());
        assert!(divides(("hidden_size", 10), ("heads", 4)).unwrap_err().to_string().contains("10 is not a multiple"));
    }
}
