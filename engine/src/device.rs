//! What a model computes on: the choice of the command line, in words and back.

use std::fmt;
use std::str::FromStr;

/// What a model computes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first CUDA device where there is one that can run the model, else the processor. Why it is the processor is
    /// said once. A benchmark never asks for this: its record names a device.
    Auto,
    /// The processor.
    #[default]
    Cpu,
    /// A CUDA device by its number. One that cannot run the model is an error and never another device.
    Cuda(u32),
}

/// A word that names no device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown device `{0}`; write auto, cpu, cuda or cuda:N")]
pub struct UnknownDevice(String);

impl FromStr for DeviceChoice {
    type Err = UnknownDevice;

    /// `cuda` is `cuda:0`.
    fn from_str(word: &str) -> Result<DeviceChoice, UnknownDevice> {
        let unknown = || UnknownDevice(word.to_owned());
        match word {
            "auto" => Ok(DeviceChoice::Auto),
            "cpu" => Ok(DeviceChoice::Cpu),
            "cuda" => Ok(DeviceChoice::Cuda(0)),
            _ => {
                let number = word.strip_prefix("cuda:").ok_or_else(unknown)?;
                // The parser of numbers also takes a sign, which no device has.
                let digits = number.bytes().all(|b| b.is_ascii_digit());
                number.parse().ok().filter(|_| digits).map(DeviceChoice::Cuda).ok_or_else(unknown)
            }
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceChoice::Auto => f.write_str("auto"),
            DeviceChoice::Cpu => f.write_str("cpu"),
            DeviceChoice::Cuda(n) => write!(f, "cuda:{n}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_read_as_it_is_written() {
        for device in [DeviceChoice::Auto, DeviceChoice::Cpu, DeviceChoice::Cuda(0), DeviceChoice::Cuda(13)] {
            assert_eq!(device.to_string().parse(), Ok(device));
        }
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
    }

    #[test]
    fn a_word_that_names_no_device_is_repeated_with_those_that_do() {
        for word in ["", "gpu", "CPU", "cuda:", "cuda:x", "cuda:-1", "cuda:+1", "cuda:99999999999", "cuda0"] {
            let said = word.parse::<DeviceChoice>().unwrap_err().to_string();
            assert!(said.contains(&format!("`{word}`")) && said.contains("cuda:N"), "{said}");
        }
    }
}
