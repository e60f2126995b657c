//! What can be wrong with a checkpoint. Owns the words; must not know how a fault was found.
//!
//! Every message reads `FILE: PART: REASON`, with the numbers that show why.

use std::fmt;
use std::path::{Path, PathBuf};

use hearth_kernels::{Format, KernelError};

/// A checkpoint, or a part of it, cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {part}{fault}", file.display())]
pub struct WeightsError {
    /// The file (or, where none could be chosen, the folder) at fault.
    pub file: PathBuf,
    /// The part of the file at fault.
    pub part: Part,
    /// What is wrong with it.
    pub fault: Box<Fault>,
}

/// The part of a file a [`Fault`] is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// The file as a whole, or its header.
    File,
    /// The tensor of this name.
    Tensor(String),
    /// A tensor looked up as `name`, which this file calls `stored`.
    Renamed {
        /// The name asked for.
        name: String,
        /// The name it has in the file.
        stored: String,
    },
    /// The entry at this place, counted from 0, of the list of tensors, where the name could not be read.
    TensorAt(usize),
    /// The metadata key of this name.
    Key(String),
    /// The metadata entry at this place, counted from 0, where the key could not be read.
    KeyAt(usize),
}

impl fmt::Display for Part {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => Ok(()),
            Self::Tensor(name) => write!(formatter, "tensor `{name}`: "),
            Self::Renamed { name, stored } => write!(formatter, "tensor `{name}` (`{stored}` in this file): "),
            Self::TensorAt(index) => write!(formatter, "tensor number {index} of the list: "),
            Self::Key(key) => write!(formatter, "metadata key `{key}`: "),
            Self::KeyAt(index) => write!(formatter, "metadata entry number {index}: "),
        }
    }
}

/// What is wrong with a file or a part of it.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what its fields are")]
pub enum Fault {
    #[error("cannot be read: {0}")]
    Unreadable(#[from] std::io::Error),
    #[error("is not a regular file")]
    NotAFile,
    #[error("holds neither `model.safetensors` nor `pytorch_model.bin`, nor the `.index.json` of one of them")]
    NoCheckpoint,
    #[error("truncated: needs {needed} bytes at offset {offset}, the file has {size} bytes")]
    Truncated { needed: u64, offset: u64, size: u64 },
    #[error("the header is larger than {limit} bytes, the most that is read")]
    HeaderTooLarge { limit: u64 },
    #[error("not a GGUF file: begins with \"{}\", expected \"GGUF\"", found.escape_ascii())]
    WrongMagic { found: [u8; 4] },
    #[error("is a big-endian GGUF file; only little-endian files are supported")]
    BigEndian,
    #[error("GGUF version {found} is not supported; versions 2 and 3 are")]
    UnsupportedVersion { found: u32 },
    #[error("architecture `{found}` is not supported; supported in GGUF files are {known}")]
    UnsupportedArchitecture { found: String, known: String },
    #[error("declares {count} {what}, the {bytes_left} bytes left of the file hold at most {possible}")]
    AbsurdCount { what: &'static str, count: u64, bytes_left: u64, possible: u64 },
    #[error("header is not valid: {0}")]
    InvalidHeader(String),
    #[error("index is not valid: {0}")]
    InvalidIndex(String),
    #[error("not a zip archive as PyTorch writes them since version 1.6: {0}")]
    InvalidArchive(String),
    #[error("`{0}` is not in the archive")]
    EntryMissing(String),
    #[error("`{0}` is compressed or encrypted in the archive; only plain entries are read")]
    CompressedEntry(String),
    #[error("the byte order is \"{}\"; only little-endian files are supported", .0.escape_default())]
    OtherByteOrder(String),
    #[error("the description of its tensors is not valid at byte {at}: {why}")]
    InvalidPickle { at: usize, why: String },
    #[error("describes no dictionary of tensors by their names")]
    NoStateDictionary,
    #[error("is not described as a plain tensor")]
    NoPlainTensor,
    #[error("is stored with strides {strides:?}, not with the rows of shape {shape:?} one after another")]
    NotRowMajor { shape: Vec<usize>, strides: Vec<u64> },
    #[error("text is not UTF-8 (the first {valid} bytes of {length} are)")]
    NotUtf8 { valid: usize, length: usize },
    #[error("value type {code} is not one of GGUF (0 to 12)")]
    UnknownValueType { code: u32 },
    #[error("a bool is stored as {found}, expected 0 or 1")]
    InvalidBool { found: u8 },
    #[error("arrays are nested more than {limit} deep")]
    NestedTooDeep { limit: usize },
    #[error("appears more than once")]
    Duplicate,
    #[error("is missing")]
    Missing,
    #[error("is of type {found}, expected {expected}")]
    WrongValueType { expected: &'static str, found: String },
    #[error("value {found} does not fit {expected}")]
    ValueOutOfRange { expected: &'static str, found: i128 },
    #[error("alignment {found} is not a power of two")]
    InvalidAlignment { found: u32 },
    #[error("has {found} dimensions, at most {limit} are possible")]
    TooManyDimensions { found: u32, limit: u32 },
    #[error("shape {shape:?} does not fit the address space")]
    ShapeOverflow { shape: Vec<u64> },
    #[error("rows of {columns} values cannot be stored as {format}, which has blocks of {block}")]
    PartialBlock { columns: usize, format: Format, block: usize },
    #[error("tensor type {name} ({code}) is not supported")]
    UnsupportedType { name: &'static str, code: u32 },
    #[error("element type {found} is not supported; F32, F16 and BF16 are")]
    UnsupportedElement { found: String },
    #[error("begins at offset {offset} of the data, which is not a multiple of the alignment {alignment}")]
    Misaligned { offset: u64, alignment: u64 },
    #[error("begins at offset {offset} of the data, inside tensor `{other}`, which ends at {other_end}")]
    Overlap { offset: u64, other: String, other_end: u64 },
    #[error("begins at offset {offset} of the data, the tensor before it ends at {expected}")]
    NotAdjacent { offset: u64, expected: u64 },
    #[error("ends at offset {end} of the data, before its begin {begin}")]
    EndsBeforeBegin { begin: u64, end: u64 },
    #[error("takes {found} bytes, shape {shape:?} of {element} needs {needed}")]
    WrongLength { found: u64, shape: Vec<usize>, element: String, needed: u64 },
    #[error("the tensors end at offset {end} of the data, but the file has {size} bytes of data")]
    TrailingBytes { end: u64, size: u64 },
    #[error("is stored as {format} already; only F32, F16 and BF16 are quantised")]
    AlreadyQuantized { format: Format },
    #[error("cannot be stored as {format}: {why}, counted from row {first_row}")]
    NotStorable { format: Format, first_row: usize, why: KernelError },
    #[error("has shape {found:?}, expected {expected:?}")]
    WrongShape { expected: Vec<usize>, found: Vec<usize> },
    #[error("the index names `{0}` as its file; only plain file names are followed")]
    ShardOutsideFolder(String),
    #[error("the index places it in `{0}`, which is not in the folder")]
    ShardMissing(String),
    #[error("the index places it in `{0}`, which does not hold it")]
    NotInShard(String),
}

impl Fault {
    /// This fault as the error of a part of `file`.
    pub(super) fn of(self, file: &Path, part: Part) -> WeightsError {
        WeightsError { file: file.to_path_buf(), part, fault: Box::new(self) }
    }
}
