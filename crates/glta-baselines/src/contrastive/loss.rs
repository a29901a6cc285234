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

/// InfoNCE of rows `(n, dim)`: row `r` of `anchors` must find row `r` of `others`
/// among all, by cosine over the temperature; the mean over rows.
pub(super) fn info_nce(anchors: &Tensor, others: &Tensor, temperature: f64) -> Result<Tensor> {
    let (anchors, others) = (normalized(anchors)?, normalized(others)?);
    let logits = (anchors.matmul(&others.t()?)? / temperature)?;
    let own = ((&anchors * &others)?.sum(D::Minus1)? / temperature)?;
    (logits.log_sum_exp(D::Minus1)? - own)?.mean_all()
}

fn normalized(x: &Tensor) -> Result<Tensor> {
    let length = (x.sqr()?.sum_keepdim(D::Minus1)? + 1e-12)?.sqrt()?;
    x.broadcast_div(&length)
}

/// Leaky ReLU, differentiable: `max(x, 0) - slope · max(-x, 0)`.
pub(super) fn leaky(x: &Tensor, slope: f64) -> Result<Tensor> {
    x.relu()? - (x.neg()?.relu()? * slope)?
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
        let got = value(info_nce(&a, &b, 0.5).unwrap());
        assert!((got - ((2f64.exp() + 1.0).ln() - 2.0)).abs() < 1e-5, "{got}");

        let x = Tensor::new(&[-2f32, 3.0], &Device::Cpu).unwrap();
        assert_eq!(leaky(&x, 0.5).unwrap().to_vec1::<f32>().unwrap(), [-1.0, 3.0]);
    }
}
