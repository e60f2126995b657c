//! The device of a model, and the arithmetic its operations use there.

use std::sync::Arc;

use candle_core::Device;
use hearth_kernels::Threads;

use super::tensors;
use crate::error::Error;

/// What computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arithmetic {
    /// Our CPU kernels, in host memory.
    Kernels,
    /// The tensor library's operations, on whatever device the tensors are.
    Tensors,
}

/// The device a model's tensors live on, with the threads of the CPU kernels. Cheap to clone.
#[derive(Clone)]
pub struct Backend {
    device: Device,
    threads: Arc<Threads>,
    arithmetic: Arithmetic,
}

impl Backend {
    /// A backend on `device`: the CPU computes with its kernels, on `threads`; every other device with the tensor
    /// library's operations.
    #[must_use]
    pub fn new(device: Device, threads: Arc<Threads>) -> Self {
        match device {
            Device::Cpu => Self { device, threads, arithmetic: Arithmetic::Kernels },
            _ => Self::with_tensor_operations(device, threads),
        }
    }

    /// A backend that computes with the tensor library's operations on the CPU too: what other devices run, where there
    /// is none to run it on. Slower than the kernels by far.
    #[must_use]
    pub fn with_tensor_operations(device: Device, threads: Arc<Threads>) -> Self {
        tensors::keep_activations_whole(&device);
        Self { device, threads, arithmetic: Arithmetic::Tensors }
    }

    /// Where tensors live.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The pool of the CPU kernels.
    #[must_use]
    pub fn threads(&self) -> &Threads {
        &self.threads
    }

    pub(super) fn arithmetic(&self) -> Arithmetic {
        self.arithmetic
    }

    /// Waits until the device has done what this thread gave it. A CUDA stream belongs to a thread, so what one thread began
    /// no other may go on with before this.
    ///
    /// # Errors
    /// When something that was given to it has failed.
    pub fn synchronize(&self) -> Result<(), Error> {
        Ok(self.device.synchronize()?)
    }
}
