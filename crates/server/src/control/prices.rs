//! Prices of what is to be served, where a budget in money asks for them.

use super::document::What;
use super::{Config, ControlPlane};
use crate::wire::FieldError;

impl ControlPlane {
    /// Refuses a configuration of an endpoint with a budget in money that serves what has no price.
    pub(super) fn check_prices(&self, endpoint: &str, config: &Config, place: &str) -> Result<(), FieldError> {
        let models: Vec<String> = config.entities.iter().map(|entity| self.model_of(&entity.what)).collect();
        let Some(model) = self.gate().counters().budgets().unpriced(endpoint, models.iter().map(String::as_str)) else {
            return Ok(());
        };
        let index = models.iter().position(|other| other == model).unwrap_or_default();
        let text = format!("the model `{model}` has no price, and endpoint `{endpoint}` has a budget in money");
        Err(FieldError::conflict(format!("{place}served_entities[{index}]"), text))
    }

    /// The name of the model, which prices go by.
    fn model_of(&self, what: &What) -> String {
        match what {
            What::External(model) => model["name"].as_str().unwrap_or_default().to_owned(),
            What::Hosted(hosted) => {
                let known = self.inner.deployments.models.model_name(&hosted.entity_name);
                known.unwrap_or_else(|_| hosted.entity_name.clone())
            }
        }
    }
}
