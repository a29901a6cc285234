/// Errors of linear algebra.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A matrix has the wrong shape.
    #[error("{operation} needs {expected} in standard layout, got {rows} x {columns}")]
    Shape {
        /// Name of the operation.
        operation: &'static str,
        /// The expected shape.
        expected: String,
        /// Number of rows of the given matrix.
        rows: usize,
        /// Number of columns of the given matrix.
        columns: usize,
    },
    /// A pivot of the Cholesky factorisation is not positive.
    #[error("the matrix is not positive definite (row {row}); add a constant to its diagonal")]
    NotPositiveDefinite {
        /// The first row whose pivot is not positive.
        row: usize,
    },
    /// A diagonal element of a triangular matrix is zero or not finite.
    #[error(
        "the triangular matrix has no inverse: element {row} of its diagonal is zero or not finite"
    )]
    Singular {
        /// The first row whose diagonal element is zero or not finite.
        row: usize,
    },
    /// The eigenvalues did not converge because the matrix contains values that are not finite.
    #[error("the eigenvalues do not converge; are all values of the matrix finite?")]
    NoConvergence,
    /// The progress callback cancelled the operation.
    #[error(transparent)]
    Cancelled(#[from] glta_core::Cancelled),
}

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
