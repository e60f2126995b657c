//! Rebuilds the crate when a catalogue card changes: the folder is embedded by a macro that the compiler cannot track.

fn main() {
    println!("cargo:rerun-if-changed=../../models");
}
