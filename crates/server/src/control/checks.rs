//! What a configuration of an endpoint must be like, in words that name the field, the bound and the value.

use std::collections::HashSet;

use uuid::Uuid;

use super::document::{Config, Entity, HostedEntity, What};
use super::endpoints::{Literal, stored};
use super::hosting::SharedModels;
use crate::endpoints::entity_name;
use crate::error::{ApiError, ErrorKind};
use crate::gate::Principal;
use crate::providers::external::ExternalModel;
use crate::store::now;
use crate::wire::external::SecretReference;
use crate::wire::serving::{
    CreateEndpoint, EmailNotifications, EndpointConfig, PatchTags, ServedEntityFields, Tag, TrafficConfig, Workload,
};
use crate::wire::{self, FieldError};

/// Most entities of an endpoint.
const ENTITIES: usize = 10;
/// Most tags of an endpoint.
const TAGS: usize = 20;
/// Longest key or value of a tag, and name of an entity.
const LENGTH: usize = 256;
/// The scope of the credentials that were given as they are. Its name cannot be that of a caller's scope.
pub(super) const OWN_SCOPE: &str = ".endpoints";

/// Where a configuration comes from.
pub(super) struct ConfigCheck<'a> {
    /// What stands before the names of its fields.
    pub(super) place: &'static str,
    /// The endpoint's id.
    pub(super) endpoint: &'a str,
    /// Who asks for it.
    pub(super) creator: &'a Principal,
    /// Its number.
    pub(super) version: i64,
}

impl ConfigCheck<'_> {
    /// The configuration that was typed, checked, and the credentials that are to be kept. What is as it was among `before`
    /// keeps its id, and goes on being served.
    pub(super) fn checked(
        &self,
        fields: EndpointConfig,
        before: &[Entity],
        models: &SharedModels,
    ) -> Result<(Config, Vec<Literal>), ApiError> {
        let place = self.place;
        if fields.auto_capture_config.is_some_and(|capture| capture["enabled"] != false) {
            return Err(FieldError::unsupported(format!("{place}auto_capture_config")).into());
        }
        let (list, given) = match (fields.served_entities, fields.served_models) {
            (Some(_), Some(models)) if !models.is_empty() => {
                let problem = "an older spelling of `served_entities`, which is given too";
                return Err(FieldError::conflict(format!("{place}served_models"), problem).into());
            }
            (Some(entities), _) => ("served_entities", entities),
            (None, Some(models)) => ("served_models", models),
            (None, None) => return Err(FieldError::Missing { field: format!("{place}served_entities") }.into()),
        };
        let list = format!("{place}{list}");
        if !(1..=ENTITIES).contains(&given.len()) {
            return Err(FieldError::value(list, format!("1 to {ENTITIES} entities"), given.len()).into());
        }
        let (mut entities, mut literals) = (Vec::new(), Vec::new());
        for (index, fields) in given.into_iter().enumerate() {
            let (entity, literal) = self.entity(fields, &format!("{list}[{index}]"), before, models)?;
            if entities.iter().any(|other: &Entity| other.name == entity.name) {
                let text = format!("another entity is named `{}` too", entity.name);
                return Err(FieldError::conflict(format!("{list}[{index}].name"), text).into());
            }
            entities.push(entity);
            literals.extend(literal);
        }
        share_out(&mut entities, fields.traffic_config.as_ref(), place)?;
        Ok((Config { version: self.version, started: now(), entities }, literals))
    }

    /// Refuses what only administrators may have loaded.
    fn may_serve(&self, model: &str, place: &str) -> Result<(), ApiError> {
        if self.creator.is_admin() || !leads_elsewhere(model) {
            return Ok(());
        }
        let text = "only members of the group `admins` may serve a model that is not in the catalogue";
        Err(ApiError::new(ErrorKind::Forbidden, text).with_field(format!("{place}.entity_name")))
    }

    fn entity(
        &self,
        fields: ServedEntityFields,
        place: &str,
        before: &[Entity],
        models: &SharedModels,
    ) -> Result<(Entity, Option<Literal>), ApiError> {
        let id = Uuid::new_v4().simple().to_string();
        let (what, literal, default_name) = match (fields.external_model, fields.entity_name) {
            (Some(_), Some(_)) => {
                let problem = "not with `entity_name`: an entity is hosted or external";
                return Err(FieldError::conflict(format!("{place}.external_model"), problem).into());
            }
            (None, None) => return Err(FieldError::Missing { field: format!("{place}.entity_name") }.into()),
            (Some(external), None) => {
                if let Some(field) = fields.workload.keys().next() {
                    let problem = "not with `external_model`, whose size is its provider's business";
                    return Err(FieldError::conflict(format!("{place}.{field}"), problem).into());
                }
                let model = ExternalModel::check(external, &format!("{place}.external_model"))?;
                let name = entity_name(model.name());
                let (what, literal) = stored(model, &format!("{}.{id}", self.endpoint))?;
                (What::External(what), literal, name)
            }
            (None, Some(name)) => {
                let version = fields.entity_version.unwrap_or_else(|| "1".to_owned());
                self.may_serve(&name, place)?;
                models.check(&name).map_err(|reason| {
                    ApiError::new(ErrorKind::NotFound, reason).with_field(format!("{place}.entity_name"))
                })?;
                let default_name = entity_name(&format!("{name}-{version}"));
                let workload: Workload = wire::read_object(fields.workload).map_err(|error| error.within(place))?;
                let scale_to_zero = fields.scale_to_zero_enabled;
                let hosted = HostedEntity { entity_name: name, entity_version: version, scale_to_zero, workload };
                (What::Hosted(hosted), None, default_name)
            }
        };
        let name = fields.name.unwrap_or(default_name);
        check_entity_name(&name, place)?;
        let same = before.iter().find(|entity| literal.is_none() && entity.name == name && entity.what == what);
        let entity = same.cloned().unwrap_or_else(|| {
            let creator = self.creator.name().to_owned();
            Entity { id, name, creator, created: now(), share: 0, what }
        });
        Ok((entity, literal))
    }
}

