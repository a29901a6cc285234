//! Dense linear algebra in `f64` for closed-form models: Cholesky factors and inverses of positive
//! definite matrices, and eigenvectors of symmetric matrices.
//!
//! Matrices are `ndarray` arrays in standard layout (row-major). Functions read a symmetric matrix
//! from its lower triangle; they neither read nor write elements above the diagonal. Products use
//! the crate `gemm-f64` on rayon's current pool. Results do not depend on the number of threads.
//! Functions that end in `_with` report their progress and can be cancelled.
//!
//! The crate does not use faer, because faer and its kernels take three quarters of a clean build
//! of `glta-linear`. The functions here are as fast in products, which take most of the time.
//!
//! ```
//! use glta_linalg::{cholesky, gram_of_lower, invert_lower};
//! use ndarray::array;
//!
//! let mut matrix = array![[4.0, 0.0], [2.0, 5.0]];
//! cholesky(&mut matrix)?;
//! assert_eq!(matrix, array![[2.0, 0.0], [1.0, 2.0]]);
//! // The inverse of A = L Lᵀ is L⁻ᵀ L⁻¹.
//! invert_lower(&mut matrix)?;
//! gram_of_lower(&mut matrix)?;
//! assert_eq!(matrix, array![[0.3125, 0.0], [-0.125, 0.25]]);
//! # Ok::<(), glta_linalg::Error>(())
//! ```

mod block;
mod eigen;
mod error;
mod lower;
mod tridiagonal;
mod work;

pub use eigen::{Eigen, symmetric_eigen};
pub use error::{Error, Result};
pub use lower::{add_gram, add_gram_with, cholesky, gram_of_lower, invert_lower, invert_with};
pub use work::Step;
