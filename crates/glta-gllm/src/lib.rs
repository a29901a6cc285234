//! GLLM: graph-language logits matching head, losses and slot decoding
