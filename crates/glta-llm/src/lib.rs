//! Frozen LLaMA with GPTQ weights: forward, backward to the inputs, generation
