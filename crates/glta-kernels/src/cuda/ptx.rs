//! The kernels, compiled by `build.rs`.

use super::kernels::{Bits, Source};

/// Name and PTX of a compiled file.
macro_rules! module {
    ($name:literal) => {
        (concat!("glta-", $name), include_str!(concat!(env!("OUT_DIR"), "/", $name, ".ptx")))
    };
}

impl Source {
    pub(super) fn module(self) -> (&'static str, &'static str) {
        match self {
            Self::Elementwise => module!("elementwise"),
            Self::Attention => module!("attention"),
            Self::AttentionMma => module!("attention_mma"),
            Self::Quantized(Bits::Two) => module!("quantized2"),
            Self::Quantized(Bits::Three) => module!("quantized3"),
            Self::Quantized(Bits::Four) => module!("quantized4"),
            Self::Quantized(Bits::Eight) => module!("quantized8"),
            Self::QuantizedMma(Bits::Two) => module!("quantized_mma2"),
            Self::QuantizedMma(Bits::Three) => module!("quantized_mma3"),
            Self::QuantizedMma(Bits::Four) => module!("quantized_mma4"),
            Self::QuantizedMma(Bits::Eight) => module!("quantized_mma8"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_is_in_its_file() {
        for source in Source::all() {
            let (name, ptx) = source.module();
            for kernel in source.kernels() {
                for &dtype in kernel.dtypes() {
                    let entry = format!(".visible .entry {}(", kernel.name(dtype));
                    assert!(ptx.contains(&entry), "{name} has no {entry}");
                }
            }
            let entries = ptx.matches(".visible .entry ").count();
            let expected: usize = source.kernels().iter().map(|k| k.dtypes().len()).sum();
            assert_eq!(entries, expected, "{name}");
        }
    }
}
