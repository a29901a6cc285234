/// Facts about the solution of the local systems of a fit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Solved {
    /// Number of systems whose diagonal was raised, because they were not positive definite.
    pub(crate) raised: usize,
    /// Whether each system with a low-rank part took one Jacobi step.
    pub(crate) jacobi: bool,
}
