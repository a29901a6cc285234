//! The vector operations of the kernels, for AVX-512, AVX2 and plain Rust. The instruction set is
//! selected at run time.
//!
//! A kernel is a generic `#[inline(always)]` function over [`Simd`]. The macro [`dispatch!`]
//! creates one function per instruction set.
//!
//! AVX-512 and AVX2 return bit-identical results, because every output element is a chain of fused
//! multiply-adds in the same order. The portable path rounds between multiply and add.
// Every operation here is unsafe for the reason that `Simd` states.
#![allow(unsafe_op_in_unsafe_fn)]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod dispatch;
mod level;
mod portable;
mod vector;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
pub(crate) use dispatch::{dispatch, dispatch_bf16};
pub use level::SimdLevel;
pub(crate) use portable::Portable;
pub(crate) use vector::Simd;
