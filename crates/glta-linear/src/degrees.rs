//! Values that depend on the degree of an item alone, cached for small degrees.

/// Number of degrees whose logarithms and exponentials are stored.
pub(crate) const FEW: u32 = 4_096;

/// Exponentials of the scores by popularity alone.
#[derive(Debug)]
pub(crate) struct PopularityTerms {
    /// The largest logit.
    pub(crate) shift: f64,
    /// The sum of the exponentials of all items, minus `shift` in the exponent.
    pub(crate) sum: f64,
    /// The exponential for each degree below [`FEW`], minus `shift` in the exponent.
    pub(crate) exps: Vec<f64>,
}
