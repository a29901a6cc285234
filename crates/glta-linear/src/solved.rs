/// How the local systems of a fit were solved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Solved {
    /// Systems that were not positive definite and had their diagonal raised.
    pub(crate) raised: usize,
    /// Whether each system took one Jacobi step beside the coarse part.
    pub(crate) jacobi: bool,
}
