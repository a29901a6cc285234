use super::ops::log_sum_exp;
use candle_core::{D, Result, Tensor};

/// `ln(1 + eˣ)` without overflow.
fn softplus(x: &Tensor) -> Result<Tensor> {
    x.relu()? + (x.abs()?.neg()?.exp()? + 1.0)?.log()?
}

/// Bayesian personalised ranking of rows `(batch, dim)`: the mean of
/// `softplus(u·j - u·i)`.
pub(super) fn bpr(users: &Tensor, positives: &Tensor, negatives: &Tensor) -> Result<Tensor> {
    let margin = (users * (negatives - positives)?)?.sum(D::Minus1)?;
    softplus(&margin)?.mean_all()
}

/// InfoNCE of rows: row `r` of `anchors (n, dim)` must find row `r` of `own (n, dim)`
/// among all of `others (m, dim)`, by cosine over the temperature; the mean over
/// rows.
pub(super) fn info_nce(
    anchors: &Tensor,
    own: &Tensor,
    others: &Tensor,
    temperature: f64,
) -> Result<Tensor> {
    let anchors = (normalized(anchors)? / temperature)?;
    let sums = log_sum_exp(&anchors.matmul(&normalized(others)?.t()?)?)?;
    let own = (&anchors * normalized(own)?)?.sum_keepdim(D::Minus1)?;
    (sums - own)?.mean_all()
}

fn normalized(x: &Tensor) -> Result<Tensor> {
    let length = (x.sqr()?.sum_keepdim(D::Minus1)? + 1e-12)?.sqrt()?;
    x.broadcast_div(&length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Tensor};

    #[test]
    fn values_by_hand() {
        let t = |rows: &[[f32; 2]]| {
            Tensor::from_vec(rows.concat(), (rows.len(), 2), &Device::Cpu).unwrap()
        };
        let value = |t: Tensor| f64::from(t.to_scalar::<f32>().unwrap());
        let (u, i, j) = (t(&[[1.0, 2.0]]), t(&[[3.0, 1.0]]), t(&[[0.0, 1.0]]));
        // u·j - u·i = 2 - 5
        let got = value(bpr(&u, &i, &j).unwrap());
        assert!((got - (-3f64).exp().ln_1p()).abs() < 1e-6);
        let far = value(bpr(&(&u * 1e3).unwrap(), &j, &i).unwrap());
        assert!((far - 3000.0).abs() < 1e-2, "{far}");

        // Cosines: 1 and 0, 0 and 1, over 0.5.
        let (a, b) = (t(&[[2.0, 0.0], [0.0, 1.0]]), t(&[[5.0, 0.0], [0.0, 3.0]]));
        let got = value(info_nce(&a, &b, &b, 0.5).unwrap());
        assert!((got - ((2f64.exp() + 1.0).ln() - 2.0)).abs() < 1e-5, "{got}");
        // Among three: 1, 0 and -1 of the first, 0, 1 and 0 of the second.
        let three = t(&[[5.0, 0.0], [0.0, 3.0], [-1.0, 0.0]]);
        let got = value(info_nce(&a, &b, &three, 0.5).unwrap());
        let first = (2f64.exp() + 1.0 + (-2f64).exp()).ln() - 2.0;
        let second = (2f64.exp() + 2.0).ln() - 2.0;
        assert!((got - f64::midpoint(first, second)).abs() < 1e-5, "{got}");
    }
}
