//! Where a model runs: what was asked for, what this build and machine have, and how much memory is free there. Must not know
//! what is computed.

use std::fmt;
use std::str::FromStr;

use candle_core::Device;

use crate::error::Error;

/// The device asked for: `auto`, `cpu` or `cuda:N`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The best device there is.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// The CUDA device of that number.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("cuda:").map(str::parse)) {
            ("auto", _) => Ok(Self::Auto),
            ("cpu", _) => Ok(Self::Cpu),
            ("cuda", _) => Ok(Self::Cuda(0)),
            (_, Some(Ok(index))) => Ok(Self::Cuda(index)),
            _ => Err(format!("device is auto, cpu or cuda:N, not {text:?}")),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => formatter.write_str("auto"),
            Self::Cpu => formatter.write_str("cpu"),
            Self::Cuda(index) => write!(formatter, "cuda:{index}"),
        }
    }
}

/// A device to run on.
#[derive(Debug)]
pub struct OpenDevice {
    /// The device.
    pub device: Device,
    /// Why it is the processor, where `auto` looked for something better. For the log.
    pub fallback: Option<String>,
}

/// Opens the device that was asked for. `auto` is the first CUDA device where CUDA is built in and the device can be used.
///
/// # Errors
/// When a CUDA device is asked for by its number, and cannot be used.
pub fn open(choice: DeviceChoice) -> Result<OpenDevice, Error> {
    let processor = |fallback| OpenDevice { device: Device::Cpu, fallback };
    match choice {
        DeviceChoice::Cpu => Ok(processor(None)),
        DeviceChoice::Auto if !cuda::BUILT_IN => Ok(processor(None)),
        DeviceChoice::Auto => match cuda::open(0) {
            Ok(device) => Ok(OpenDevice { device, fallback: None }),
            Err(reason) => Ok(processor(Some(reason))),
        },
        DeviceChoice::Cuda(index) => match cuda::open(index) {
            Ok(device) => Ok(OpenDevice { device, fallback: None }),
            Err(reason) => Err(Error::Device { choice, reason }),
        },
    }
}

/// Bytes that the device can hand out now.
///
/// # Errors
/// When the system or the driver does not say.
pub fn available_memory(device: &Device) -> Result<u64, Error> {
    if let Device::Cuda(device) = device {
        return cuda::available_memory(device).map_err(Error::Cache);
    }
    let mut system = sysinfo::System::new().map_err(|error| Error::Cache(error.to_string()))?;
    system.refresh_memory();
    Ok(system.available_memory())
}

/// In a build for the processor alone.
#[cfg(not(feature = "cuda"))]
mod cuda {
    use candle_core::{CudaDevice, Device};

    pub(super) const BUILT_IN: bool = false;

    pub(super) fn open(_: usize) -> Result<Device, String> {
        Err(MISSING.to_owned())
    }

    pub(super) fn available_memory(_: &CudaDevice) -> Result<u64, String> {
        Err(MISSING.to_owned())
    }

    const MISSING: &str = "this build runs on the CPU only; CUDA devices need one with `--features cuda`";
}

#[cfg(feature = "cuda")]
mod cuda {
    use candle_core::cuda_backend::cudarc::driver::{CudaContext, DriverError, sys};
    use candle_core::cuda_backend::kernels;
    use candle_core::{CudaDevice, DType, Device, Tensor};
    use hearth_kernels::cuda::load_libraries;

    pub(super) const BUILT_IN: bool = true;

    /// Opens that device and tries it. Each step is what the next relies on, so that the reason is the first that is true.
    pub(super) fn open(index: usize) -> Result<Device, String> {
        load_libraries(sys::CUDA_VERSION).map_err(|error| error.to_string())?;
        let count = CudaContext::device_count().map_err(said)?;
        if usize::try_from(count).is_ok_and(|count| index >= count) {
            return Err(format!("there is no such device; CUDA devices on this machine: {count}, numbered from 0"));
        }
        // Held until the device holds it too: the last holder takes the driver's context down.
        let context = CudaContext::new(index).map_err(said)?;
        let capability = context.compute_capability().map_err(said)?;
        let target = kernel_target(kernels::FILL.ptx());
        if !runs(target, capability) {
            let (major, minor) = capability;
            return Err(format!("its compute capability is {major}.{minor}, and this build is for {target}"));
        }
        let device = Device::new_cuda(index).map_err(|error| error.to_string())?;
        try_out(&device).map_err(|error| format!("it cannot compute: {error}"))?;
        Ok(device)
    }

