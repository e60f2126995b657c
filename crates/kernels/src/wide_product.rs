//! Products on a CUDA device of 16-bit factors into f32, by cuBLAS: the results are not rounded to 16 bits again.
//!
//! It knows where numbers lie on a device, not what they stand for.
#![expect(unsafe_code, reason = "cuBLAS takes addresses; they come from slices of the lengths that are checked here")]

use std::ffi::c_int;

use cudarc::cublas::result::{CublasError, gemm_strided_batched_ex};
use cudarc::cublas::sys::{cublasComputeType_t, cublasGemmAlgo_t, cublasOperation_t, cudaDataType_t};
use cudarc::cublas::{CudaBlas, sys};
use cudarc::driver::{CudaSlice, CudaView, DevicePtr, DevicePtrMut};
pub use half::{bf16, f16};

use crate::error::{KernelError, check_length, size};

/// Why a product was not computed.
#[derive(Debug, thiserror::Error)]
pub enum WideProductError {
    /// The slices do not fit the sizes.
    #[error(transparent)]
    Argument(#[from] KernelError),
    /// The library refuses.
    #[error("cuBLAS: {0:?}")]
    Library(sys::cublasStatus_t),
}

/// A 16-bit number that cuBLAS multiplies.
pub trait SixteenBits {
    /// What cuBLAS calls it.
    const TYPE: cudaDataType_t;
}

impl SixteenBits for bf16 {
    const TYPE: cudaDataType_t = cudaDataType_t::CUDA_R_16BF;
}

impl SixteenBits for f16 {
    const TYPE: cudaDataType_t = cudaDataType_t::CUDA_R_16F;
}

/// The sizes of `batch` products `[rows, inputs] · [outputs, inputs]ᵀ`, one after the other.
#[derive(Debug, Clone, Copy)]
pub struct WideProduct {
    /// Products.
    pub batch: usize,
    /// Rows of each.
    pub rows: usize,
    /// What is summed over.
    pub inputs: usize,
    /// Columns of each result.
    pub outputs: usize,
}

impl WideProduct {
    /// Writes the products of `x [batch, rows, inputs]` and `weights [batch, outputs, inputs]` to `out [batch, rows, outputs]`,
    /// summed in f32. It is done when the stream of `out`, which must be the library's, has come so far.
    ///
    /// # Errors
    /// When a slice has another length, a size is beyond 31 bits, or the library refuses.
    pub fn compute<T: SixteenBits>(
        &self,
        library: &CudaBlas,
        x: &CudaView<'_, T>,
        weights: &CudaView<'_, T>,
        out: &mut CudaSlice<f32>,
    ) -> Result<(), WideProductError> {
        let Self { batch, rows, inputs, outputs } = *self;
        check_length("x", x.len(), size("x", &[batch, rows, inputs])?)?;
        check_length("weights", weights.len(), size("weights", &[batch, outputs, inputs])?)?;
        check_length("out", out.len(), size("out", &[batch, rows, outputs])?)?;
        let [m, n, k, count] = [int(outputs)?, int(rows)?, int(inputs)?, int(batch)?];
        let stream = out.stream().clone();
        let (x, _x_read) = x.device_ptr(&stream);
        let (weights, _weights_read) = weights.device_ptr(&stream);
        let (out, _out_written) = out.device_ptr_mut(&stream);
        let (one, zero) = (1.0_f32, 0.0_f32);
        // The library's matrices stand column by column, so that ours are its transposed ones: it computes
        // `outᵀ [outputs, rows] = weights · xᵀ`.
        // SAFETY: the three regions are on the library's device and as long as the sizes say, which was checked; `out` is borrowed
        // mutably and overlaps neither. Both scalars outlive the call, which reads them before it returns.
        let done = unsafe {
            gemm_strided_batched_ex(
                *library.handle(),
                cublasOperation_t::CUBLAS_OP_T,
                cublasOperation_t::CUBLAS_OP_N,
                m,
                n,
                k,
                (&raw const one).cast(),
                weights as *const _,
                T::TYPE,
                k,
                (outputs * inputs) as i64,
                x as *const _,
                T::TYPE,
                k,
                (rows * inputs) as i64,
                (&raw const zero).cast(),
                out as *mut _,
                cudaDataType_t::CUDA_R_32F,
                m,
                (rows * outputs) as i64,
                count,
                cublasComputeType_t::CUBLAS_COMPUTE_32F,
                cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT_TENSOR_OP,
            )
        };
        done.map_err(|CublasError(status)| WideProductError::Library(status))
    }
}

fn int(size: usize) -> Result<c_int, KernelError> {
    let bound = c_int::MAX as usize;
    c_int::try_from(size).map_err(|_| KernelError::OutOfBounds {
        argument: "a size of the product",
        bound,
        value: size,
    })
}
