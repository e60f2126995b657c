//! The operations as the tensor library's, on whatever device the tensors are: what a GPU runs.
//!
//! Products are of the weights as stored and as good as f32, whatever the format; everything else is f32, the cache included. What
//! that costs is told where it is paid: [`half`], [`matrix`], [`experts`].
//!
//! Nothing in a layer waits for the device or sends it more than a shape or a number: what a step needs besides its tokens' vectors
//! is made by the first layer that asks for it and kept in [`StepTensors`].
//!
//! How a sum is ordered is the library's choice and depends on the shapes: a request's numbers are the same alone and in a batch, in
//! chunks and whole, within the tolerance of the arithmetic, not to the last bit as with the kernels.

pub(super) mod attention;
mod cache;
pub(super) mod experts;
mod groups;
mod half;
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
