//! Names of the kernels, and their files.

#[cfg(any(feature = "cuda", test))]
use super::kernels::{Bits, COLUMNS, ROWS, Source};
use candle_core::DType;

use super::kernels::{Kernel, Pass, Units};

#[cfg(any(feature = "cuda", test))]
impl Source {
    /// Number of files.
    #[cfg(feature = "cuda")]
    pub(super) const COUNT: usize = 3 + Bits::ALL.len();

    /// Index of the file, from 0.
    #[cfg(feature = "cuda")]
    pub(super) fn index(self) -> usize {
        match self {
            Self::Elementwise => 0,
            Self::Attention => 1,
            Self::AttentionMma => 2,
            Self::Quantized(bits) => 3 + bits as usize,
        }
    }

    /// All kernels of the file.
    pub(super) fn kernels(self) -> Vec<Kernel> {
        let passes = |units| {
            [Pass::Forward, Pass::Queries, Pass::Keys].into_iter().flat_map(move |pass| {
                COLUMNS.map(|columns| Kernel::Attention(pass, units, columns))
            })
        };
        match self {
            Self::Elementwise => vec![
                Kernel::RmsNorm,
                Kernel::RmsNormBackward,
                Kernel::Rope,
                Kernel::GatherColumns,
                Kernel::GatherRows,
                Kernel::Swiglu,
                Kernel::SwigluBackward,
                Kernel::Add,
            ],
            Self::Attention => passes(Units::Ordinary)
                .chain([Kernel::AttentionDelta, Kernel::AttentionDecode, Kernel::AppendKeys])
                .collect(),
            Self::AttentionMma => passes(Units::Matrix).collect(),
            Self::Quantized(bits) => [Kernel::Dequantise(bits)]
                .into_iter()
                .chain(ROWS.map(|rows| Kernel::Product(bits, rows)))
                .collect(),
        }
    }
}

impl Kernel {
    /// Dtypes of activations.
    #[cfg(any(feature = "cuda", test))]
    pub(super) fn dtypes(self) -> &'static [DType] {
        match self {
            Self::Attention(_, Units::Matrix, _) => &[DType::F16, DType::BF16],
            _ => &[DType::F32, DType::F16, DType::BF16],
        }
    }

    /// The kernel's name in its file.
    pub(super) fn name(self, dtype: DType) -> String {
        let name = match self {
            Self::RmsNorm => "rms_norm".into(),
            Self::RmsNormBackward => "rms_norm_backward".into(),
            Self::Rope => "rope".into(),
            Self::GatherColumns => "gather_columns".into(),
            Self::GatherRows => "gather_rows".into(),
            Self::Swiglu => "swiglu".into(),
            Self::SwigluBackward => "swiglu_backward".into(),
            Self::Add => "add".into(),
            Self::Attention(pass, units, columns) => {
                let units = match units {
                    Units::Ordinary => "attention",
                    Units::Matrix => "attention_mma",
                };
                let pass = match pass {
                    Pass::Forward => "",
                    Pass::Queries => "_queries",
                    Pass::Keys => "_keys",
                };
                format!("{units}{pass}{columns}")
            }
            Self::AttentionDelta => "attention_delta".into(),
            Self::AttentionDecode => "attention_decode".into(),
            Self::AppendKeys => "append_keys".into(),
            Self::Dequantise(bits) => format!("dequantise{}", bits.count()),
            Self::Product(bits, rows) => format!("product{}_{rows}", bits.count()),
        };
        format!("{name}_{}", dtype.as_str())
    }

    /// The file that contains the kernel.
    #[cfg(any(feature = "cuda", test))]
    pub(super) fn source(self) -> Source {
        match self {
            Self::RmsNorm
            | Self::RmsNormBackward
            | Self::Rope
            | Self::GatherColumns
            | Self::GatherRows
            | Self::Swiglu
            | Self::SwigluBackward
            | Self::Add => Source::Elementwise,
            Self::Attention(_, Units::Matrix, _) => Source::AttentionMma,
            Self::Attention(_, Units::Ordinary, _)
            | Self::AttentionDelta
            | Self::AttentionDecode
            | Self::AppendKeys => Source::Attention,
            Self::Dequantise(bits) | Self::Product(bits, _) => Source::Quantized(bits),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_of_a_file_names_it() {
        let quantized = Bits::ALL.map(Source::Quantized);
        let mut kernels = 0;
        for source in Source::COMMON.into_iter().chain(quantized) {
            for kernel in source.kernels() {
                assert_eq!(kernel.source(), source, "{kernel:?}");
                kernels += kernel.dtypes().len();
            }
        }
        assert_eq!(kernels, 135);
    }

    #[test]
    fn kernel_names_match_the_files() {
        let keys = Kernel::Attention(Pass::Keys, Units::Matrix, 128);
        assert_eq!(keys.name(DType::BF16), "attention_mma_keys128_bf16");
        let forward = Kernel::Attention(Pass::Forward, Units::Ordinary, 64);
        assert_eq!(forward.name(DType::F32), "attention64_f32");
        assert_eq!(Kernel::Product(Bits::Four, 16).name(DType::F16), "product4_16_f16");
        assert!(Bits::new(5).is_err() && Bits::new(3).is_ok_and(|bits| bits == Bits::Three));
    }
}
