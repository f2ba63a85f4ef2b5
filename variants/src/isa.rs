//! What a processor can do, as the kernels need to know it.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An instruction set level.
///
/// The order is that of capability: a machine of one level runs every level below. Levels of different processors do not
/// compare: neither [`Isa::Avx2`] nor [`Isa::NeonDotprod`] is above the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isa {
    /// Portable Rust, whatever the compiler's target allows.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ, VL and VNNI.
    Avx512Vnni,
    /// ARMv8.2 with the dot product extension.
    NeonDotprod,
}

impl Isa {
    /// Every level; of those of one processor, the least capable first.
    pub const ALL: [Isa; 4] = [Isa::Scalar, Isa::Avx2, Isa::Avx512Vnni, Isa::NeonDotprod];

    /// Whether a machine of this level runs code of level `need`.
    pub const fn runs(self, need: Isa) -> bool {
        match need {
            Isa::Scalar => true,
            Isa::Avx2 => matches!(self, Isa::Avx2 | Isa::Avx512Vnni),
            Isa::Avx512Vnni => matches!(self, Isa::Avx512Vnni),
            Isa::NeonDotprod => matches!(self, Isa::NeonDotprod),
        }
    }

    /// The highest level that machines of both levels run.
    pub const fn min(self, other: Isa) -> Isa {
        if self.runs(other) {
            other
        } else if other.runs(self) {
            self
        } else {
            Isa::Scalar
        }
    }

    /// The highest level of this machine.
    pub fn detect() -> Isa {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 =
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vnni");
            if avx2 && avx512 {
                return Isa::Avx512Vnni;
            }
            if avx2 {
                return Isa::Avx2;
            }
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("dotprod") {
            return Isa::NeonDotprod;
        }
        Isa::Scalar
    }

    /// The levels that this machine runs, the least capable first.
    pub fn available() -> Vec<Isa> {
        let best = Isa::detect();
        Isa::ALL.into_iter().filter(|&isa| best.runs(isa)).collect()
    }

    /// The name as written in space files and in `EDGELLM_ISA`.
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::Avx512Vnni => "avx512_vnni",
            Isa::NeonDotprod => "neon_dotprod",
        }
    }
}

impl PartialOrd for Isa {
    fn partial_cmp(&self, other: &Isa) -> Option<Ordering> {
        match (self.runs(*other), other.runs(*self)) {
            (true, true) => Some(Ordering::Equal),
            (true, false) => Some(Ordering::Greater),
            (false, true) => Some(Ordering::Less),
            (false, false) => None,
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that names no instruction set level.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown instruction set {0:?}: use scalar, avx2, avx512_vnni or neon_dotprod")]
pub struct UnknownIsa(pub String);

impl FromStr for Isa {
    type Err = UnknownIsa;

    fn from_str(word: &str) -> Result<Isa, UnknownIsa> {
        Isa::ALL.into_iter().find(|isa| isa.name() == word).ok_or_else(|| UnknownIsa(word.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_is_read_back_from_its_name() {
        for isa in Isa::ALL {
            assert_eq!(isa.name().parse(), Ok(isa));
        }
        assert_eq!("sse9".parse::<Isa>(), Err(UnknownIsa("sse9".to_owned())));
    }

    #[test]
    fn levels_of_different_processors_do_not_compare() {
        assert!(Isa::Avx512Vnni > Isa::Avx2 && Isa::NeonDotprod > Isa::Scalar);
        assert_eq!(Isa::NeonDotprod.partial_cmp(&Isa::Avx2), None);
        assert!(!Isa::NeonDotprod.runs(Isa::Avx2) && !Isa::Avx512Vnni.runs(Isa::NeonDotprod));
        assert_eq!(Isa::NeonDotprod.min(Isa::Avx512Vnni), Isa::Scalar);
        assert_eq!(Isa::Avx2.min(Isa::Avx512Vnni), Isa::Avx2);
    }

    #[test]
    fn what_is_available_ends_with_what_is_detected() {
        assert_eq!(Isa::available().last(), Some(&Isa::detect()));
    }
}
