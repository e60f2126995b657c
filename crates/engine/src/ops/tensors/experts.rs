//! A mixture of experts without asking the device who was chosen.
//!
//! The host would have to know the choice to compute it alone, and wait for it in every layer. Instead each expert is applied to
//! every token, with the weight 0 where it was not chosen: `experts / top_k` times the products that are needed, and the weights of all
//! experts read in each step. While there are fewer choices than experts, unquantised matrices of the chosen ones are copied and
//! multiplied alone, which is less to read and write. (The tensor library's grouped kernels round activations and results to 16 or 8
//! bits.)

use candle_core::{D, DType, Device, Tensor};
use candle_nn::ops::softmax_last_dim;

use super::UploadedMatrix;
use super::matrix::{dense_type, multiply_dense, upload_dense};
use super::rows::silu_mul;
use crate::error::Error;
use crate::ops::{ExpertTensors, Orientation, Selection};
use crate::weights::WeightTensor;

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
fn stack(device: &Device, tensors: &[WeightTensor], dtype: DType, orientation: Orientation) -> Result<Tensor, Error> {
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
        let ((tokens, top_k), experts) = (routing.experts.dims2()?, self.gate.dim(0)?);
        if tokens * top_k < experts {
            return self.mix_chosen(x, routing);
        }
        mix_all(x, &routing.spread(experts)?, |expert, x| {
            let one = |stack: &Tensor| stack.get(expert);
            let gate = multiply_dense(x, &one(&self.gate)?)?;
            multiply_dense(&silu_mul(&gate, &multiply_dense(x, &one(&self.up)?)?)?, &one(&self.down)?)
        })
    }

    /// Each token with copies of its own experts' matrices.
    fn mix_chosen(&self, x: &Tensor, routing: &DeviceRouting) -> Result<Tensor, Error> {
        let ((tokens, width), (_, top_k)) = (x.dims2()?, routing.experts.dims2()?);
        let chosen = routing.experts.flatten_all()?; // [choices]
        let copy = |stack: &Tensor| stack.index_select(&chosen, 0); // [choices, outputs, inputs]
        let rows = x.unsqueeze(1)?.broadcast_as((tokens, top_k, width))?.contiguous()?;
        let rows = rows.reshape((tokens * top_k, 1, width))?;
        let gate = multiply_dense(&rows, &copy(&self.gate)?)?;
        let gated = silu_mul(&gate, &multiply_dense(&rows, &copy(&self.up)?)?)?; // [choices, 1, inner]
        let mixed = multiply_dense(&gated, &copy(&self.down)?)?.reshape((tokens, top_k, width))?;
        Ok(mixed.broadcast_mul(&routing.weights.unsqueeze(2)?)?.sum(1)?)
    }
}
