//! What code is compiled for.

use std::fmt;
use std::str::FromStr;

/// A target of the compiler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Arch {
    /// Compute capability times ten: 90 is 9.0.
    pub cc: u32,
    /// PTX for this virtual architecture, which the driver compiles for its device, in place of machine code.
    pub ptx: bool,
}

impl Arch {
    /// What every kernel is compiled for without a device: T4, A100, RTX 30, Jetson Orin, RTX 40, H100 and H200.
    pub const ALL: [Arch; 6] = [Arch::sm(75), Arch::sm(80), Arch::sm(86), Arch::sm(87), Arch::sm(89), Arch::sm(90)];

    /// Machine code for a compute capability.
    pub const fn sm(cc: u32) -> Arch {
        Arch { cc, ptx: false }
    }

    /// PTX that devices of this compute capability and newer can run: function without a device of that age.
    pub const fn compute(cc: u32) -> Arch {
        Arch { cc, ptx: true }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", if self.ptx { "compute" } else { "sm" }, self.cc)
    }
}

/// Text that is no architecture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no architecture: write sm_90 for machine code or compute_75 for PTX")]
pub struct NotAnArch(pub String);

impl FromStr for Arch {
    type Err = NotAnArch;

    fn from_str(text: &str) -> Result<Arch, NotAnArch> {
        let bad = || NotAnArch(text.to_owned());
        let (kind, cc) = text.split_once('_').ok_or_else(bad)?;
        let cc = cc.parse().ok().filter(|cc| (50..1000).contains(cc)).ok_or_else(bad)?;
        match kind {
            "sm" => Ok(Arch::sm(cc)),
            "compute" => Ok(Arch::compute(cc)),
            _ => Err(bad()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_architecture_is_read_back_from_its_text() {
        for text in ["sm_75", "sm_90", "compute_75", "sm_120"] {
            assert_eq!(text.parse::<Arch>().unwrap().to_string(), text);
        }
        for text in ["90", "sm90", "sm_", "sm_9x", "gfx_90", "sm_3"] {
            assert_eq!(text.parse::<Arch>(), Err(NotAnArch(text.to_owned())));
        }
    }
}
