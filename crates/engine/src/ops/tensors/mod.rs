//! The operations as the tensor library's, on whatever device the tensors are: what a GPU runs.
//!
//! Products are f32 of the weights as stored, but for 16-bit weights: their products take the activations in the weights' type, sum in
//! f32 and round each result to that type, as the reference implementations do. The residual stream, the norms, the rotary
//! positions, the cache and attention are f32.
//!
//! Nothing in a layer waits for the device or sends it anything: what a step needs besides its tokens' vectors is made by the
//! first layer that asks for it and kept in [`StepTensors`].
//!
//! How a sum is ordered is the library's choice and depends on the shapes: a request's numbers are the same alone and in a batch, in
//! chunks and whole, within the tolerance of the arithmetic, not to the last bit as with the kernels.

pub(super) mod attention;
pub(super) mod experts;
mod groups;
mod matrix;
pub(super) mod rows;
mod step;

pub(super) use matrix::UploadedMatrix;
pub(super) use step::StepTensors;

use candle_core::Device;

/// Makes quantised products on a CUDA device take the activations as they are. By default the tensor library rounds them to 8
/// bits there. The switch is the process's, and every model of it wants it so.
pub(super) fn keep_activations_whole(device: &Device) {
    #[cfg(feature = "cuda")]
    if device.is_cuda() {
        candle_core::quantized::cuda::set_force_dmmv(true);
    }
    #[cfg(not(feature = "cuda"))]
    let _ = device;
}
