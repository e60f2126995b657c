//! A mixture of experts without asking the device who was chosen.
//!
//! 16-bit experts on a CUDA device are multiplied by one grouped kernel: each token meets its own experts alone. Everywhere else the
//! host would have to know the choice, and wait for it in every layer. Instead each expert is applied to every token, with the weight 0
//! where it was not chosen: `experts / top_k` times the products that are needed, and the weights of all experts read in each
//! step. Few tokens with unquantised weights copy the matrices of their own experts instead, which is cheaper while there are
//! fewer choices than experts.

use candle_core::{D, DType, Device, Tensor};
use candle_nn::moe::moe_gemm;
use candle_nn::ops::softmax_last_dim;

use super::UploadedMatrix;
use super::matrix::{dense_type, multiply_dense, upload_dense};
use super::rows::{cast, silu_mul};
use crate::error::Error;
use crate::ops::{ExpertTensors, Orientation, Selection};
use crate::weights::WeightTensor;

/// Most choices that are sorted at a time: one thread block sorts them in its shared memory.
const SORTED_CHOICES: usize = 4096;

/// The grouped kernel reads this many elements at a time.
const GROUPED_COLUMNS: usize = 8;

/// The experts of each token, best first.
#[derive(Clone, Debug)]
pub(in crate::ops) struct DeviceRouting {
    /// `[tokens, top_k]`, u32.
    experts: Tensor,
    /// `[tokens, top_k]`
    weights: Tensor,
}

impl DeviceRouting {
    /// Softmax over `logits [tokens, experts]`, then the likeliest of each token.
    pub(in crate::ops) fn new(logits: &Tensor, selection: Selection) -> Result<Self, Error> {
        let (_, experts) = logits.dims2()?;
        let probabilities = softmax_last_dim(&logits.contiguous()?)?;
        let order = probabilities.arg_sort_last_dim(false)?;
        let chosen = order.narrow(1, 0, selection.top_k.min(experts))?.contiguous()?;
        let weights = probabilities.gather(&chosen, 1)?;
        let weights = match selection.norm {
            None => weights,
            Some(1.0) => weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?,
            Some(p) => {
                let p = f64::from(p);
                let length = weights.powf(p)?.sum_keepdim(D::Minus1)?.powf(1.0 / p)?; // [tokens, 1]
                weights.broadcast_div(&length)?
            }
        };
        Ok(Self { experts: chosen, weights })
    }

    fn rows(&self, start: usize, length: usize) -> Result<Self, Error> {
        let part = |tensor: &Tensor| tensor.narrow(0, start, length);
        Ok(Self { experts: part(&self.experts)?, weights: part(&self.weights)? })
    }

    /// The weight of every expert for every token, 0 where it was not chosen: `[tokens, experts]`.
    fn spread(&self, experts: usize) -> Result<Tensor, Error> {
        let (tokens, _) = self.weights.dims2()?;
        let none = Tensor::zeros((tokens, experts), DType::F32, self.weights.device())?;
        Ok(none.scatter(&self.experts.contiguous()?, &self.weights.contiguous()?, 1)?)
    }
}

/// The experts of one layer on a device.
pub(in crate::ops) enum DeviceExperts {
    /// Unquantised, each matrix of all experts in one tensor.
    Stacked(StackedExperts),
    /// One by one, each in its own format.
    Separate(Vec<SeparateExpert>),
}

/// Each `[experts, outputs, inputs]`, all of one type.
pub(in crate::ops) struct StackedExperts {
    gate: Tensor,
    up: Tensor,
    down: Tensor,
}

/// The matrices of one expert.
pub(in crate::ops) struct SeparateExpert {
    gate: UploadedMatrix,
    up: UploadedMatrix,
    down: UploadedMatrix,
}

