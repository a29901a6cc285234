/// How the local systems of a fit were solved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Solved {
    /// Number of systems that were not positive definite, whose diagonal was raised.
    pub(crate) raised: usize,
    /// Whether each system with a low-rank part took one Jacobi step.
    pub(crate) jacobi: bool,
}
