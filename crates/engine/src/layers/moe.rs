//! A mixture of experts in place of one feed-forward network: a router sends each token to a few of many. (Shazeer et al. 2017,
//! Jiang et al. 2024)

use candle_core::Tensor;

use super::{LayerSource, Linear, RowLayer};
use crate::error::Error;
use crate::ops::{Backend, Experts, Selection};
use crate::weights::WeightTensor;

/// The sizes of one mixture.
#[derive(Clone, Copy, Debug)]
pub struct MixtureConfig {
    /// Width of the residual stream.
    pub width: usize,
    /// Width inside an expert.
    pub inner: usize,
    /// Experts of the layer.
    pub experts: usize,
    /// How the router chooses.
    pub selection: Selection,
}

/// Router and experts of one layer.
pub struct MixtureOfExperts {
    backend: Backend,
    router: Linear,
    experts: Experts,
    selection: Selection,
}

impl MixtureOfExperts {
    /// Loads the router's `weight [experts, width]` from `router`; the experts are loaded by the architecture, whose names
    /// and layout they have.
    ///
    /// # Errors
    /// When the router is missing or misshapen.
    pub fn load(router: &LayerSource<'_>, experts: Experts, config: &MixtureConfig) -> Result<Self, Error> {
        Ok(Self {
            backend: router.backend.clone(),
            router: Linear::load(router, config.width, config.experts, false)?,
            experts,
            selection: config.selection,
        })
    }
}

impl RowLayer for MixtureOfExperts {
    fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
        let routing = self.backend.route(&self.router.forward(x)?, self.selection)?;
        self.experts.mix(x, &routing)
    }
}

/// Takes a tensor that holds `count` matrices one below the other apart, without a copy: `shape` is the tensor's, whatever
/// its number of dimensions.
///
/// # Errors
/// When it is missing or misshapen, or its rows cannot be shared out evenly.
pub fn stacked_tensors(
    source: &LayerSource<'_>,
    name: &str,
    shape: &[usize],
    count: usize,
) -> Result<Vec<WeightTensor>, Error> {
    let tensor = source.weights.tensor(&source.name(name), shape)?;
    Ok(tensor.split_rows(&vec![tensor.rows() / count; count])?)
}
