//! Products with 16-bit weights whose results are as good as f32.
//!
//! Rounding the activations to the weights' 8 or 11 bits, and each result again, is what such products usually do; it moves
//! log-probabilities by hundredths and more. Instead each row is cut into two of the weights' type, the rounded one and what rounding
//! left (16 bits of mantissa for bf16, 22 for f16), both are multiplied, summed in f32, and added in f32. It costs twice the
//! multiplications; where reading the weights is what takes the time, as with few rows, it costs nothing.

use candle_core::{D, DType, Tensor};

use crate::error::Error;

/// `x [.., m, inputs]` times transposed `weights [.., outputs, inputs]`, to `[.., m, outputs]`, f32 on both sides.
pub(super) fn multiply(x: &Tensor, weights: &Tensor) -> Result<Tensor, Error> {
    let (rows_at, rows) = (x.rank() - 2, x.dim(D::Minus2)?);
    let (scaled, scale) = scaled(x, weights.dtype())?;
    let rounded = scaled.to_dtype(weights.dtype())?;
    let rest = (&scaled - rounded.to_dtype(DType::F32)?)?.to_dtype(weights.dtype())?;
    let products = wide_product(&Tensor::cat(&[rounded, rest], rows_at)?, weights)?; // [.., 2 * m, outputs]
    let sum = (products.narrow(rows_at, 0, rows)? + products.narrow(rows_at, rows, rows)?)?;
    match scale {
        Some(scale) => Ok(sum.broadcast_mul(&scale)?),
        None => Ok(sum),
    }
}

/// Rows as the type can hold them: f16 ends at 65504, so each is divided by its largest magnitude. `[.., m, 1]`
fn scaled(x: &Tensor, dtype: DType) -> Result<(Tensor, Option<Tensor>), Error> {
    if dtype != DType::F16 {
        return Ok((x.clone(), None));
    }
    let scale = (x.abs()?.max_keepdim(D::Minus1)? + f64::from(f32::MIN_POSITIVE))?; // a row of zeros stays one
    Ok((x.broadcast_div(&scale)?, Some(scale)))
}

/// A product of 16-bit factors that is summed and given in f32. Where there is no operation for it, the weights are widened first:
/// the same numbers, for a transient copy of twice the weights' size.
fn wide_product(rows: &Tensor, weights: &Tensor) -> Result<Tensor, Error> {
    #[cfg(feature = "cuda")]
    if rows.device().is_cuda() {
        return cuda::wide_product(rows, weights);
    }
    Ok(rows.to_dtype(DType::F32)?.matmul(&weights.to_dtype(DType::F32)?.t()?)?)
}

#[cfg(feature = "cuda")]
mod cuda {
    //! The product on a CUDA device, which reads the weights once and as they are.

    use candle_core::backend::BackendStorage;
    use candle_core::cuda_backend::{CudaDType, CudaStorage};
    use candle_core::{CpuStorage, CustomOp2, DType, Layout, Shape, Tensor};
    use hearth_kernels::wide_product::{SixteenBits, WideProduct, bf16, f16};

    use crate::error::Error;

    pub(super) fn wide_product(rows: &Tensor, weights: &Tensor) -> Result<Tensor, Error> {
        Ok(rows.contiguous()?.apply_op2_no_bwd(&weights.contiguous()?, &Product)?)
    }

    /// `[.., m, inputs]` and `[.., outputs, inputs]` to `[.., m, outputs]`.
    struct Product;

    impl CustomOp2 for Product {
        fn name(&self) -> &'static str {
            "wide-product"
        }

        fn cpu_fwd(
            &self,
            _: &CpuStorage,
            _: &Layout,
            _: &CpuStorage,
            _: &Layout,
        ) -> candle_core::Result<(CpuStorage, Shape)> {
            candle_core::bail!("the product is made for CUDA devices")
        }

        fn cuda_fwd(
            &self,
            rows: &CudaStorage,
            rows_layout: &Layout,
            weights: &CudaStorage,
            weights_layout: &Layout,
        ) -> candle_core::Result<(CudaStorage, Shape)> {
            let factors = [(rows, rows_layout), (weights, weights_layout)];
            match rows.dtype() {
                DType::BF16 => multiply::<bf16>(factors),
                DType::F16 => multiply::<f16>(factors),
                other => candle_core::bail!("the product is of 16-bit numbers, not of {other:?}"),
            }
        }
    }

    fn multiply<T: CudaDType + SixteenBits>(
        [(rows, rows_layout), (weights, weights_layout)]: [(&CudaStorage, &Layout); 2],
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        let [.., m, inputs] = *rows_layout.dims() else { candle_core::bail!("rows have two dimensions or more") };
        let [ref outer @ .., outputs, _] = *weights_layout.dims() else {
            candle_core::bail!("weights have two dimensions or more")
        };
        let batch = outer.iter().product();
        let part = |layout: &Layout| {
            layout.contiguous_offsets().ok_or_else(|| candle_core::Error::Msg("a factor is not contiguous".to_owned()))
        };
        let ((rows_start, rows_end), (start, end)) = (part(rows_layout)?, part(weights_layout)?);
        let device = rows.device().clone();
        let mut out = device.alloc_zeros::<f32>(batch * m * outputs)?;
        let product = WideProduct { batch, rows: m, inputs, outputs };
        let rows = rows.as_cuda_slice::<T>()?.slice(rows_start..rows_end);
        let weights = weights.as_cuda_slice::<T>()?.slice(start..end);
        product.compute(&device.cublas_handle(), &rows, &weights, &mut out).map_err(candle_core::Error::wrap)?;
        let shape = [outer, &[m, outputs]].concat();
        Ok((CudaStorage::wrap_cuda_slice(out, device), Shape::from(shape)))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    /// Against a product in f64 of the weights as they are.
    fn worst(x: &Tensor, dtype: DType) -> f64 {
        let weights = Tensor::randn(0_f32, 1.0, (24, 96), &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
        let ours = multiply(x, &weights).unwrap().to_dtype(DType::F64).unwrap();
        let wide = |tensor: &Tensor| tensor.to_dtype(DType::F64).unwrap();
        let exact = wide(x).matmul(&wide(&weights).t().unwrap()).unwrap();
        let error = (ours - &exact).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
        error / exact.abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap()
    }

    #[test]
    fn activations_keep_what_16_bits_would_lose() {
        let x = Tensor::randn(0_f32, 3.0, (5, 96), &Device::Cpu).unwrap();
        for dtype in [DType::BF16, DType::F16] {
            let error = worst(&x, dtype);
            assert!(error < 2e-5, "{dtype:?}: {error}");
        }
    }

    #[test]
    fn activations_beyond_the_range_of_f16_do_not_overflow() {
        let x = Tensor::randn(0_f32, 1e6, (3, 96), &Device::Cpu).unwrap();
        assert!(worst(&x, DType::F16) < 1e-5);
        let zeros = Tensor::zeros((2, 96), DType::F32, &Device::Cpu).unwrap();
        let weights = Tensor::ones((4, 96), DType::F16, &Device::Cpu).unwrap();
        let product = multiply(&zeros, &weights).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(product.iter().all(|value| *value == 0.0));
    }
}
