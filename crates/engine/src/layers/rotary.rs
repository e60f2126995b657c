//! Rotary frequencies from a checkpoint's configuration, in both spellings that checkpoints have.

use serde::Deserialize;
use serde_json::Value;

use crate::error::Error;

/// How positions are turned into angles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeType {
    /// The frequencies as they are.
    Default,
    /// Positions divided by `factor`. (Chen et al. 2023)
    Linear {
        /// How far the context is stretched.
        factor: f64,
    },
    /// Llama 3.1: low frequencies divided by `factor`, high ones kept, a ramp between.
    Llama3 {
        /// How far the context is stretched.
        factor: f64,
        /// Wavelengths above `original / low_frequency_factor` are stretched.
        low_frequency_factor: f64,
        /// Wavelengths below `original / high_frequency_factor` are kept.
        high_frequency_factor: f64,
        /// The context before stretching.
        original: f64,
    },
}

/// Base and scaling of the rotary frequencies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RopeParameters {
    /// The base of the geometric series of wavelengths.
    pub theta: f64,
    /// The scaling.
    pub rope_type: RopeType,
}

/// `rope_scaling` or `rope_parameters` as they are written.
#[derive(Debug, Default, Deserialize)]
struct Written {
    rope_type: Option<String>,
    /// The older spelling of `rope_type`; a checkpoint that was saved again carries both.
    r#type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
}

impl RopeParameters {
    /// Reads `rope_parameters`, or `rope_theta` with `rope_scaling`, from a `config.json`. Without any of them the
    /// base is 10,000 and nothing is scaled.
    ///
    /// # Errors
    /// An unknown type, or a parameter of the type that is missing or not positive.
    pub fn from_config(config: &Value) -> Result<Self, Error> {
        let field = match config.get("rope_parameters").is_some_and(|value| !value.is_null()) {
            true => "rope_parameters",
            false => "rope_scaling",
        };
        let written = match config.get(field) {
            None | Some(Value::Null) => Written::default(),
            Some(value) => Written::deserialize(value).map_err(|error| Error::config(field, error.to_string()))?,
        };
        let outer_theta = match config.get("rope_theta") {
            None | Some(Value::Null) => None,
            Some(value) => {
                let reason = || Error::config("rope_theta", format!("must be a number, not {value}"));
                Some(value.as_f64().ok_or_else(reason)?)
            }
        };
        let theta = positive(field, "rope_theta", Some(written.rope_theta.or(outer_theta).unwrap_or(10_000.0)))?;
        Ok(Self { theta, rope_type: written.rope_type(field)? })
    }

    /// The angle a token turns each pair of a head's elements: `[head_dim / 2]`, in radians.
    ///
    /// Computed in f32 in the order of the reference implementation, so that the angles agree to the last bit.
    #[must_use]
    pub fn inverse_frequencies(&self, head_dim: usize) -> Vec<f32> {
        let plain = (0..head_dim / 2).map(|pair| {
            let exponent = (2 * pair) as f32 / head_dim as f32;
            1.0 / (self.theta as f32).powf(exponent)
        });
        plain.map(|frequency| self.rope_type.scale(frequency)).collect()
    }
}

impl RopeType {
    fn scale(self, frequency: f32) -> f32 {
        match self {
            Self::Default => frequency,
            Self::Linear { factor } => frequency / factor as f32,
            Self::Llama3 { factor, low_frequency_factor, high_frequency_factor, original } => {
                let wavelength = 2.0 * std::f32::consts::PI / frequency;
                if wavelength > (original / low_frequency_factor) as f32 {
                    return frequency / factor as f32;
                }
                if wavelength < (original / high_frequency_factor) as f32 {
                    return frequency;
                }
                let ramp = (original as f32 / wavelength - low_frequency_factor as f32)
                    / (high_frequency_factor - low_frequency_factor) as f32;
                (1.0 - ramp) * frequency / factor as f32 + ramp * frequency
            }
        }
    }
}

impl Written {
    fn rope_type(&self, field: &str) -> Result<RopeType, Error> {
        match self.rope_type.as_deref().or(self.r#type.as_deref()) {
            None | Some("default") => Ok(RopeType::Default),
            Some("linear") => Ok(RopeType::Linear { factor: positive(field, "factor", self.factor)? }),
            Some("llama3") => {
                let low_frequency_factor = positive(field, "low_freq_factor", self.low_freq_factor)?;
                let high_frequency_factor = positive(field, "high_freq_factor", self.high_freq_factor)?;
                if high_frequency_factor <= low_frequency_factor {
                    let reason = format!("high_freq_factor {high_frequency_factor} must exceed {low_frequency_factor}");
                    return Err(Error::config(field, reason));
                }
                let original = self.original_max_position_embeddings;
                Ok(RopeType::Llama3 {
                    factor: positive(field, "factor", self.factor)?,
                    low_frequency_factor,
                    high_frequency_factor,
                    original: positive(field, "original_max_position_embeddings", original)?,
                })
            }
            Some(other) => {
                let reason = format!("rope type {other:?} is not supported; default, linear and llama3 are");
                Err(Error::config(field, reason))
            }
        }
    }
}

fn positive(field: &str, name: &str, value: Option<f64>) -> Result<f64, Error> {
    match value {
        Some(value) if value > 0.0 && value.is_finite() => Ok(value),
        Some(value) => Err(Error::config(format!("{field}.{name}"), format!("must be positive, not {value}"))),
        None => Err(Error::config(format!("{field}.{name}"), "is missing")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_spellings_mean_the_same() {
        let older = json!({"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}});
        let newer = json!({"rope_parameters": {"rope_theta": 5e5, "rope_type": "linear", "factor": 2}});
        let read = RopeParameters::from_config(&older).unwrap();
        assert_eq!(read, RopeParameters { theta: 5e5, rope_type: RopeType::Linear { factor: 2.0 } });
        assert_eq!(read, RopeParameters::from_config(&newer).unwrap());
        let both = json!({"rope_theta": 5e5, "rope_scaling": {"type": "linear", "rope_type": "linear", "factor": 2}});
        assert_eq!(read, RopeParameters::from_config(&both).unwrap());
        assert_eq!(RopeParameters::from_config(&json!({})).unwrap().theta, 10_000.0);
    }

    #[test]
    fn what_cannot_be_honoured_is_named() {
        let error = |config| RopeParameters::from_config(&config).unwrap_err().to_string();
        assert!(error(json!({"rope_scaling": {"rope_type": "yarn"}})).contains("\"yarn\""));
        assert!(error(json!({"rope_scaling": {"rope_type": "linear"}})).contains("rope_scaling.factor"));
        assert!(error(json!({"rope_theta": -1.0})).contains("not -1"));
    }

    #[test]
    fn llama3_keeps_short_waves_and_stretches_long_ones() {
        let rope_type =
            RopeType::Llama3 { factor: 8.0, low_frequency_factor: 1.0, high_frequency_factor: 4.0, original: 8192.0 };
        let scaled = RopeParameters { theta: 5e5, rope_type }.inverse_frequencies(128);
        let plain = RopeParameters { theta: 5e5, rope_type: RopeType::Default }.inverse_frequencies(128);
        assert_eq!(scaled[0], plain[0]);
        assert_eq!(scaled[63], plain[63] / 8.0);
        assert!(scaled.windows(2).all(|pair| pair[0] > pair[1]), "the ramp between is monotonous");
    }
}
