//! A tensor in host memory, read as a slice without a copy.

use std::ops::Deref;

use candle_core::backend::BackendStorage as _;
use candle_core::{CpuStorage, Error, Layout, Result, Storage, Tensor};

/// A contiguous tensor on the CPU; `G` is the tensor's read lock.
pub(super) struct HostSlice<'a, G> {
    storage: G,
    layout: &'a Layout,
}

/// Locks a tensor for reading.
///
/// # Errors
/// When the tensor is on another device.
pub(super) fn host(tensor: &Tensor) -> Result<HostSlice<'_, impl Deref<Target = Storage>>> {
    let (storage, layout) = tensor.storage_and_layout();
    let slice = HostSlice { storage, layout };
    slice.on_cpu()?;
    Ok(slice)
}

impl<G: Deref<Target = Storage>> HostSlice<'_, G> {
    /// The elements of an f32 tensor in row-major order.
    pub(super) fn elements(&self) -> Result<&[f32]> {
        contiguous(self.on_cpu()?, self.layout)
    }

    /// The bytes of a whole tensor of f32, f16, bf16 or bytes in row-major order.
    pub(super) fn bytes(&self) -> Result<&[u8]> {
        match self.on_cpu()? {
            _ if !self.layout.is_contiguous() || self.layout.start_offset() != 0 => Err(not_contiguous(self.layout)),
            CpuStorage::F32(numbers) => Ok(bytemuck::cast_slice(numbers)),
            CpuStorage::F16(numbers) => Ok(bytemuck::cast_slice(numbers)),
            CpuStorage::BF16(numbers) => Ok(bytemuck::cast_slice(numbers)),
            CpuStorage::U8(bytes) => Ok(bytes),
            other => Err(no_bytes(other)),
        }
    }

    fn on_cpu(&self) -> Result<&CpuStorage> {
        match &*self.storage {
            Storage::Cpu(storage) => Ok(storage),
            _ => Err(Error::Msg("a CPU kernel got a tensor of another device".to_owned())),
        }
    }
}

/// As [`HostSlice::bytes`], to write to.
pub(super) fn bytes_mut(storage: &mut CpuStorage) -> Result<&mut [u8]> {
    match storage {
        CpuStorage::F32(numbers) => Ok(bytemuck::cast_slice_mut(numbers)),
        CpuStorage::F16(numbers) => Ok(bytemuck::cast_slice_mut(numbers)),
        CpuStorage::BF16(numbers) => Ok(bytemuck::cast_slice_mut(numbers)),
        CpuStorage::U8(bytes) => Ok(bytes),
        other => Err(no_bytes(other)),
    }
}

fn no_bytes(storage: &CpuStorage) -> Error {
    Error::Msg(format!("the bytes of a tensor of {:?} are not taken", storage.dtype()))
}

fn not_contiguous(layout: &Layout) -> Error {
    Error::Msg(format!("a CPU kernel got a tensor that is not contiguous: {layout:?}"))
}

/// The elements of a contiguous f32 storage.
pub(super) fn contiguous<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        return Err(not_contiguous(layout));
    };
    Ok(&storage.as_slice::<f32>()?[start..end])
}
