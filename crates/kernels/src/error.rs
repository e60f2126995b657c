//! What a kernel refuses, and why. Every message names the argument, the bound and the value it was given.

/// The result of a kernel.
pub type Result<T> = std::result::Result<T, KernelError>;

/// An argument a kernel refuses. Nothing has been written to the output when one is returned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// A slice has the wrong number of elements.
    #[error("{argument}: expected {expected} elements, got {actual}")]
    Length {
        /// The argument at fault.
        argument: &'static str,
        /// How many elements the other arguments ask for.
        expected: usize,
        /// How many there are.
        actual: usize,
    },
    /// A size is not a multiple of what it has to be a multiple of.
    #[error("{argument}: {actual} is not a multiple of {multiple_of}")]
    NotMultiple {
        /// The argument at fault.
        argument: &'static str,
        /// What it has to be a multiple of.
        multiple_of: usize,
        /// Its value.
        actual: usize,
    },
    /// An index is not below its bound.
    #[error("{argument}: {value} is not below {bound}")]
    OutOfBounds {
        /// The argument at fault.
        argument: &'static str,
        /// The first value that is too large.
        bound: usize,
        /// The value given.
        value: usize,
    },
    /// A size has to be at least one.
    #[error("{argument} is zero, it must be at least 1")]
    Zero {
        /// The argument at fault.
        argument: &'static str,
    },
    /// A value stands twice where each may stand once.
    #[error("{argument}: {value} stands twice")]
    Duplicate {
        /// The argument at fault.
        argument: &'static str,
        /// The repeated value.
        value: usize,
    },
    /// The ranges of the spans do not cover the rows in order, each once.
    #[error("spans: rows start at {actual} where {expected} was expected")]
    SpanOrder {
        /// Where the span should have started.
        expected: usize,
        /// Where it starts.
        actual: usize,
    },
    /// The product of the sizes does not fit the address space.
    #[error("{argument}: the size overflows")]
    Overflow {
        /// The argument at fault.
        argument: &'static str,
    },
    /// A number is not finite, or too large for the format it is to be stored in.
    #[error("values: number {index} is {value}, {format} holds finite numbers up to {limit}")]
    NotRepresentable {
        /// Which number.
        index: usize,
        /// The number, in words.
        value: String,
        /// The name of the format.
        format: &'static str,
        /// The largest number it takes.
        limit: String,
    },
    /// The operating system gave no threads.
    #[error("the thread pool could not be started with {threads} threads: {reason}")]
    Pool {
        /// How many were asked for.
        threads: usize,
        /// What the pool said.
        reason: String,
    },
}

/// Refuses a slice whose length is not `expected`.
pub(crate) fn check_length(argument: &'static str, actual: usize, expected: usize) -> Result<()> {
    if actual == expected { Ok(()) } else { Err(KernelError::Length { argument, expected, actual }) }
}

/// Refuses a size of zero.
pub(crate) fn check_positive(argument: &'static str, value: usize) -> Result<()> {
    if value == 0 { Err(KernelError::Zero { argument }) } else { Ok(()) }
}

/// How many rows of `width` stand in `length` elements.
pub(crate) fn whole_rows(argument: &'static str, length: usize, width: usize) -> Result<usize> {
    if width == 0 {
        return Err(KernelError::Zero { argument });
    }
    if !length.is_multiple_of(width) {
        return Err(KernelError::NotMultiple { argument, multiple_of: width, actual: length });
    }
    Ok(length / width)
}

/// The product of sizes, refused when it does not fit.
pub(crate) fn size(argument: &'static str, factors: &[usize]) -> Result<usize> {
    factors
        .iter()
        .try_fold(1usize, |product, &factor| product.checked_mul(factor))
        .ok_or(KernelError::Overflow { argument })
}
