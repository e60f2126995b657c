//! A request whose fields are all of one table, beside those that only describe the call.

use serde::de::DeserializeOwned;

use super::options::Bookkeeping;
use super::{FieldError, JsonObject, read};

/// A request as it was typed; `model` was taken before, to find the endpoint.
#[derive(Debug, Clone)]
pub struct Request<Fields> {
    /// What is wanted, and how.
    pub fields: Fields,
    /// What changes nothing.
    pub bookkeeping: Bookkeeping,
}

impl<Fields: DeserializeOwned> Request<Fields> {
    /// Reads a request; every field of `object` is read or refused.
    ///
    /// # Errors
    /// A field that is missing, of another type, or not known.
    pub fn read(mut object: JsonObject) -> Result<Self, FieldError> {
        let request = Self { fields: read::take(&mut object)?, bookkeeping: read::take(&mut object)? };
        read::refuse_rest(&object)?;
        Ok(request)
    }
}
