//! A tensor in host memory, read as a slice without a copy.

use std::ops::Deref;

use candle_core::{CpuStorage, Error, Layout, Result, Storage, Tensor};

/// The elements of a contiguous f32 tensor on the CPU; `G` is the tensor's read lock.
pub(super) struct HostSlice<'a, G> {
    storage: G,
    layout: &'a Layout,
}

/// Locks a tensor for reading.
///
/// # Errors
/// When the tensor is on another device, not f32 or not contiguous.
pub(super) fn host(tensor: &Tensor) -> Result<HostSlice<'_, impl Deref<Target = Storage>>> {
    let (storage, layout) = tensor.storage_and_layout();
    let slice = HostSlice { storage, layout };
    slice.elements()?;
    Ok(slice)
}

impl<G: Deref<Target = Storage>> HostSlice<'_, G> {
    /// The elements in row-major order.
    pub(super) fn elements(&self) -> Result<&[f32]> {
        match &*self.storage {
            Storage::Cpu(storage) => contiguous(storage, self.layout),
            _ => Err(Error::Msg("a CPU kernel got a tensor of another device".to_owned())),
        }
    }
}

/// The elements of a contiguous f32 storage.
pub(super) fn contiguous<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        return Err(Error::Msg(format!("a CPU kernel got a tensor that is not contiguous: {layout:?}")));
    };
    Ok(&storage.as_slice::<f32>()?[start..end])
}
