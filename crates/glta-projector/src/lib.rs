//! Node projectors: graph embeddings to soft tokens of a language model
