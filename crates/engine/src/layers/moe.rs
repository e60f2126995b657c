//! A mixture of experts in place of one feed-forward network: a router sends each token to a few of many. (Shazeer et al. 2017,
//! Jiang et al. 2024)

use candle_core::Tensor;

use super::{LayerSource, Linear, RowLayer};
use crate::error::Error;
use crate::ops::{Backend, Expert, Matrix, Orientation, Selection};

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
    experts: Vec<Expert>,
    selection: Selection,
}

impl MixtureOfExperts {
    /// Loads the router's `weight [experts, width]` from `router`; the experts are loaded by the architecture, whose names
    /// and layout they have.
    ///
    /// # Errors
    /// When the router is missing or misshapen.
    pub fn load(router: &LayerSource<'_>, experts: Vec<Expert>, config: &MixtureConfig) -> Result<Self, Error> {
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
        self.backend.mix_experts(x, &routing, &self.experts)
    }
}

/// The matrices of a layer's experts by kind, each as long as there are experts.
pub struct ExpertMatrices {
    /// Each `[inner, width]`.
    pub gate: Vec<Matrix>,
    /// Each `[inner, width]`.
    pub up: Vec<Matrix>,
    /// Each from `inner` to `width`.
    pub down: Vec<Matrix>,
}

impl ExpertMatrices {
    /// The same, expert by expert.
    #[must_use]
    pub fn into_experts(self) -> Vec<Expert> {
        let Self { gate, up, down } = self;
        gate.into_iter().zip(up).zip(down).map(|((gate, up), down)| Expert { gate, up, down }).collect()
    }
}

/// Takes a tensor that holds several matrices one below the other apart, without a copy: `shape` is the tensor's, whatever
/// its number of dimensions.
///
/// # Errors
/// When it is missing or misshapen, or its rows cannot be shared out evenly.
pub fn stacked_matrices(
    source: &LayerSource<'_>,
    name: &str,
    shape: &[usize],
    (count, orientation): (usize, Orientation),
) -> Result<Vec<Matrix>, Error> {
    let tensor = source.weights.tensor(&source.name(name), shape)?;
    let parts = tensor.split_rows(&vec![tensor.rows() / count; count])?;
    parts.into_iter().map(|part| Ok(Matrix::new(source.backend, part)?.oriented(orientation))).collect()
}