    /// A product and a sum, so that a device that cannot run the kernels is found before a model is loaded.
    fn try_out(device: &Device) -> candle_core::Result<()> {
        let ones = Tensor::ones((2, 2), DType::F32, device)?;
        let sum = (ones.matmul(&ones)? + 1.0)?.sum_all()?.to_scalar::<f32>()?;
        if sum != 12.0 {
            candle_core::bail!("twelve came out as {sum}");
        }
        Ok(())
    }

    /// The GPU that PTX code was compiled for, as in `.target sm_90a`.
    pub(super) fn kernel_target(ptx: &str) -> &str {
        let target = ptx.lines().find_map(|line| line.strip_prefix(".target "));
        target.map_or("", |target| target.split(',').next().unwrap_or(target).trim())
    }

    /// Whether code for `target` runs on a GPU of that compute capability. Part of the kernels is machine code, which runs on
    /// the same major and no smaller minor version, and with the suffix `a` on that version alone. (CUDA programming guide,
    /// compute capabilities)
    pub(super) fn runs(target: &str, (major, minor): (i32, i32)) -> bool {
        let version = target.trim_start_matches("sm_");
        let Ok(number) = version.trim_end_matches(['a', 'f']).parse::<i32>() else { return false };
        let (built_major, built_minor) = (number / 10, number % 10);
        built_major == major && if version.ends_with('a') { built_minor == minor } else { built_minor <= minor }
    }

    /// Bytes that are free on the device.
    pub(super) fn available_memory(device: &CudaDevice) -> Result<u64, String> {
        let (free, _) = device.cuda_stream().context().mem_get_info().map_err(said)?;
        Ok(free as u64)
    }

    fn said(error: DriverError) -> String {
        let text = error.error_string().map_or_else(|_| error.to_string(), |text| text.to_string_lossy().into_owned());
        format!("the CUDA driver says: {text}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_reads_as_it_prints() {
        for text in ["auto", "cpu", "cuda:0", "cuda:7"] {
            assert_eq!(text.parse::<DeviceChoice>().unwrap().to_string(), text);
        }
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        assert!("gpu".parse::<DeviceChoice>().unwrap_err().contains("\"gpu\""));
    }

    #[test]
    fn auto_is_always_some_device_and_a_number_that_is_not_there_is_an_error() {
        let OpenDevice { device, fallback } = open(DeviceChoice::Auto).unwrap();
        assert_eq!(fallback.is_some(), cuda::BUILT_IN && device.is_cpu());
        assert!(available_memory(&device).unwrap() > 0);
        let error = open(DeviceChoice::Cuda(99)).unwrap_err().to_string();
        assert!(error.starts_with("device cuda:99: "), "{error}");
        assert!(cuda::BUILT_IN || error.contains("--features cuda"), "{error}");
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn kernels_run_on_the_gpus_they_were_compiled_for() {
        assert_eq!(cuda::kernel_target("//\n.version 9.0\n.target sm_90a\n.address_size 64\n"), "sm_90a");
        for (target, capability, runs) in [
            ("sm_90a", (9, 0), true),
            ("sm_90a", (10, 0), false),
            ("sm_90a", (8, 0), false),
            ("sm_80", (8, 6), true),
            ("sm_89", (8, 6), false),
            ("sm_80", (9, 0), false),
            ("sm_121f", (12, 1), true),
            ("", (9, 0), false),
        ] {
            assert_eq!(cuda::runs(target, capability), runs, "{target} on {capability:?}");
        }
    }
}
