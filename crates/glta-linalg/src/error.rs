/// What can go wrong in linear algebra.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The shape does not suit the operation.
    #[error("{operation} takes {expected} in standard layout, not {rows} x {columns}")]
    Shape {
        /// The operation.
        operation: &'static str,
        /// What it takes.
        expected: String,
        /// Rows of the matrix that it was given.
        rows: usize,
        /// Columns of the matrix that it was given.
        columns: usize,
    },
    /// A pivot of the Cholesky factorisation is not a positive number.
    #[error("the matrix is not positive definite: see row {row}; add to its diagonal")]
    NotPositiveDefinite {
        /// The first row whose pivot is not positive.
        row: usize,
    },
    /// A pivot of a triangular matrix is zero or not finite.
    #[error("the triangular matrix has no inverse: see row {row} of its diagonal")]
    Singular {
        /// The first such row.
        row: usize,
    },
    /// The eigenvalues did not converge: the matrix has values that are not finite.
    #[error("the eigenvalues do not converge; are all values of the matrix finite?")]
    NoConvergence,
    /// The receiver of the progress asked to stop.
    #[error(transparent)]
    Cancelled(#[from] glta_core::Cancelled),
}

/// A result with [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
