//! Endpoints: made, changed and removed. Each call is one change of the store; what it asks for comes up afterwards.

use std::sync::Arc;

use uuid::Uuid;

use super::checks::{self, ConfigCheck};
use super::document::Document;
use super::{ControlPlane, Record, already_exists, does_not_exist};
use crate::endpoints::check_name;
use crate::error::{ApiError, ErrorKind};
use crate::gate::{Admin, Aides, Allowed, Manage, Permission, Principal};
use crate::policy::Policies;
use crate::providers::external::ExternalModel;
use crate::store::{Change, EndpointRow, GrantRow, StoreError, now};
use crate::wire::FieldError;
use crate::wire::serving::{AiGateway, CreateEndpoint, EndpointConfig, PatchTags, RateLimit};

impl Document {
    /// Of a row of the store.
    pub(super) fn read(row: &EndpointRow) -> Result<Self, StoreError> {
        let unknown = |_| StoreError::Unknown { what: "the configuration of endpoint", value: row.name.clone() };
        serde_json::from_str(&row.document).map_err(unknown)
    }

    /// For a row of the store.
    pub(super) fn written(&self) -> String {
        // Names and texts alone: nothing that JSON has no form for.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl Record {
    pub(super) fn of(row: &EndpointRow) -> Result<Self, StoreError> {
        let EndpointRow { id, name, creator, created, updated, .. } = row.clone();
        Ok(Self { id, name, creator, created, updated, document: Document::read(row)? })
    }
}

impl ControlPlane {
    /// Makes an endpoint, whose models come up afterwards.
    ///
    /// # Errors
    /// The field to blame; 400 where there is one of that name.
    pub async fn create_endpoint(
        &self,
        _admin: &Admin,
        creator: &Principal,
        fields: CreateEndpoint,
    ) -> Result<Arc<Record>, ApiError> {
        let bad_name = |error: crate::endpoints::EndpointError| {
            ApiError::new(ErrorKind::OutOfRange, error.to_string()).with_field("name")
        };
        check_name(&fields.name).map_err(bad_name)?;
        checks::asks_for_nothing_else(&fields)?;
        let (id, created) = (Uuid::new_v4().simple().to_string(), now());
        let gateway = merged(fields.ai_gateway, fields.rate_limits)?;
        gateway.as_ref().map_or(Ok(()), |gateway| Policies::check(gateway, None, self.aides()))?;
        let mut document = Document {
            description: fields.description,
            tags: checks::tags(Vec::new(), PatchTags { add_tags: fields.tags, delete_tags: Vec::new() }, "tags")?,
            budget_policy_id: fields.budget_policy_id,
            ai_gateway: gateway,
            ..Document::default()
        };
        let mut literals = Vec::new();
        if let Some(config) = fields.config {
            let check = ConfigCheck { place: "config.", endpoint: &id, creator, version: 1 };
            let (config, secrets) = check.checked(config, &[], self.inner.deployments.models.as_ref())?;
            self.check_prices(&fields.name, &config, "config.")?;
            self.check_references(creator, &id, &config, &[]).await?;
            (document.pending, document.last_version, literals) = (Some(config), 1, secrets);
        }
        let row = EndpointRow {
            id,
            name: fields.name,
            creator: creator.name().to_owned(),
            created,
            updated: created,
            document: document.written(),
        };
        if self.gate().registry().has(&row.name) {
            return Err(already_exists("endpoint", &row.name).with_field("name"));
        }
        let mut change = self.store().change().await?;
        self.keep_literals(&mut change, &row.id, &document, literals).await?;
        change.add_endpoint(&row).await.map_err(|error| match error.is_duplicate() {
            true => already_exists("endpoint", &row.name).with_field("name"),
            false => error.into(),
        })?;
        let grant = GrantRow {
            endpoint_id: row.id.clone(),
            principal_id: creator.id().to_owned(),
            level: Permission::CanManage.name().to_owned(),
            origin: "api".to_owned(),
        };
        change.set_grant(&grant).await?;
        self.commit(change).await?;
        Ok(self.record(&row.id).map_or_else(|| Record::of(&row).map(Arc::new), Ok)?)
    }

    /// Gives an endpoint another configuration, which takes the place of the one before when it has come up.
    ///
    /// # Errors
    /// The field to blame; 409 while another one is coming up.
    pub async fn update_config(&self, allowed: &Allowed<Manage>, fields: EndpointConfig) -> Result<(), ApiError> {
        let (mut change, mut document) = self.begin(allowed).await?;
        if document.awaited().is_some() {
            let text =
                format!("endpoint `{}` is being updated; try again when that has ended", allowed.endpoint().name());
            return Err(ApiError::new(ErrorKind::Conflict, text));
        }
        let version = document.last_version + 1;
        let (id, caller) = (allowed.endpoint().id(), allowed.caller().principal());
        let check = ConfigCheck { place: "", endpoint: id, creator: caller, version };
        let before = document.shown().map_or(&[][..], |config| &config.entities);
        let (config, literals) = check.checked(fields, before, self.inner.deployments.models.as_ref())?;
        self.check_prices(allowed.endpoint().name(), &config, "")?;
        self.check_references(caller, id, &config, before).await?;
        document.pending = Some(config);
        document.failure = None;
        document.last_version = version;
        self.keep_literals(&mut change, id, &document, literals).await?;
        self.finish(change, allowed, &document).await
    }

