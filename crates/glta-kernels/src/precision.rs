use serde::{Deserialize, Serialize};

/// Arithmetic of a model's layers.
///
/// On the CPU it is the type of products with quantised weights; everything else (norms, attention,
/// weights that are not quantised) is f32. On a CUDA device it is the type of all activations, and
/// of weights while they are multiplied; sums, norms, softmax and the model's inputs and outputs
/// are f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Precision {
    /// f32.
    #[default]
    F32,
    /// The inputs of weights of 2 or 4 bits are rounded to bf16, and the products are summed in
    /// f32. Forward, the weights are exact; backward, they are rounded too. Weights of 3 and 8 bits
    /// use f32.
    ///
    /// Relative to f32, SmolLM2-135M (30 layers, 4 bits) has an error (L2) of 0.010 in the hidden
    /// states and of 0.022 in logits and input gradients; three of four greedy continuations of 24
    /// tokens are the same.
    ///
    /// Faster on processors with AVX-512 BF16
    /// ([`SimdLevel::Avx512Bf16`](crate::SimdLevel::Avx512Bf16)). Other processors emulate it, with
    /// the same products, and are slower than with f32.
    Bf16,
    /// f16, on CUDA devices only. It is more precise than bf16, but small gradients can underflow.
    F16,
}