impl DeviceExperts {
    /// Uploads the experts one after the other, each to its place, so that no second copy of a layer is ever made.
    pub(in crate::ops) fn upload(device: &Device, tensors: &ExpertTensors) -> Result<Self, Error> {
        let ExpertTensors { gate, up, down, down_orientation } = tensors;
        let mut types = [gate, up, down].into_iter().flatten().map(|tensor| dense_type(tensor.format));
        let first = types.next().flatten();
        if let Some(dtype) = first.filter(|_| types.all(|other| other == first)) {
            let plain = Orientation::OutputsByInputs;
            return Ok(Self::Stacked(StackedExperts {
                gate: stack(device, gate, dtype, plain)?,
                up: stack(device, up, dtype, plain)?,
                down: stack(device, down, dtype, *down_orientation)?,
            }));
        }
        let upload = |tensor, orientation| UploadedMatrix::upload(device, tensor, orientation);
        let plain = Orientation::OutputsByInputs;
        let experts = gate.iter().zip(up).zip(down).map(|((gate, up), down)| {
            let (gate, up, down) = (upload(gate, plain)?, upload(up, plain)?, upload(down, *down_orientation)?);
            Ok(SeparateExpert { gate, up, down })
        });
        Ok(Self::Separate(experts.collect::<Result<_, Error>>()?))
    }

    /// `x [tokens, width]` to `[tokens, width]`.
    pub(in crate::ops) fn mix(&self, x: &Tensor, routing: &DeviceRouting) -> Result<Tensor, Error> {
        match self {
            Self::Stacked(experts) => experts.mix(x, routing),
            Self::Separate(experts) => mix_all(x, &routing.spread(experts.len())?, |expert, x| {
                let SeparateExpert { gate, up, down } = &experts[expert];
                down.multiply(&silu_mul(&gate.multiply(x)?, &up.multiply(x)?)?)
            }),
        }
    }
}

/// All matrices below each other: `[experts, outputs, inputs]`.
fn stack(
    device: &Device,
    tensors: &[WeightTensor],
    dtype: DType,
    orientation: Orientation,
) -> Result<Tensor, Error> {
    let first = tensors.first().ok_or_else(|| Error::config("experts", "a layer has none"))?;
    let [rows, cols] = first.shape[..] else {
        let reason = format!("an expert's matrix has two dimensions, this has shape {:?}", first.shape);
        return Err(Error::config(&first.name, reason));
    };
    let (outputs, inputs) = match orientation {
        Orientation::OutputsByInputs => (rows, cols),
        Orientation::InputsByOutputs => (cols, rows),
    };
    let whole = Tensor::zeros((tensors.len(), outputs, inputs), dtype, device)?;
    for (index, tensor) in tensors.iter().enumerate() {
        whole.slice_set(&upload_dense(device, tensor, dtype, orientation)?.unsqueeze(0)?, 0, index)?;
    }
    Ok(whole)
}

/// The sum over all experts of what each makes of all tokens, by `weights [tokens, experts]`.
fn mix_all(
    x: &Tensor,
    weights: &Tensor,
    forward: impl Fn(usize, &Tensor) -> Result<Tensor, Error>,
) -> Result<Tensor, Error> {
    let mut sum = x.zeros_like()?; // [tokens, width]
    for expert in 0..weights.dim(1)? {
        let weight = weights.narrow(1, expert, 1)?; // [tokens, 1]
        sum = (sum + forward(expert, x)?.broadcast_mul(&weight)?)?;
    }
    Ok(sum)
}

impl StackedExperts {
    fn mix(&self, x: &Tensor, routing: &DeviceRouting) -> Result<Tensor, Error> {
        let ((tokens, _), (_, top_k)) = (x.dims2()?, routing.experts.dims2()?);
        let experts = self.gate.dim(0)?;
        if self.fits_grouped_kernel(x.device())? {
            let step = (SORTED_CHOICES / top_k).max(1);
            let parts: Vec<Tensor> = (0..tokens)
                .step_by(step)
                .map(|start| {
                    let length = step.min(tokens - start);
                    self.mix_chosen(&x.narrow(0, start, length)?, &routing.rows(start, length)?, grouped)
                })
                .collect::<Result<_, _>>()?;
            return Ok(Tensor::cat(&parts, 0)?);
        }
        if tokens * top_k < experts {
            return self.mix_chosen(x, routing, gathered);
        }
        mix_all(x, &routing.spread(experts)?, |expert, x| {
            let one = |stack: &Tensor| stack.get(expert);
            let gate = multiply_dense(x, &one(&self.gate)?)?;
            multiply_dense(&silu_mul(&gate, &multiply_dense(x, &one(&self.up)?)?)?, &one(&self.down)?)
        })
    }

