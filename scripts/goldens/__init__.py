"""Reference results for the Rust tests, computed with PyTorch. The entry point is `scripts/make-goldens`."""