/// Whether a name of a model leads out of the catalogue: to this machine's files, or to a hub.
fn leads_elsewhere(name: &str) -> bool {
    name.contains(['/', '\\']) || name.starts_with(['.', '~'])
}

fn check_entity_name(name: &str, place: &str) -> Result<(), FieldError> {
    let legal = name.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_'));
    if legal && (1..=LENGTH).contains(&name.len()) {
        return Ok(());
    }
    let bound = format!("1 to {LENGTH} letters, digits, `-` and `_`");
    Err(FieldError::value(format!("{place}.name"), bound, format!("`{name}`")))
}

/// Sets the share of each entity.
fn share_out(entities: &mut [Entity], traffic: Option<&TrafficConfig>, place: &str) -> Result<(), FieldError> {
    let list = format!("{place}traffic_config.routes");
    let routes = traffic.map_or(&[][..], |traffic| &traffic.routes);
    if routes.is_empty() {
        if let [only] = entities {
            only.share = 100;
            return Ok(());
        }
        return Err(FieldError::Missing { field: list });
    }
    entities.iter_mut().for_each(|entity| entity.share = 0);
    let mut seen = HashSet::new();
    for (index, route) in routes.iter().enumerate() {
        let place = format!("{list}[{index}]");
        let name = match (&route.served_entity_name, &route.served_model_name) {
            (Some(name), Some(other)) if name != other => {
                let problem = format!("another spelling of `served_entity_name`, which is `{name}`, not `{other}`");
                return Err(FieldError::conflict(format!("{place}.served_model_name"), problem));
            }
            (Some(name), _) | (None, Some(name)) => name,
            (None, None) => return Err(FieldError::Missing { field: format!("{place}.served_entity_name") }),
        };
        if route.traffic_percentage > 100 {
            let bound = "a percentage between 0 and 100";
            return Err(FieldError::value(format!("{place}.traffic_percentage"), bound, route.traffic_percentage));
        }
        let entity = entities.iter_mut().find(|entity| entity.name == *name);
        let Some(entity) = entity.filter(|_| seen.insert(name)) else {
            let bound = "the name of a served entity, each once";
            return Err(FieldError::value(format!("{place}.served_entity_name"), bound, format!("`{name}`")));
        };
        entity.share = route.traffic_percentage;
    }
    let sum: u32 = entities.iter().map(|entity| entity.share).sum();
    if sum == 100 { Ok(()) } else { Err(FieldError::value(list, "percentages that sum up to 100", sum)) }
}

/// Refuses what this server cannot do for a new endpoint, unless nothing is asked for.
pub(super) fn asks_for_nothing_else(fields: &CreateEndpoint) -> Result<(), FieldError> {
    if fields.route_optimized == Some(true) {
        return Err(FieldError::unsupported_value("route_optimized", ": true"));
    }
    if let Some(notifications) = &fields.email_notifications {
        no_mail(notifications)?;
    }
    Ok(())
}

/// Refuses to send mail.
pub(crate) fn no_mail(notifications: &EmailNotifications) -> Result<(), FieldError> {
    if *notifications == EmailNotifications::default() {
        return Ok(());
    }
    Err(FieldError::unsupported_value("email_notifications", " with addresses"))
}

/// The tags after a change; `list` is the field of those that are added.
pub(super) fn tags(mut tags: Vec<Tag>, change: PatchTags, list: &str) -> Result<Vec<Tag>, FieldError> {
    tags.retain(|tag| !change.delete_tags.contains(&tag.key));
    for (index, tag) in change.add_tags.into_iter().enumerate() {
        let lengths = [("key", tag.key.len()), ("value", tag.value.as_ref().map_or(0, String::len))];
        if tag.key.is_empty() {
            return Err(FieldError::value(format!("{list}[{index}].key"), "a text that is not empty", "\"\""));
        }
        if let Some((field, length)) = lengths.into_iter().find(|(_, length)| *length > LENGTH) {
            let bound = format!("a text of at most {LENGTH} bytes");
            return Err(FieldError::value(format!("{list}[{index}].{field}"), bound, format!("{length} bytes")));
        }
        match tags.iter_mut().find(|known| known.key == tag.key) {
            Some(known) => known.value = tag.value,
            None => tags.push(tag),
        }
    }
    if tags.len() > TAGS {
        return Err(FieldError::value(list, format!("so few that the endpoint has at most {TAGS} tags"), tags.len()));
    }
    tags.sort_by(|one, other| one.key.cmp(&other.key));
    Ok(tags)
}

/// Where the credential of an entity is kept.
pub(super) fn own_reference(key: &str) -> Result<SecretReference, ApiError> {
    let bad = || ApiError::internal("the model's credential cannot be kept", format!("no key: {key}"));
    SecretReference::new(OWN_SCOPE, key).ok_or_else(bad)
}
