//! One row of weights: the scale of a norm, the bias of a product.

use candle_core::Tensor;

use super::Backend;
use super::backend::Arithmetic;
use crate::error::Error;

/// A row of f32 where the backend's operations want it.
#[derive(Clone, Debug)]
pub struct Vector(pub(super) Values);

/// Where it lies.
#[derive(Clone, Debug)]
pub(super) enum Values {
    /// For the CPU kernels.
    Host(Vec<f32>),
    /// For tensor operations, on the backend's device. `[n]`
    Device(Tensor),
}

impl Vector {
    /// Takes `values` to the backend, once for the life of the model.
    ///
    /// # Errors
    /// When the device has no memory for them.
    pub fn new(backend: &Backend, values: Vec<f32>) -> Result<Self, Error> {
        Ok(Self(match backend.arithmetic() {
            Arithmetic::Kernels => Values::Host(values),
            Arithmetic::Tensors => {
                let length = values.len();
                Values::Device(Tensor::from_vec(values, length, backend.device())?)
            }
        }))
    }

    /// The values in host memory, for a kernel.
    ///
    /// # Errors
    /// When they are on a device: the vector is another backend's.
    pub(super) fn host(&self) -> Result<&[f32], Error> {
        match &self.0 {
            Values::Host(values) => Ok(values),
            Values::Device(_) => Err(other_backend("a kernel", "a vector on a device")),
        }
    }

    /// The values on the device, for a tensor operation. `[n]`
    ///
    /// # Errors
    /// When they are not there: the vector is another backend's.
    pub(super) fn device(&self) -> Result<&Tensor, Error> {
        match &self.0 {
            Values::Device(values) => Ok(values),
            Values::Host(_) => Err(other_backend("a tensor operation", "a vector in host memory")),
        }
    }
}

/// Weights of one backend met operations of another.
pub(super) fn other_backend(operation: &str, found: &str) -> Error {
    Error::Tensor(candle_core::Error::Msg(format!("{operation} was given {found}")))
}
