use serde::{Deserialize, Serialize};

/// Arithmetic of a model's layers.
///
/// On the CPU, that of the products with quantised weights; everything else
/// (norms, attention, weights that are not quantised) is f32 in any case. On a
/// CUDA device, the type of all activations, and of weights while they are
/// multiplied; sums, norms, softmax and the model's inputs and outputs are f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Precision {
    /// f32.
    #[default]
    F32,
    /// What weights of 2 or 4 bits are multiplied with is rounded to bf16, and
    /// the products are summed in f32; forward the weights are exact, backward
    /// they are rounded too. Weights of 3 and 8 bits stay with f32.
    ///
    /// Against f32, SmolLM2-135M (30 layers, 4 bits) has hidden states with a
    /// relative error of 0.010, logits and input gradients of 0.022 (L2), and
    /// three of four greedy continuations of 24 tokens are the same.
    ///
    /// Faster on a processor with AVX-512 BF16
    /// ([`SimdLevel::Avx512Bf16`](crate::SimdLevel::Avx512Bf16)); emulated
    /// elsewhere, with the same products, and slower than f32.
    Bf16,
    /// f16; on CUDA devices only. Finer than bf16, with a range that small gradients
    /// can fall out of.
    F16,
}
