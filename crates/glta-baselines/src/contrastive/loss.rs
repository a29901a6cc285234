use candle_core::{D, Result, Tensor};
use glta_gllm::weighted_cross_entropy;

use crate::ops::normalized;

/// Computes `ln(1 + eˣ)` without overflow.
fn softplus(x: &Tensor) -> Result<Tensor> {
    x.relu()? + (x.abs()?.neg()?.exp()? + 1.0)?.log()?
}

/// Computes the Bayesian personalised ranking loss of rows `(batch, dim)`: the mean of
/// `softplus(u·j - u·i)` for users `u`, positives `i` and negatives `j`.
pub(super) fn bpr(users: &Tensor, positives: &Tensor, negatives: &Tensor) -> Result<Tensor> {
    let margin = (users * (negatives - positives)?)?.sum(D::Minus1)?;
    softplus(&margin)?.mean_all()
}

/// The distinct rows of a batch in ascending order, and how often each was drawn. The losses sum
/// over these rows, weighted by their counts, instead of over all draws.
pub(super) struct Drawn {
    pub(super) rows: Vec<u32>,
    pub(super) times: Vec<f32>,
}

impl Drawn {
    pub(super) fn new(rows: impl Iterator<Item = u32>) -> Self {
        let mut all: Vec<u32> = rows.collect();
        all.sort_unstable();
        let (mut rows, mut times): (Vec<u32>, Vec<f32>) = (Vec::new(), Vec::new());
        for row in all {
            match times.last_mut().filter(|_| rows.last() == Some(&row)) {
                Some(times) => *times += 1.0,
                None => {
                    rows.push(row);
                    times.push(1.0);
                }
            }
        }
        Self { rows, times }
    }
}

/// Computes InfoNCE: the mean over the rows of `anchors (n, dim)` of the cross-entropy with logits
/// `cosine / temperature`. The positive of row `r` is row `own[r]` of `others (m, dim)`, and the
/// other rows are its negatives. `times` contains how often each row of `anchors` and each row of
/// `others` was drawn. `None` means once.
pub(super) fn info_nce(
    anchors: &Tensor,
    others: &Tensor,
    own: &[u32],
    temperature: f64,
    times: [Option<&[f32]>; 2],
) -> Result<Tensor> {
    let m = others.dim(0)?;
    // `c · eˣ` is `exp(x + ln c)`.
    let logs = match times[1] {
        None => vec![0.0; m],
        Some(times) => times.iter().map(|times| times.ln()).collect(),
    };
    let weights: Vec<f32> = match times[0] {
        None => vec![1.0 / own.len() as f32; own.len()],
        Some(times) => {
            let total: f32 = times.iter().sum();
            times.iter().map(|times| times / total).collect()
        }
    };
    // The numerator counts one draw of the row, not all its draws.
    let own_logs = weights.iter().zip(own).map(|(w, &own)| f64::from(w * logs[own as usize])).sum();
    let logs = Tensor::from_vec(logs, m, others.device())?;
    let anchors = (normalized(anchors)? / temperature)?;
    let loss = weighted_cross_entropy(&anchors, &normalized(others)?, &logs, own, &weights)
        .map_err(candle_core::Error::wrap)?;
    loss.affine(1.0, own_logs)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;

    #[test]
    fn values_by_hand() {
        let t = |rows: &[[f32; 2]]| {
            Tensor::from_vec(rows.concat(), (rows.len(), 2), &Device::Cpu).unwrap()
        };
        let value = |t: Tensor| f64::from(t.to_scalar::<f32>().unwrap());
        let (u, i, j) = (t(&[[1.0, 2.0]]), t(&[[3.0, 1.0]]), t(&[[0.0, 1.0]]));
        // The expected margin is u·j - u·i = 2 - 5.
        let got = value(bpr(&u, &i, &j).unwrap());
        assert!((got - (-3f64).exp().ln_1p()).abs() < 1e-6);
        let far = value(bpr(&(&u * 1e3).unwrap(), &j, &i).unwrap());
        assert!((far - 3000.0).abs() < 1e-2, "{far}");

        // The cosines are 1 and 0, and 0 and 1, each divided by 0.5.
        let (a, b) = (t(&[[2.0, 0.0], [0.0, 1.0]]), t(&[[5.0, 0.0], [0.0, 3.0]]));
        let got = value(info_nce(&a, &b, &[0, 1], 0.5, [None; 2]).unwrap());
        assert!((got - ((2f64.exp() + 1.0).ln() - 2.0)).abs() < 1e-5, "{got}");
        // With three candidates the cosines are 1, 0 and -1 for the first row, and 0, 1 and 0 for
        // the second.
        let three = t(&[[5.0, 0.0], [0.0, 3.0], [-1.0, 0.0]]);
        let got = value(info_nce(&a, &three, &[0, 1], 0.5, [None; 2]).unwrap());
        let first = (2f64.exp() + 1.0 + (-2f64).exp()).ln() - 2.0;
        let second = (2f64.exp() + 2.0).ln() - 2.0;
        assert!((got - f64::midpoint(first, second)).abs() < 1e-5, "{got}");
    }

    #[test]
    fn counts_equal_repeated_rows() {
        let values = |n: usize, seed: f32| -> Vec<f32> {
            (0..n * 3).map(|i| ((i as f32 + seed) * 1.7).sin()).collect()
        };
        let table = |n, seed| Tensor::from_vec(values(n, seed), (n, 3), &Device::Cpu).unwrap();
        let (nodes, texts) = (table(5, 0.3), table(5, 2.9));
        let draws = [4, 1, 1, 0, 4, 4, 2];
        let pick = |of: &Tensor, ids: &[u32]| {
            of.index_select(&Tensor::new(ids, &Device::Cpu).unwrap(), 0).unwrap()
        };
        let value = |t: Tensor| t.to_scalar::<f32>().unwrap();
        let own = pick(&texts, &draws);
        let all = value(
            info_nce(&pick(&nodes, &draws), &own, &[0, 1, 2, 3, 4, 5, 6], 0.2, [None; 2]).unwrap(),
        );
        let drawn = Drawn::new(draws.into_iter());
        assert_eq!(
            (&drawn.rows[..], &drawn.times[..]),
            (&[0, 1, 2, 4][..], &[1.0, 2.0, 1.0, 3.0][..])
        );
        let own = pick(&texts, &drawn.rows);
        let times = [Some(&drawn.times[..]); 2];
        let once =
            value(info_nce(&pick(&nodes, &drawn.rows), &own, &[0, 1, 2, 3], 0.2, times).unwrap());
        assert!((all - once).abs() < 1e-6, "{all} {once}");
    }
}
