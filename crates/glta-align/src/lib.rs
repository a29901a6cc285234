//! GLTA: graph-language token alignment of a frozen language model
