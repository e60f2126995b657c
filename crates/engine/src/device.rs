//! Where a model runs: what was asked for and what this build and machine have.

use std::fmt;
use std::str::FromStr;

use candle_core::Device;

use crate::error::Error;
use crate::memory::Memory;

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

/// Opens the device that was asked for.
///
/// # Errors
/// A CUDA device in a build that has none.
pub fn open(choice: DeviceChoice) -> Result<Device, Error> {
    match choice {
        DeviceChoice::Auto | DeviceChoice::Cpu => Ok(Device::Cpu),
        DeviceChoice::Cuda(_) => Err(Error::Device { choice, reason: "this build runs on the CPU only".to_owned() }),
    }
}

/// The memory of the device that was asked for.
///
/// # Errors
/// When the system does not tell, or there is no such device.
pub fn memory(choice: DeviceChoice) -> Result<Memory, Error> {
    match open(choice)? {
        Device::Cpu => Memory::of_machine(),
        _ => Err(Error::Device { choice, reason: "its memory is not known".to_owned() }),
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
        assert!(open(DeviceChoice::Cuda(1)).unwrap_err().to_string().contains("cuda:1"));
    }
}
