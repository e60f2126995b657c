//! Models in this process.
