//! Values that depend only on the degree of an item, cached for small degrees.

/// Number of degrees whose logarithms and exponentials are stored.
pub(crate) const FEW: u32 = 4_096;

/// Exponentials of the logits that come from popularity alone.
#[derive(Debug)]
pub(crate) struct PopularityTerms {
    /// The largest logit.
    pub(crate) shift: f64,
    /// The sum of `exp(logit - shift)` over all items.
    pub(crate) sum: f64,
    /// The values `exp(logit - shift)` for each degree below [`FEW`].
    pub(crate) exps: Vec<f64>,
}
