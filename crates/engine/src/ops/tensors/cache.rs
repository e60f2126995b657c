//! Writing keys and values into the paged cache, in place.
//!
//! The device writes with one thread for each element of a row, which takes the rows one after the other. Blocks that a step fills
//! from end to end are therefore written as one long row each, and only what is left slot by slot.

use candle_core::{DType, Device, Tensor};
use half::f16;

use crate::error::Error;
use crate::ops::ForwardBatch;

/// Rows of a batch, and where they go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Writes {
    /// The rows, in the order of `places`.
    rows: Vec<u32>,
    /// A block or a slot for each `rows / places` rows.
    places: Vec<u32>,
}

/// The batch's rows that fill whole blocks, and the others.
fn share_out(batch: &ForwardBatch, block_size: usize) -> [Writes; 2] {
    let (mut whole, mut single) = (Writes::default(), Writes::default());
    for span in &batch.spans {
        let (first, end) = (span.first_position, span.first_position + span.rows.len());
        let aligned = first.next_multiple_of(block_size)..end - end % block_size;
        for (row, position) in span.rows.clone().zip(first..) {
            if !aligned.contains(&position) {
                single.rows.push(row as u32);
                single.places.push(batch.slots[row]);
                continue;
            }
            whole.rows.push(row as u32);
            if position.is_multiple_of(block_size) {
                whole.places.push(batch.slots[row] / block_size as u32);
            }
        }
    }
    [whole, single]
}

/// A step's writes on the device.
#[derive(Clone, Debug)]
pub(super) struct CacheWrites(Vec<UploadedWrites>);

#[derive(Clone, Debug)]
struct UploadedWrites {
    /// `[places * rows_each]`, u32
    rows: Tensor,
    /// The place of each element. `[places, rows_each * width]`, u32
    places: Tensor,
}

impl CacheWrites {
    /// For rows of `width` elements.
    pub(super) fn new(batch: &ForwardBatch, block_size: usize, width: usize, device: &Device) -> Result<Self, Error> {
        let all = share_out(batch, block_size).into_iter().zip([block_size, 1]);
        let uploaded = all.filter(|(writes, _)| !writes.rows.is_empty()).map(|(Writes { rows, places }, rows_each)| {
            let shape = (places.len(), rows_each * width);
            let places = Tensor::new(places, device)?.unsqueeze(1)?.broadcast_as(shape)?.contiguous()?;
            Ok(UploadedWrites { rows: Tensor::new(rows, device)?, places })
        });
        Ok(Self(uploaded.collect::<Result<_, Error>>()?))
    }

    /// Writes the batch's `rows [tokens, width]` into `cache [blocks, block_size, heads, head_dim]`.
    pub(super) fn write(&self, cache: &Tensor, rows: &Tensor) -> Result<(), Error> {
        for UploadedWrites { rows: chosen, places } in &self.0 {
            let together = places.dims2()?;
            let values = rows.index_select(chosen, 0)?.reshape(together)?;
            // Shares the cache's memory: it is contiguous.
            cache.reshape(((), together.1))?.scatter_set(places, &kept_as(&values, cache.dtype())?, 0)?;
        }
        Ok(())
    }
}

/// Numbers as the cache keeps them, rounded to the nearest. A half that would be infinite is the largest one instead, as with
/// [`hearth_kernels::write_kv`].
fn kept_as(values: &Tensor, dtype: DType) -> Result<Tensor, Error> {
    Ok(match dtype {
        DType::F16 => values.clamp(-f16::MAX.to_f32(), f16::MAX.to_f32())?.to_dtype(dtype)?,
        _ => values.to_dtype(dtype)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Span;

    #[test]
    fn every_row_is_written_once_and_whole_blocks_together() {
        // Blocks of 4: the first sequence's rows are positions 2..13 in blocks 7, 3, 5, 9; the second's is position 4 in block 1.
        let mut batch = ForwardBatch::default();
        batch.spans.push(Span { rows: 0..11, first_position: 2, blocks: vec![7, 3, 5, 9] });
        batch.spans.push(Span { rows: 11..12, first_position: 4, blocks: vec![0, 1] });
        batch.slots = vec![30, 31, 12, 13, 14, 15, 20, 21, 22, 23, 36, 4];
        let [whole, single] = share_out(&batch, 4);
        assert_eq!(whole, Writes { rows: (2..10).collect(), places: vec![3, 5] });
        assert_eq!(single, Writes { rows: vec![0, 1, 10, 11], places: vec![30, 31, 36, 4] });

        let cache = Tensor::zeros((10, 4, 1, 2), DType::F32, &Device::Cpu).unwrap();
        let rows = Tensor::arange(1_f32, 25.0, &Device::Cpu).unwrap().reshape((12, 2)).unwrap();
        CacheWrites::new(&batch, 4, 2, &Device::Cpu).unwrap().write(&cache, &rows).unwrap();
        let written = cache.reshape((40, 2)).unwrap().to_vec2::<f32>().unwrap();
        for (row, slot) in batch.slots.iter().enumerate() {
            assert_eq!(written[*slot as usize], [2 * row + 1, 2 * row + 2].map(|value| value as f32));
        }
        assert_eq!(written.iter().filter(|row| row[0] != 0.0).count(), 12, "nothing else is touched");
    }
}
