//! The CUDA libraries, found while the program runs: a program with CUDA built in starts where there are none.
//!
//! The bindings that the tensor library stands on declare the functions of the CUDA driver, of cuBLAS and of cuRAND as
//! foreign ones; linked in the usual way, the program would not start without those libraries. So each function that is
//! called is defined here, as a jump to where [`load_libraries`] found the real one. Until then it answers the error that
//! its library has for "not initialised". `build.rs` keeps the linker from looking for the libraries themselves. When the
//! bindings come to call another function, the linker names it, and it belongs into the lists below.
//!
//! This module must not know devices, memory or tensors, nor what the functions do.
#![expect(unsafe_code, reason = "functions of shared libraries are called through their addresses")]

use std::error::Error;
use std::ffi::c_int;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

use libloading::Library;

/// Why the CUDA libraries cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CudaError {
    /// A library, or one that it needs itself, is missing or cannot be read.
    #[error("{reason}")]
    Library {
        /// What the system said; it names the file.
        reason: String,
    },
    /// A library lacks a function, so it is of another version.
    #[error("{file} has no function {function}")]
    Function {
        /// The library.
        file: String,
        /// What it lacks.
        function: String,
    },
    /// The driver is older than what the program was compiled with.
    #[error("the driver runs CUDA {}.{}, and {}.{} is needed", found / 1000, found % 1000 / 10, needed / 1000, needed % 1000 / 10)]
    Driver {
        /// The version that the driver runs: 1000 times the major and 10 times the minor one.
        found: u32,
        /// The version needed, written the same way.
        needed: u32,
    },
}

/// A function that the bindings call.
struct Function {
    name: &'static str,
    /// Where calls go.
    target: &'static AtomicPtr<()>,
}

/// A library: a module that defines its functions and lists them. One that has not been found is `$missing`.
macro_rules! library {
    ($library:ident, $missing:ident, [$($name:ident)*]) => {
        #[expect(non_upper_case_globals, reason = "named as the library names them")]
        mod $library {
            use std::arch::naked_asm;

            use super::{Function, not_initialised};

            pub(super) static FUNCTIONS: &[Function] = &[$(Function {
                name: stringify!($name),
                target: &target::$name,
            }),*];

            /// Where calls to each function go.
            pub(super) mod target {
                use std::sync::atomic::AtomicPtr;

                use super::not_initialised;

                $(pub static $name: AtomicPtr<()> = AtomicPtr::new(not_initialised::$missing as *mut ());)*
            }

            $(
                // SAFETY: a jump leaves registers and stack as the caller set them up for the real function, whatever its
                // arguments are. `x16` is the register that the calling convention leaves to such jumps.
                #[unsafe(no_mangle)]
                #[unsafe(naked)]
                pub(super) extern "C" fn $name() {
                    #[cfg(target_arch = "x86_64")]
                    naked_asm!("jmp qword ptr [rip + {target}]", target = sym target::$name);
                    #[cfg(target_arch = "aarch64")]
                    naked_asm!(
                        "adrp x16, {target}", "ldr x16, [x16, :lo12:{target}]", "br x16", target = sym target::$name
                    );
                }
            )*
        }
    };
}

library!(driver, driver, [
    cuCtxDestroy_v2 cuCtxGetCurrent cuCtxSetCurrent cuDeviceGet cuDeviceGetAttribute cuDeviceGetCount
    cuDevicePrimaryCtxRelease_v2 cuDevicePrimaryCtxRetain cuDriverGetVersion cuEventCreate cuEventDestroy_v2 cuEventRecord
    cuGetErrorString cuInit cuLaunchKernel cuMemAllocAsync cuMemAlloc_v2 cuMemFreeAsync cuMemFree_v2 cuMemGetInfo_v2
    cuMemcpyDtoDAsync_v2 cuMemcpyDtoHAsync_v2 cuMemcpyHtoDAsync_v2 cuMemcpyPeerAsync cuMemsetD8Async cuModuleGetFunction
    cuModuleLoad cuModuleLoadData cuModuleUnload cuStreamDestroy_v2 cuStreamIsCapturing cuStreamSynchronize
    cuStreamWaitEvent
]);
library!(cublas, cublas, [
    cublasCreate_v2 cublasDestroy_v2 cublasDgemmStridedBatched cublasGemmStridedBatchedEx cublasSetStream_v2
]);
library!(curand, curand, [
    curandCreateGenerator curandDestroyGenerator curandGenerateNormal curandGenerateNormalDouble curandGenerateUniform
    curandGenerateUniformDouble curandSetPseudoRandomGeneratorSeed curandSetStream
]);

