//! Names of the kernels, and their files.

#[cfg(any(feature = "cuda", test))]
use super::kernels::{Bits, COLUMNS, ROWS, TILES};
use candle_core::DType;

use super::kernels::{Kernel, Pass, Source, Units};

impl Source {
    /// Name of the file's code, which files of packed weights of different widths share.
    #[cfg(feature = "emulator")]
    pub(super) fn file(self) -> &'static str {
        match self {
            Self::Elementwise => "elementwise.cu",
            Self::Attention => "attention.cu",
            Self::AttentionMma => "attention_mma.cu",
            Self::Quantized(_) => "quantized.cu",
            Self::QuantizedMma(_) => "quantized_mma.cu",
        }
    }
}

#[cfg(any(feature = "cuda", test))]
impl Source {
    /// Number of files.
    #[cfg(feature = "cuda")]
    pub(super) const COUNT: usize = 3 + 2 * Bits::ALL.len();

    /// Index of the file, from 0.
    #[cfg(feature = "cuda")]
    pub(super) fn index(self) -> usize {
        match self {
            Self::Elementwise => 0,
            Self::Attention => 1,
            Self::AttentionMma => 2,
            Self::Quantized(bits) => 3 + bits as usize,
            Self::QuantizedMma(bits) => 3 + Bits::ALL.len() + bits as usize,
        }
    }

    /// All files.
    #[cfg(test)]
    pub(super) fn all() -> impl Iterator<Item = Self> {
        Self::COMMON
            .into_iter()
            .chain(Bits::ALL.into_iter().flat_map(|b| [Self::Quantized(b), Self::QuantizedMma(b)]))
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
                Kernel::IndexAdd,
                Kernel::NextTokens,
            ],
            Self::Attention => passes(Units::Ordinary)
                .chain([Kernel::AttentionDelta, Kernel::AttentionDecode, Kernel::AppendKeys])
                .collect(),
            Self::AttentionMma => passes(Units::TensorCores).collect(),
            Self::Quantized(bits) => [Kernel::Dequantise(bits)]
                .into_iter()
                .chain(ROWS.map(|rows| Kernel::Product(bits, rows)))
                .collect(),
            Self::QuantizedMma(bits) => {
                let tiles = TILES.map(|tiles| Kernel::ProductMma(bits, tiles));
                tiles.into_iter().chain([Kernel::ProductNormed(bits)]).collect()
            }
        }
    }
}

impl Kernel {
    /// Dtypes of activations.
    #[cfg(any(feature = "cuda", test))]
    pub(super) fn dtypes(self) -> &'static [DType] {
        match self {
            Self::Attention(_, Units::TensorCores, _) | Self::ProductMma(..) => {
                &[DType::F16, DType::BF16]
            }
            Self::IndexAdd | Self::NextTokens => &[DType::F32],
            Self::ProductNormed(_) => &[DType::BF16],
            // More rows of 16-bit types are for the tensor cores.
            Self::Product(_, 2..) => &[DType::F32],
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
            Self::IndexAdd => "index_add".into(),
            Self::NextTokens => "next_tokens".into(),
            Self::Attention(pass, units, columns) => {
                let units = match units {
                    Units::Ordinary => "attention",
                    Units::TensorCores => "attention_mma",
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
            Self::ProductMma(bits, tiles) => format!("product_mma{}_{tiles}", bits.count()),
            Self::ProductNormed(bits) => format!("product_normed{}", bits.count()),
        };
        format!("{name}_{}", dtype.as_str())
    }

    /// The file that contains the kernel.
    pub(super) fn source(self) -> Source {
        match self {
            Self::RmsNorm
            | Self::RmsNormBackward
            | Self::Rope
            | Self::GatherColumns
            | Self::GatherRows
            | Self::Swiglu
            | Self::SwigluBackward
            | Self::Add
            | Self::IndexAdd
            | Self::NextTokens => Source::Elementwise,
            Self::Attention(_, Units::TensorCores, _) => Source::AttentionMma,
            Self::Attention(_, Units::Ordinary, _)
            | Self::AttentionDelta
            | Self::AttentionDecode
            | Self::AppendKeys => Source::Attention,
            Self::Dequantise(bits) | Self::Product(bits, _) => Source::Quantized(bits),
            Self::ProductMma(bits, _) | Self::ProductNormed(bits) => Source::QuantizedMma(bits),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_of_a_file_names_it() {
        let mut kernels = 0;
        for source in Source::all() {
            for kernel in source.kernels() {
                assert_eq!(kernel.source(), source, "{kernel:?}");
                kernels += kernel.dtypes().len();
            }
        }
        assert_eq!(kernels, 141);
    }

    #[test]
    fn kernel_names_match_the_files() {
        let keys = Kernel::Attention(Pass::Keys, Units::TensorCores, 128);
        assert_eq!(keys.name(DType::BF16), "attention_mma_keys128_bf16");
        let forward = Kernel::Attention(Pass::Forward, Units::Ordinary, 64);
        assert_eq!(forward.name(DType::F32), "attention64_f32");
        assert_eq!(Kernel::Product(Bits::Four, 16).name(DType::F32), "product4_16_f32");
        assert_eq!(Kernel::ProductMma(Bits::Four, 8).name(DType::F16), "product_mma4_8_f16");
        assert!(Bits::new(5).is_err() && Bits::new(3).is_ok_and(|bits| bits == Bits::Three));
    }
}
