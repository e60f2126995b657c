//! Credentials of external models: those that were given as they are, and who may refer to which.

use serde_json::Value;

use super::checks::OWN_SCOPE;
use super::endpoints::Literal;
use super::{Config, ControlPlane, Document, Entity, What};
use crate::error::ApiError;
use crate::gate::Principal;
use crate::store::Change;
use crate::wire::external::SecretReference;

impl ControlPlane {
    /// Keeps credentials of an endpoint, and forgets those that neither its configuration nor the coming one has. One that is
    /// still served somewhere until the coming one is up is kept with them.
    pub(super) async fn keep_literals(
        &self,
        change: &mut Change,
        endpoint: &str,
        document: &Document,
        literals: Vec<Literal>,
    ) -> Result<(), ApiError> {
        let configs = [&document.config, &document.pending].into_iter().flatten();
        let keys: Vec<String> =
            configs.flat_map(|config| &config.entities).map(|entity| key(endpoint, entity)).collect();
        let still = |key: &str| keys.iter().any(|kept| kept == key);
        self.secrets().forget(change, (OWN_SCOPE, &format!("{endpoint}.")), still).await?;
        for (reference, credential) in &literals {
            self.secrets().keep(change, reference, credential).await?;
        }
        Ok(())
    }

    /// Forgets all credentials of an endpoint.
    pub(super) async fn forget_literals(&self, change: &mut Change, endpoint: &str) -> Result<(), ApiError> {
        Ok(self.secrets().forget(change, (OWN_SCOPE, &format!("{endpoint}.")), |_| false).await?)
    }

    /// Refuses a configuration that refers to secrets which whoever asks for it may not read: the endpoint would read them in
    /// their place. What was served `before` stays, whoever asked for that.
    pub(super) async fn check_references(
        &self,
        principal: &Principal,
        endpoint: &str,
        config: &Config,
        before: &[Entity],
    ) -> Result<(), ApiError> {
        let new = config.entities.iter().filter(|entity| before.iter().all(|one| one.id != entity.id));
        for entity in new {
            let What::External(model) = &entity.what else { continue };
            let mut references = Vec::new();
            collect(model, &mut references);
            let own = key(endpoint, entity);
            let others = references.iter().filter(|one| (one.scope(), one.key()) != (OWN_SCOPE, &own));
            for reference in others {
                self.check_reference(principal, reference).await?;
            }
        }
        Ok(())
    }
}

/// Where the credential of an entity is kept.
fn key(endpoint: &str, entity: &Entity) -> String {
    format!("{endpoint}.{}", entity.id)
}

/// The references in the configuration of a model.
fn collect(value: &Value, found: &mut Vec<SecretReference>) {
    match value {
        Value::String(text) => found.extend(text.parse::<SecretReference>().ok()),
        Value::Array(list) => list.iter().for_each(|value| collect(value, found)),
        Value::Object(fields) => fields.values().for_each(|value| collect(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
