//! The tensors of the cache: keys and values of every layer, allocated once for all sequences.

use candle_core::{DType, Device, Tensor};

use super::kv_type::KvType;
use crate::error::Error;
use crate::ids::BlockId;

/// The shape of a model's cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvLayout {
    /// Layers that keep keys and values.
    pub layers: usize,
    /// Key-value heads of a layer.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Token slots in a block.
    pub block_size: usize,
    /// How the elements are kept.
    pub kv_type: KvType,
}

impl KvLayout {
    /// Bytes of one block over all layers, keys and values.
    #[must_use]
    pub fn block_bytes(&self) -> u64 {
        let format = self.kv_type.format();
        let head = self.head_dim.div_ceil(format.block_len()) * format.block_bytes();
        2 * (self.layers * self.block_size * self.kv_heads * head) as u64
    }

    /// Checks that a head is a whole number of the type's blocks.
    ///
    /// # Errors
    /// When it is not.
    pub fn check(&self) -> Result<(), Error> {
        let (Self { head_dim, kv_type, .. }, block) = (self, self.kv_type.format().block_len());
        if head_dim.is_multiple_of(block) {
            return Ok(());
        }
        let reason =
            format!("{kv_type} needs a head_dim that is a multiple of {block}, and this model's is {head_dim}");
        Err(Error::Cache(reason))
    }

    /// The type of the tensors and the elements of a head in them: numbers, or bytes where the type is blocks.
    fn elements(&self) -> (DType, usize) {
        match self.kv_type {
            KvType::F32 => (DType::F32, self.head_dim),
            KvType::F16 => (DType::F16, self.head_dim),
            KvType::Bf16 => (DType::BF16, self.head_dim),
            KvType::Q8_0 => {
                let format = self.kv_type.format();
                (DType::U8, self.head_dim / format.block_len() * format.block_bytes())
            }
        }
    }
}

/// Keys and values of one layer, each `[blocks, block_size, kv_heads, head_dim]` of f32, f16 or bf16; in q8_0 the bytes of
/// `head_dim` numbers stand in the last dimension.
#[derive(Debug)]
pub struct LayerCache {
    /// Keys, after rotation.
    pub keys: Tensor,
    /// Values.
    pub values: Tensor,
    /// How both are kept.
    pub kv_type: KvType,
}

/// The cache of one model. Slots are written in place; nothing is ever appended.
#[derive(Debug)]
pub struct KvStore {
    layers: Vec<LayerCache>,
}

impl KvStore {
    /// Allocates `blocks` blocks, zeroed. On the CPU the system hands out the memory when it is first touched.
    ///
    /// # Errors
    /// When a head is no whole number of the type's blocks; the device's, when the memory cannot be had; on a device, more
    /// elements than its 32-bit indices reach.
    pub fn new(layout: KvLayout, blocks: usize, device: &Device) -> Result<Self, Error> {
        layout.check()?;
        let (dtype, head) = layout.elements();
        let shape = (blocks, layout.block_size, layout.kv_heads, head);
        let elements = blocks * layout.block_size * layout.kv_heads * head;
        if !device.is_cpu() && elements > u32::MAX as usize {
            let reason = format!("a layer's keys are {elements} elements, and {} can be indexed", u32::MAX);
            return Err(Error::Cache(reason));
        }
        let layers = (0..layout.layers)
            .map(|_| {
                let keys = Tensor::zeros(shape, dtype, device)?;
                let values = Tensor::zeros(shape, dtype, device)?;
                Ok(LayerCache { keys, values, kv_type: layout.kv_type })
            })
            .collect::<Result<_, candle_core::Error>>()?;
        Ok(Self { layers })
    }

    /// The cache of one layer.
    ///
    /// # Panics
    /// For a layer the layout does not have: the model and its own layout disagree.
    #[must_use]
    pub fn layer(&self, layer: usize) -> &LayerCache {
        &self.layers[layer]
    }

    /// Copies the keys and values of one block, in every layer, over those of another.
    ///
    /// # Errors
    /// When there is no such block; the device's.
    pub fn copy_block(&self, from: BlockId, to: BlockId) -> Result<(), Error> {
        for cache in self.layers.iter().flat_map(|layer| [&layer.keys, &layer.values]) {
            // Into a tensor of its own, since a tensor cannot be written from itself.
            let block = cache.narrow(0, from.0 as usize, 1)?.force_contiguous()?; // [1, block_size, ..]
            cache.slice_set(&block, 0, to.0 as usize)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_copied_in_every_layer_and_no_other_is_touched() {
        for (kv_type, head_dim) in [(KvType::F32, 2), (KvType::F16, 2), (KvType::Bf16, 2), (KvType::Q8_0, 32)] {
            check_copies(KvLayout { layers: 2, kv_heads: 1, head_dim, block_size: 2, kv_type });
        }
    }

    fn check_copies(layout: KvLayout) {
        let store = KvStore::new(layout, 4, &Device::Cpu).unwrap();
        let (dtype, head) = layout.elements();
        let all: Vec<&Tensor> =
            (0..2).flat_map(|layer| [&store.layer(layer).keys, &store.layer(layer).values]).collect();
        for (number, cache) in all.iter().enumerate() {
            let block = (Tensor::ones((1, 2, 1, head), dtype, &Device::Cpu).unwrap() * (number + 1) as f64).unwrap();
            cache.slice_set(&block, 0, 1).unwrap();
        }
        store.copy_block(BlockId(1), BlockId(3)).unwrap();
        for (number, cache) in all.iter().enumerate() {
            let numbers = cache.flatten_from(1).unwrap().to_dtype(DType::F32).unwrap();
            let sums = numbers.sum(1).unwrap().to_vec1::<f32>().unwrap();
            let own = (2 * head * (number + 1)) as f32;
            assert_eq!(sums, [0.0, own, 0.0, own], "{layout:?}");
        }
        assert!(store.copy_block(BlockId(1), BlockId(4)).is_err(), "there is no such block");
    }
}