    fn fits_grouped_kernel(&self, device: &Device) -> Result<bool, Error> {
        let ((_, inner, width), half) = (self.gate.dims3()?, self.gate.dtype() != DType::F32);
        let aligned = width.is_multiple_of(GROUPED_COLUMNS) && inner.is_multiple_of(GROUPED_COLUMNS);
        Ok(device.is_cuda() && half && aligned)
    }

    /// Each token with its own experts alone. `product` multiplies the row of each choice with its expert's matrix.
    fn mix_chosen(
        &self,
        x: &Tensor,
        routing: &DeviceRouting,
        product: fn(&Tensor, &Tensor, &Choices) -> Result<Tensor, Error>,
    ) -> Result<Tensor, Error> {
        let ((tokens, width), choices) = (x.dims2()?, Choices::new(routing)?);
        let rows = x.index_select(&choices.tokens, 0)?; // [choices, width]
        let gated = silu_mul(&product(&rows, &self.gate, &choices)?, &product(&rows, &self.up, &choices)?)?;
        let mixed = product(&gated, &self.down, &choices)?; // [choices, width]
        let weighted = mixed.broadcast_mul(&routing.weights.flatten_all()?.unsqueeze(1)?)?;
        Ok(weighted.reshape((tokens, choices.top_k, width))?.sum(1)?)
    }
}

/// Every choice of every token, token after token.
struct Choices {
    top_k: usize,
    /// The expert of each. `[choices]`, u32
    experts: Tensor,
    /// The token of each. `[choices]`, u32
    tokens: Tensor,
    /// The numbers of the choices, expert after expert. `[choices]`, u32
    sorted: Tensor,
}

impl Choices {
    fn new(routing: &DeviceRouting) -> Result<Self, Error> {
        let (tokens, top_k) = routing.experts.dims2()?;
        let experts = routing.experts.contiguous()?.flatten_all()?;
        let token = Tensor::arange(0_u32, tokens as u32, experts.device())?;
        let tokens = token.unsqueeze(1)?.broadcast_as((tokens, top_k))?.contiguous()?.flatten_all()?;
        let sorted = experts.arg_sort_last_dim(true)?;
        Ok(Self { top_k, experts, tokens, sorted })
    }
}

/// The grouped kernel's product: `rows [choices, inputs]` with `matrices [experts, outputs, inputs]` to `[choices, outputs]`.
fn grouped(rows: &Tensor, matrices: &Tensor, choices: &Choices) -> Result<Tensor, Error> {
    let experts = choices.experts.index_select(&choices.sorted, 0)?;
    // Given weights, the kernel takes a row for each choice and not for each token. Ours are applied later, in f32.
    let ones = Tensor::ones(choices.experts.elem_count(), DType::F32, rows.device())?;
    let rows = cast(rows, matrices.dtype())?;
    let product = moe_gemm(&rows, matrices, &Some(ones), &choices.sorted, &experts, choices.top_k, false)?;
    cast(&product, DType::F32)
}

/// The same from a copy of each choice's matrix.
fn gathered(rows: &Tensor, matrices: &Tensor, choices: &Choices) -> Result<Tensor, Error> {
    let matrices = matrices.index_select(&choices.experts, 0)?; // [choices, outputs, inputs]
    let rows = cast(rows, matrices.dtype())?.unsqueeze(1)?; // [choices, 1, inputs]
    cast(&rows.matmul(&matrices.t()?)?.squeeze(1)?, DType::F32)
}