    /// Removes an endpoint; its calls that have begun come to their end.
    ///
    /// # Errors
    /// 400 for one that the command line or the configuration file names.
    pub async fn delete_endpoint(&self, allowed: &Allowed<Manage>) -> Result<(), ApiError> {
        let (mut change, _) = self.begin(allowed).await?;
        self.forget_literals(&mut change, allowed.endpoint().id()).await?;
        change.delete_endpoint(allowed.endpoint().id()).await?;
        change.end_served_entities(allowed.endpoint().id(), now()).await?;
        self.commit(change).await
    }

    /// Changes an endpoint's tags.
    ///
    /// # Errors
    /// The field to blame.
    pub async fn patch_tags(&self, allowed: &Allowed<Manage>, fields: PatchTags) -> Result<(), ApiError> {
        let (change, mut document) = self.begin(allowed).await?;
        document.tags = checks::tags(document.tags, fields, "add_tags")?;
        self.finish(change, allowed, &document).await
    }

    /// Sets an endpoint's policies.
    ///
    /// # Errors
    /// The field to blame.
    pub async fn put_gateway(&self, allowed: &Allowed<Manage>, fields: AiGateway) -> Result<(), ApiError> {
        let (change, mut document) = self.begin(allowed).await?;
        Policies::check(&fields, document.ai_gateway.as_ref(), self.aides())?;
        document.ai_gateway = Some(fields);
        self.finish(change, allowed, &document).await
    }

    /// Sets an endpoint's limits alone.
    ///
    /// # Errors
    /// The field to blame.
    pub async fn put_rate_limits(&self, allowed: &Allowed<Manage>, limits: Vec<RateLimit>) -> Result<(), ApiError> {
        let (change, mut document) = self.begin(allowed).await?;
        let before = document.ai_gateway.take();
        let gateway = AiGateway { rate_limits: Some(limits), ..before.clone().unwrap_or_default() };
        Policies::check(&gateway, before.as_ref(), self.aides())?;
        document.ai_gateway = Some(gateway);
        self.finish(change, allowed, &document).await
    }

    fn aides(&self) -> &Aides {
        &self.gate().access().aides
    }

    /// Begins a change of an endpoint, as the store has it now.
    async fn begin(&self, allowed: &Allowed<Manage>) -> Result<(Change, Document), ApiError> {
        let endpoint = allowed.endpoint();
        let mut change = self.store().change().await?;
        let Some(row) = change.endpoint(endpoint.id()).await? else {
            if self.record(endpoint.id()).is_some() {
                return Err(does_not_exist("endpoint", endpoint.name()));
            }
            let text = format!(
                "endpoint `{}` was named when the server was started, by an argument or in the configuration file, and is \
                 changed there",
                endpoint.name()
            );
            return Err(ApiError::new(ErrorKind::BadRequest, text));
        };
        Ok((change, Document::read(&row)?))
    }

    async fn finish(&self, mut change: Change, allowed: &Allowed<Manage>, document: &Document) -> Result<(), ApiError> {
        change.set_endpoint(allowed.endpoint().id(), &document.written(), now()).await?;
        self.commit(change).await
    }
}

/// The policies, with limits that were given in their older place.
fn merged(gateway: Option<AiGateway>, limits: Option<Vec<RateLimit>>) -> Result<Option<AiGateway>, ApiError> {
    let Some(limits) = limits.filter(|limits| !limits.is_empty()) else { return Ok(gateway) };
    let gateway = gateway.unwrap_or_default();
    if gateway.rate_limits.is_some() {
        return Err(FieldError::conflict("rate_limits", "given in `ai_gateway` too").into());
    }
    Ok(Some(AiGateway { rate_limits: Some(limits), ..gateway }))
}

/// A model whose credential was given as it is, and where that is kept from now on.
pub(super) type Literal = (crate::wire::external::SecretReference, secrecy::SecretString);

/// The stored form of an external model, and the credential that is to be kept apart.
pub(super) fn stored(model: ExternalModel, key: &str) -> Result<(serde_json::Value, Option<Literal>), ApiError> {
    let reference = checks::own_reference(key)?;
    let (model, literal) = model.with_credential_reference(reference.clone());
    let unkept = || ApiError::internal("the model's credential cannot be kept", "a literal has no reference");
    Ok((model.stored().ok_or_else(unkept)?, literal.map(|literal| (reference, literal))))
}
