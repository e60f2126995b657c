//! Rebuilds the crate when a catalogue card changes: the folder is embedded by a macro that the compiler cannot track.

#![expect(clippy::print_stdout, reason = "standard output is how a build script speaks to cargo")]

fn main() {
    println!("cargo:rerun-if-changed=../../models");
}
