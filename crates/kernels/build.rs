//! Only for CUDA: gives the linker what it looks for in place of the CUDA libraries, so that the program needs none of them
//! to start. `src/cuda.rs` says how it finds them later.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

/// What the bindings ask to be linked with, and `src/cuda.rs` stands for.
const FOUND_LATER: [&str; 5] = ["cuda", "cublas", "cublasLt", "curand", "nvrtc"];

/// A library with nothing in it.
const EMPTY_ARCHIVE: &[u8] = b"!<arch>\n";

/// Where toolkits keep their libraries.
const LIBRARY_FOLDERS: [&str; 5] =
    ["lib64", "lib", "targets/x86_64-linux/lib", "targets/sbsa-linux/lib", "lib/x86_64-linux-gnu"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return Ok(());
    }
    let folder = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    for library in FOUND_LATER {
        fs::write(folder.join(format!("lib{library}.a")), EMPTY_ARCHIVE)?;
    }
    for variable in ["NVCC", "CUDA_HOME"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    // The kernels ask for the runtime under the name of the shared library.
    let runtime = toolkits().iter().find_map(|home| static_runtime(home));
    let runtime = runtime
        .ok_or("no libcudart_static.a beside nvcc, in $CUDA_HOME or in /usr/local/cuda; see scripts/cuda-toolkit")?;
    fs::copy(runtime, folder.join("libcudart.a"))?;
    println!("cargo::rustc-link-search=native={}", folder.display());
    Ok(())
}

/// The toolkits there may be, in the order in which the build of the kernels looks for the compiler.
fn toolkits() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&path).map(|folder| folder.join("nvcc"));
    let compilers = env::var_os("NVCC").map(PathBuf::from).into_iter().chain(on_path);
    let of_compilers =
        compilers.filter_map(|compiler| Some(fs::canonicalize(compiler).ok()?.parent()?.parent()?.to_owned()));
    let named = env::var_os("CUDA_HOME").map(PathBuf::from);
    of_compilers.chain(named).chain(["/usr/local/cuda", "/opt/cuda"].map(PathBuf::from)).collect()
}

fn static_runtime(home: &Path) -> Option<PathBuf> {
    LIBRARY_FOLDERS.iter().map(|folder| home.join(folder).join("libcudart_static.a")).find(|path| path.is_file())
}
