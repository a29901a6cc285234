use serde::{Deserialize, Serialize};

/// Instruction set of the CPU kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SimdLevel {
    /// Plain Rust, for any processor.
    Portable,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ and VL.
    Avx512,
    /// x86-64 with AVX-512 F, BW, DQ, VL and BF16. Only [`Precision::Bf16`](crate::Precision) uses
    /// BF16 instructions.
    Avx512Bf16,
}

impl SimdLevel {
    /// Returns the best level that this processor supports.
    pub fn detect() -> Self {
        Self::supported().next().unwrap_or(Self::Portable)
    }

    /// Returns the levels that this processor supports, best first.
    pub fn supported() -> impl Iterator<Item = Self> {
        [Self::Avx512Bf16, Self::Avx512, Self::Avx2, Self::Portable]
            .into_iter()
            .filter(|level| level.is_supported())
    }

    /// Returns whether this processor supports the level.
    pub fn is_supported(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                Self::Avx2.is_supported()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 => {
                Self::Avx512.is_supported() && is_x86_feature_detected!("avx512bf16")
            }
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }
}
