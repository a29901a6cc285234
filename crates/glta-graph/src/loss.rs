//! The objectives of one triple and their derivatives.

use crate::config::Loss;

impl Loss {
    /// Loss of a triple with score `positive` and `scores` of its negatives.
    /// Returns it with its derivative by `positive`; `scores` become the
    /// derivatives by themselves.
    pub(crate) fn derivatives(self, positive: f32, scores: &mut [f32]) -> (f64, f32) {
        let positive = f64::from(positive);
        match self {
            Self::Bpr => {
                let share = 1.0 / scores.len() as f64;
                let (mut loss, mut slope) = (0.0, 0.0);
                for score in scores {
                    let x = f64::from(*score) - positive;
                    // exp of a number that is never positive cannot overflow.
                    let e = (-x.abs()).exp();
                    loss += x.max(0.0) + e.ln_1p();
                    let sigmoid = if x > 0.0 { 1.0 } else { e } / (1.0 + e);
                    *score = (share * sigmoid) as f32;
                    slope += sigmoid;
                }
                (loss * share, (-slope * share) as f32)
            }
            Self::SampledSoftmax { temperature } => {
                let scale = 1.0 / f64::from(temperature);
                let top = scores.iter().fold(positive, |top, &s| top.max(f64::from(s)));
                let weight = |score: f64| ((score - top) * scale).exp();
                let own = weight(positive);
                let sum = own + scores.iter().map(|&s| weight(f64::from(s))).sum::<f64>();
                for score in scores {
                    *score = (scale * weight(f64::from(*score)) / sum) as f32;
                }
                let loss = sum.ln() - (positive - top) * scale;
                (loss, (scale * (own / sum - 1.0)) as f32)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derivatives_agree_with_finite_differences() {
        for loss in [Loss::Bpr, Loss::SampledSoftmax { temperature: 0.5 }] {
            let scores = [0.3f32, -1.2, 2.0, 0.7];
            let value = |at: [f32; 4]| {
                let mut rest = [at[1], at[2], at[3]];
                loss.derivatives(at[0], &mut rest).0
            };
            let mut rest = [scores[1], scores[2], scores[3]];
            let (_, slope) = loss.derivatives(scores[0], &mut rest);
            let analytic = [slope, rest[0], rest[1], rest[2]];
            for k in 0..4 {
                let (mut up, mut down) = (scores, scores);
                up[k] += 1e-3;
                down[k] -= 1e-3;
                let step = f64::from(up[k]) - f64::from(down[k]);
                let numeric = (value(up) - value(down)) / step;
                assert!((numeric - f64::from(analytic[k])).abs() < 1e-5, "{loss:?} {k}");
            }
        }
    }

    #[test]
    fn values_worked_by_hand_and_large_scores() {
        let bpr = |positive, negative| Loss::Bpr.derivatives(positive, &mut [negative]);
        assert!((bpr(1.0, 1.0).0 - 2f64.ln()).abs() < 1e-12);
        assert_eq!(bpr(1.0, 1.0).1, -0.5);
        assert_eq!(bpr(1e4, -1e4), (0.0, 0.0));
        assert_eq!(bpr(-1e4, 1e4), (2e4, -1.0));
        let softmax = Loss::SampledSoftmax { temperature: 1.0 };
        let (loss, slope) = softmax.derivatives(0.0, &mut [0.0, 0.0, 0.0]);
        assert!((loss - 4f64.ln()).abs() < 1e-12);
        assert_eq!(slope, -0.75);
        assert_eq!(softmax.derivatives(-1e4, &mut [1e4]), (2e4, -1.0));
    }
}
