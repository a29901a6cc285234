/// Returns the loss of Bayesian personalised ranking, `softplus(negative - positive)` of a triple's
/// two scores, and its derivative with respect to `negative`. The derivative with respect to
/// `positive` differs from it only in sign.
pub(crate) fn bpr(positive: f32, negative: f32) -> (f64, f32) {
    let x = f64::from(negative) - f64::from(positive);
    // The exponent is at most zero, so `exp` does not overflow.
    let e = (-x.abs()).exp();
    let sigmoid = if x > 0.0 { 1.0 } else { e } / (1.0 + e);
    (x.max(0.0) + e.ln_1p(), sigmoid as f32)
}

#[cfg(test)]
mod tests {
    use super::bpr;

    #[test]
    fn derivatives_agree_with_finite_differences() {
        for (positive, negative) in [(0.3f32, -1.2f32), (0.3, 2.0), (-0.7, 0.7)] {
            let (up, down) = (negative + 1e-3, negative - 1e-3);
            let step = f64::from(up) - f64::from(down);
            let numeric = (bpr(positive, up).0 - bpr(positive, down).0) / step;
            assert!((numeric - f64::from(bpr(positive, negative).1)).abs() < 1e-5);
        }
    }

    #[test]
    fn values_worked_by_hand_and_large_scores() {
        assert!((bpr(1.0, 1.0).0 - 2f64.ln()).abs() < 1e-12);
        assert_eq!(bpr(1.0, 1.0).1, 0.5);
        assert_eq!(bpr(1e4, -1e4), (0.0, 0.0));
        assert_eq!(bpr(-1e4, 1e4), (2e4, 1.0));
    }
}