/// What a function answers whose library is not there.
mod not_initialised {
    use std::ffi::c_int;

    /// `CUDA_ERROR_NOT_INITIALIZED`.
    pub(super) extern "C" fn driver() -> c_int {
        3
    }

    /// `CUBLAS_STATUS_NOT_INITIALIZED`.
    pub(super) extern "C" fn cublas() -> c_int {
        1
    }

    /// `CURAND_STATUS_NOT_INITIALIZED`.
    pub(super) extern "C" fn curand() -> c_int {
        101
    }
}

/// Finds the libraries of CUDA `version` (1000 times the major and 10 times the minor version, as CUDA writes it), the first
/// time it is called. The dynamic linker looks for them, in `LD_LIBRARY_PATH` among others.
///
/// # Errors
/// When a library is missing, lacks a function, or the driver is older than `version`.
pub fn load_libraries(version: u32) -> Result<(), CudaError> {
    static OUTCOME: OnceLock<Result<(), CudaError>> = OnceLock::new();
    OUTCOME.get_or_init(|| load(version)).clone()
}

fn load(version: u32) -> Result<(), CudaError> {
    connect("libcuda.so.1", driver::FUNCTIONS)?;
    let mut found: c_int = 0;
    // SAFETY: `connect` has put the driver's own function in place, which writes a version to where it is told.
    let status = unsafe { driver_version()(&mut found) };
    let found = if status == 0 { found.unsigned_abs() } else { 0 };
    if found < version {
        return Err(CudaError::Driver { found, needed: version });
    }
    connect(&format!("libcublas.so.{}", version / 1000), cublas::FUNCTIONS)?;
    // The one library whose version is its own; it has been 10 since CUDA 10.
    connect("libcurand.so.10", curand::FUNCTIONS)
}

/// `cuDriverGetVersion` as the driver's documentation declares it.
fn driver_version() -> unsafe extern "C" fn(*mut c_int) -> c_int {
    // SAFETY: the function at this address is `cuDriverGetVersion`, or the one that stands for what is missing: that takes no
    // arguments and answers a number too.
    unsafe { std::mem::transmute(driver::target::cuDriverGetVersion.load(Ordering::Acquire)) }
}

/// Opens a library and points its functions at it.
fn connect(file: &str, functions: &[Function]) -> Result<(), CudaError> {
    // SAFETY: what runs when it is opened is the vendor's; there is no other way to use the GPU.
    let library = unsafe { Library::new(file) }.map_err(|error| CudaError::Library {
        // The linker's own words name the file: this one, or one that it needs.
        reason: error.source().map_or_else(|| error.to_string(), ToString::to_string),
    })?;
    // Calls may come at any time from now on, so it is never closed.
    let library = Box::leak(Box::new(library));
    for function in functions {
        // SAFETY: the type is that of an address; who calls it knows the function's own.
        let found = unsafe { library.get::<*mut ()>(function.name) };
        let address =
            found.map_err(|_| CudaError::Function { file: file.to_owned(), function: function.name.to_owned() })?;
        function.target.store(*address, Ordering::Release);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let missing = connect("libno-such-library.so.7", &[]).unwrap_err();
        assert!(missing.to_string().contains("libno-such-library.so.7"), "{missing}");
        let lacking = connect("libc.so.6", driver::FUNCTIONS).unwrap_err();
        assert!(lacking.to_string().starts_with("libc.so.6 has no function cuCtxDestroy_v2"), "{lacking}");
    }

    #[test]
    fn a_driver_that_is_too_old_is_named_with_its_version() {
        let old = CudaError::Driver { found: 12040, needed: 13000 };
        assert_eq!(old.to_string(), "the driver runs CUDA 12.4, and 13.0 is needed");
    }

    // A function of the C library that nothing else calls stands for those of CUDA.
    library!(standard, curand, [toascii]);

    #[test]
    fn a_function_answers_not_initialised_until_it_is_found_and_then_is_the_real_one() {
        let declared: extern "C" fn() = standard::toascii;
        // SAFETY: it is a jump to `not_initialised::curand`, which reads no argument, or to `int toascii(int)`.
        let toascii: extern "C" fn(c_int) -> c_int = unsafe { std::mem::transmute(declared) };
        assert_eq!(toascii(200), 101);
        connect("libc.so.6", standard::FUNCTIONS).unwrap();
        assert_eq!(toascii(200), 200 - 128);
    }
}
