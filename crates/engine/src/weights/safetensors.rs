//! Safetensors: one file.
//!
//! Owns its layout; must not know the meaning of a tensor's name. The header's entries are those of the
//! `safetensors` crate; the checks are here, because that crate's reader keeps the last of two tensors of one name and
//! says neither which tensor is at fault nor by how much.
//! Format: <https://huggingface.co/docs/safetensors/index#format>.

use std::sync::Arc;

use hearth_kernels::Format;
use safetensors::Dtype;
use safetensors::tensor::TensorInfo;

use super::error::{Fault, Part, WeightsError};
use super::map::{MappedBytes, WeightMap};
use super::pairs::{Pairs, parse, refuse_duplicates};
use super::tensor::{Contents, IgnoredTensor, WeightTensor, checked_bytes};

/// The largest header that is read: the limit of the format's own reader.
const HEADER_LIMIT: u64 = 100_000_000;

/// The length of the header, a u64.
const PREFIX: u64 = 8;

/// Reads and checks the header of one file.
pub(super) fn read_file(map: &Arc<WeightMap>) -> Result<Contents, WeightsError> {
    let of_file = |fault: Fault| fault.of(map.file(), Part::File);
    let header = read_header(map).map_err(of_file)?;
    let data_start = PREFIX + header.len() as u64;
    let Pairs(mut entries) = parse::<Pairs<TensorInfo>>(&header).map_err(|why| of_file(Fault::InvalidHeader(why)))?;
    refuse_duplicates(map.file(), &mut entries)?;
    entries.sort_by_key(|(_, info)| info.data_offsets);

    let mut contents = Contents::default();
    let mut end = 0;
    for (name, info) in entries {
        let bytes = place(map, data_start, end, &info);
        let bytes = bytes.map_err(|fault| fault.of(map.file(), Part::Tensor(name.clone())))?;
        end = info.data_offsets.1 as u64;
        let TensorInfo { dtype, shape, .. } = info;
        match format(dtype) {
            Some(format) => contents.tensors.push(WeightTensor { name, format, shape, bytes }),
            None => {
                let file = map.file().to_path_buf();
                contents.ignored.push(IgnoredTensor { name, element: dtype.to_string(), file });
            }
        }
    }
    let size = map.size() - data_start;
    if end != size {
        return Err(of_file(Fault::TrailingBytes { end, size }));
    }
    Ok(contents)
}

fn read_header(map: &Arc<WeightMap>) -> Result<MappedBytes, Fault> {
    let mut length = [0; PREFIX as usize];
    length.copy_from_slice(&map.cut(0, PREFIX)?);
    let header = map.cut(PREFIX, u64::from_le_bytes(length))?;
    if header.len() as u64 > HEADER_LIMIT {
        return Err(Fault::HeaderTooLarge { limit: HEADER_LIMIT });
    }
    Ok(header)
}

/// The bytes of a tensor, which must begin where the one before it ended: the format allows no holes.
fn place(map: &Arc<WeightMap>, data_start: u64, expected: u64, info: &TensorInfo) -> Result<MappedBytes, Fault> {
    let (begin, end) = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
    let found = end.checked_sub(begin).ok_or(Fault::EndsBeforeBegin { begin, end })?;
    let needed = checked_bytes(&info.shape, info.dtype.bitsize())?;
    if format(info.dtype).is_some() {
        // As for GGUF: a buffer of the values as f32 is to fit as well.
        checked_bytes(&info.shape, 32)?;
    }
    if found != needed {
        let element = info.dtype.to_string();
        return Err(Fault::WrongLength { found, shape: info.shape.clone(), element, needed });
    }
    if begin != expected {
        return Err(Fault::NotAdjacent { offset: begin, expected });
    }
    let truncated = Fault::Truncated { needed, offset: begin, size: map.size() };
    map.cut(data_start.checked_add(begin).ok_or(truncated)?, needed)
}

fn format(dtype: Dtype) -> Option<Format> {
    match dtype {
        Dtype::F32 => Some(Format::F32),
        Dtype::F16 => Some(Format::F16),
        Dtype::BF16 => Some(Format::BF16),
        _ => None,
    }
}
