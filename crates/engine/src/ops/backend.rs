//! The device of a model and what its operations need there.

use std::sync::Arc;

use candle_core::Device;
use hearth_kernels::Threads;

/// The device a model's tensors live on, with the threads of the CPU kernels. Cheap to clone.
#[derive(Clone)]
pub struct Backend {
    device: Device,
    threads: Arc<Threads>,
}

impl Backend {
    /// A backend on `device`; the CPU kernels run on `threads`.
    #[must_use]
    pub fn new(device: Device, threads: Arc<Threads>) -> Self {
        Self { device, threads }
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
}
