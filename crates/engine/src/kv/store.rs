//! The tensors of the cache: keys and values of every layer, allocated once for all sequences.

use candle_core::{DType, Device, Tensor};

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
}

impl KvLayout {
    /// Bytes of one block over all layers, keys and values, in f32.
    #[must_use]
    pub fn block_bytes(&self) -> u64 {
        let elements = self.layers * self.block_size * self.kv_heads * self.head_dim;
        2 * 4 * elements as u64
    }
}

/// Keys and values of one layer, each `[blocks, block_size, kv_heads, head_dim]` in f32.
#[derive(Debug)]
pub struct LayerCache {
    /// Keys, after rotation.
    pub keys: Tensor,
    /// Values.
    pub values: Tensor,
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
    /// The device's, when the memory cannot be had; on a device, more elements than its 32-bit indices reach.
    pub fn new(layout: KvLayout, blocks: usize, device: &Device) -> Result<Self, Error> {
        let shape = (blocks, layout.block_size, layout.kv_heads, layout.head_dim);
        let elements = blocks * layout.block_size * layout.kv_heads * layout.head_dim;
        if !device.is_cpu() && elements > u32::MAX as usize {
            let reason = format!("a layer's keys are {elements} elements, and {} can be indexed", u32::MAX);
            return Err(Error::Cache(reason));
        }
        let layers = (0..layout.layers)
            .map(|_| {
                let keys = Tensor::zeros(shape, DType::F32, device)?;
                let values = Tensor::zeros(shape, DType::F32, device)?;
                Ok(LayerCache { keys, values })
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
        let layout = KvLayout { layers: 2, kv_heads: 1, head_dim: 2, block_size: 2 };
        let store = KvStore::new(layout, 4, &Device::Cpu).unwrap();
        let all: Vec<&Tensor> =
            (0..2).flat_map(|layer| [&store.layer(layer).keys, &store.layer(layer).values]).collect();
        for (number, cache) in all.iter().enumerate() {
            let block = (Tensor::ones((1, 2, 1, 2), DType::F32, &Device::Cpu).unwrap() * (number + 1) as f64).unwrap();
            cache.slice_set(&block, 0, 1).unwrap();
        }
        store.copy_block(BlockId(1), BlockId(3)).unwrap();
        for (number, cache) in all.iter().enumerate() {
            let sums = cache.flatten_from(1).unwrap().sum(1).unwrap().to_vec1::<f32>().unwrap();
            let own = 4.0 * (number + 1) as f32;
            assert_eq!(sums, [0.0, own, 0.0, own]);
        }
        assert!(store.copy_block(BlockId(1), BlockId(4)).is_err(), "there is no such block");
    }
}
