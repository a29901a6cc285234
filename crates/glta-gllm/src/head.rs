use candle_core::{DType, Device, Tensor, Var};
use glta_projector::{Parameters, normal_parameter, normal_var};
use serde::{Deserialize, Serialize};

use crate::blocks::with_logits;
use crate::lists::sorted;
use crate::loss::blocked_cross_entropy;
use crate::{Decoder, Error, Ranked, Result, decode, device};

/// Parameterisation of the head's item weights `W_g: (items, hidden)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GllmWeights {
    /// A trained matrix with `items × hidden` parameters, as in the paper. It overfits small data.
    Free,
    /// A trained linear map of the item nodes, `W_g = E_i Tᵀ`.
    Tied,
}

/// Scores of user and item nodes that are added to the logits: `α · (e_u · e_i)` with a learned
/// `α`. The language model then learns a correction of these scores.
#[derive(Debug, Clone)]
pub struct GraphResidual {
    /// User nodes, `(n, d)`: one row per row of hidden states.
    pub users: Tensor,
    /// Item nodes, `(items, d)`.
    pub items: Tensor,
}

/// The linear layer from hidden states to item logits.
///
/// Trained parameters are f64 ([`normal_parameter`]). Free weights are f32 to save memory, because
/// there are `items × hidden` of them.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use glta_gllm::GllmHead;
///
/// // A head over 5 item nodes of dimension 4, for a hidden size of 8.
/// let nodes = Tensor::ones((5, 4), DType::F32, &Device::Cpu)?;
/// let head = GllmHead::tied(8, &nodes, true, 7)?;
/// let hidden = Tensor::ones((2, 8), DType::F32, &Device::Cpu)?;
/// assert_eq!(head.logits(&hidden, None)?.dims(), [2, 5]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct GllmHead {
    weights: Weights,
    bias: Option<Var>,
    alpha: Var,
    items: usize,
    hidden: usize,
}

#[derive(Debug, Clone)]
enum Weights {
    Free(Var),
    /// A trained `map: (d, hidden)` and the frozen `nodes: (items, d)`.
    Tied {
        map: Var,
        nodes: Tensor,
    },
}

/// Standard deviation of initial weights. With hidden states whose root mean square is near one,
/// the initial logits are then near zero.
const INIT_STD: f64 = 0.02;

impl GllmHead {
    /// Creates a head with free weights.
    ///
    /// # Errors
    /// Returns an error if the device is out of memory.
    pub fn free(
        hidden: usize,
        items: usize,
        bias: bool,
        seed: u64,
        device: &Device,
    ) -> Result<Self> {
        let weight = normal_var((items, hidden), INIT_STD, seed, device)?;
        Self::new(Weights::Free(weight), hidden, items, bias, device)
    }

    /// Creates a head whose free weights start from `rows: (items, hidden)`, for example the
    /// aligned item tokens.
    ///
    /// # Errors
    /// Returns an error if `rows` does not have two dimensions.
    pub fn free_from(rows: &Tensor, bias: bool) -> Result<Self> {
        let &[items, hidden] = rows.dims() else {
            return Err(shape("initial head weights", "(items, hidden)", rows));
        };
        let weight = Var::from_tensor(&rows.detach().to_dtype(DType::F32)?)?;
        Self::new(Weights::Free(weight), hidden, items, bias, rows.device())
    }

    /// Creates a head that is tied to frozen item nodes `(items, d)`.
    ///
    /// # Errors
    /// Returns an error if `nodes` does not have two dimensions.
    pub fn tied(hidden: usize, nodes: &Tensor, bias: bool, seed: u64) -> Result<Self> {
        let &[items, d] = nodes.dims() else {
            return Err(shape("item nodes", "(items, d)", nodes));
        };
        let std = INIT_STD / (d as f64).sqrt();
        let map = normal_parameter((d, hidden), std, seed, nodes.device())?;
        let weights = Weights::Tied { map, nodes: nodes.detach() };
        Self::new(weights, hidden, items, bias, nodes.device())
    }

    fn new(
        weights: Weights,
        hidden: usize,
        items: usize,
        bias: bool,
        device: &Device,
    ) -> Result<Self> {
        let bias = bias.then(|| Var::zeros(items, DType::F64, device)).transpose()?;
        let alpha = Var::zeros((), DType::F64, device)?;
        Ok(Self { weights, bias, alpha, items, hidden })
    }

    /// Returns the number of items.
    pub fn items(&self) -> usize {
        self.items
    }

    /// Adds the trained tensors to `parameters`: `{name}.weight` or `{name}.map`, `{name}.bias`,
    /// and `{name}.alpha` if a [`GraphResidual`] is used.
    pub fn collect(&self, name: &str, residual: bool, parameters: &mut Parameters) {
        let (part, var) = match &self.weights {
            Weights::Free(weight) => ("weight", weight),
            Weights::Tied { map, .. } => ("map", map),
        };
        parameters.insert(format!("{name}.{part}"), var.clone());
        if let Some(bias) = &self.bias {
            parameters.insert(format!("{name}.bias"), bias.clone());
        }
        if residual {
            parameters.insert(format!("{name}.alpha"), self.alpha.clone());
        }
    }

    /// Sets the item biases `(items)`, for example to log frequencies. Does nothing for a head
    /// without bias.
    ///
    /// # Errors
    /// Returns an error if the number of biases differs from the number of items.
    pub fn set_bias(&self, bias: &Tensor) -> Result<()> {
        if bias.dims() != [self.items] {
            return Err(shape("item biases", &format!("({})", self.items), bias));
        }
        if let Some(var) = &self.bias {
            var.set(&bias.to_dtype(DType::F64)?)?;
        }
        Ok(())
    }

    /// Sets the weight `α` of the [`GraphResidual`], which is zero in a new head.
    ///
    /// # Errors
    /// Returns an error if the device is out of memory.
    pub fn set_alpha(&self, alpha: f64) -> Result<()> {
        Ok(self.alpha.set(&Tensor::new(alpha, self.alpha.device())?)?)
    }

    /// Sets all trained weights to zero. With fixed logits as offset, training then starts from
    /// these logits.
    ///
    /// # Errors
    /// Returns an error if the device is out of memory.
    pub fn set_zero(&self) -> Result<()> {
        let mut parameters = Parameters::new();
        self.collect("head", true, &mut parameters);
        parameters.values().try_for_each(|var| var.set(&var.zeros_like()?))?;
        Ok(())
    }

    /// Returns the item logits `(n, items)` of hidden states `(n, hidden)` (equation 3).
    ///
    /// # Errors
    /// Returns an error if the shapes do not match.
    pub fn logits(&self, hidden: &Tensor, residual: Option<&GraphResidual>) -> Result<Tensor> {
        let (z, w) = self.factors(hidden, residual)?;
        let logits = z.matmul(&w.t()?)?;
        Ok(match &self.bias {
            Some(bias) => logits.broadcast_add(&bias.to_dtype(logits.dtype())?)?,
            None => logits,
        })
    }

    /// Returns the logits `(n, items.len())` of the given items, for hidden states `(n, hidden)`.
    ///
    /// # Errors
    /// Returns an error if the shapes do not match or an item is unknown.
    pub fn logits_of(&self, hidden: &Tensor, items: &[u32]) -> Result<Tensor> {
        if let Some(&item) = items.iter().find(|&&item| item as usize >= self.items) {
            return Err(Error::ItemOutOfRange { row: 0, item, items: self.items });
        }
        let index = Tensor::new(items, hidden.device())?;
        let (z, w) = self.factors(hidden, None)?;
        let logits = z.matmul(&w.index_select(&index, 0)?.t()?)?;
        Ok(match &self.bias {
            Some(bias) => {
                let bias = bias.index_select(&index, 0)?.to_dtype(logits.dtype())?;
                logits.broadcast_add(&bias)?
            }
            None => logits,
        })
    }

    /// Returns the best `k` items of each user. The result equals that of
    /// [`decode`](crate::decode()) on the [`logits`](Self::logits) of the user's slots, but the
    /// logits are computed in blocks of items. `slots` consecutive rows of `hidden: (users × slots,
    /// hidden)` belong to one user. Items of `excluded` are not in the list.
    ///
    /// # Errors
    /// Returns an error if the shapes do not match, or if a logit is NaN or `+∞`.
    pub fn rank(
        &self,
        hidden: &Tensor,
        residual: Option<&GraphResidual>,
        slots: usize,
        excluded: &[impl AsRef<[u32]>],
        k: usize,
        decoder: Decoder,
    ) -> Result<Vec<Vec<Ranked>>> {
        let users = excluded.len();
        let rows = hidden.dims().first().copied().unwrap_or(0);
        if slots == 0 || rows != users * slots {
            return Err(shape("hidden states", &format!("({users} × {slots}, hidden)"), hidden));
        }
        let _span = tracing::debug_span!("head ranking").entered();
        // Slots that the decoder does not read need no logits.
        let used = decoder.slots(slots);
        let read =
            |rows: &Tensor| rows.reshape((users, slots, ()))?.narrow(1, 0, used)?.flatten(0, 1);
        let residual = residual
            .map(|r| {
                candle_core::Result::Ok(GraphResidual {
                    users: read(&r.users)?,
                    items: r.items.clone(),
                })
            })
            .transpose()?;
        let (z, w) = self.factors(&read(hidden)?, residual.as_ref())?;
        let bias = self.biases(hidden.device())?.to_dtype(DType::F32)?;
        let (z, w) = (z.contiguous()?, w.contiguous()?);
        if !z.device().is_cpu() {
            let (z, w, bias) = (z.detach(), w.detach(), bias.detach());
            let logits = device::Logits { z, w, bias, offset: None, block: None };
            return device::rank(&logits, used, &sorted(excluded), k, decoder);
        }
        with_logits(&z, &w, &bias, None, None, |logits| {
            decode::rank(logits, used, excluded, k, decoder)
        })?
    }

    /// Returns the biases `(items)`; zeros if the head has none.
    fn biases(&self, device: &Device) -> Result<Tensor> {
        Ok(match &self.bias {
            Some(bias) => bias.as_tensor().clone(),
            None => Tensor::zeros(self.items, DType::F64, device)?,
        })
    }

    /// Returns the set cross-entropy: the cross-entropy between a row's softmax over all items and
    /// the uniform distribution over the row's targets, averaged over the rows with targets.
    ///
    /// With one target per row and one row per slot, this is the loss of the paper's equation 3.
    /// With all of a user's targets in one row, it is the negative log-likelihood of the
    /// multinomial distribution, which the paper's random slots estimate. Items of `masked`, such
    /// as those shown in the prompt, are left out of the softmax. `offset: (n, items)` contains
    /// fixed logits that are added; the head then learns a correction of these logits.
    ///
    /// The loss is computed in blocks of items. Besides the offset, the computation needs memory of
    /// `O(n × block)` instead of `O(n × items)`.
    ///
    /// # Errors
    /// Returns an error if shapes do not match, an item is unknown, a target is masked, or no row
    /// has a target.
    pub fn loss(
        &self,
        hidden: &Tensor,
        residual: Option<&GraphResidual>,
        offset: Option<&Tensor>,
        targets: &[Vec<u32>],
        masked: &[Vec<u32>],
    ) -> Result<Tensor> {
        let active = targets.iter().filter(|targets| !targets.is_empty()).count();
        self.loss_part(hidden, residual, offset, targets, masked, active)
    }

    /// Returns the contribution of the given rows to the mean over `active` rows with targets. The
    /// [`loss`](Self::loss) of a divided batch is the sum of its parts, and the gradients of a row
    /// are bit-identical to those in the undivided batch.
    ///
    /// # Errors
    /// Returns the errors of [`loss`](Self::loss).
    pub fn loss_part(
        &self,
        hidden: &Tensor,
        residual: Option<&GraphResidual>,
        offset: Option<&Tensor>,
        targets: &[Vec<u32>],
        masked: &[Vec<u32>],
        active: usize,
    ) -> Result<Tensor> {
        let _span = tracing::debug_span!("head forward").entered();
        let (z, w) = self.factors(hidden, residual)?;
        let bias = self.biases(hidden.device())?;
        if let Some(offset) = offset.filter(|offset| offset.dims() != [z.dims()[0], self.items]) {
            let expected = format!("({}, {})", z.dims()[0], self.items);
            return Err(shape("fixed logits", &expected, offset));
        }
        blocked_cross_entropy(&z, &w, &bias, offset, targets, masked, active, None)
    }

    /// Returns two factors, `(n, k)` and `(items, k)`, whose product is the logits without bias.
    fn factors(
        &self,
        hidden: &Tensor,
        residual: Option<&GraphResidual>,
    ) -> Result<(Tensor, Tensor)> {
        let &[n, width] = hidden.dims() else {
            return Err(shape("hidden states", &format!("(n, {})", self.hidden), hidden));
        };
        if width != self.hidden {
            return Err(shape("hidden states", &format!("(n, {})", self.hidden), hidden));
        }
        let (z, w) = match &self.weights {
            Weights::Free(weight) => (hidden.clone(), weight.as_tensor().clone()),
            Weights::Tied { map, nodes } => {
                let z = hidden.to_dtype(DType::F64)?.matmul(&map.t()?)?;
                (z.to_dtype(hidden.dtype())?, nodes.clone())
            }
        };
        let Some(GraphResidual { users, items }) = residual else {
            return Ok((z, w));
        };
        if users.dims().len() != 2 || users.dims()[0] != n {
            return Err(shape("residual users", &format!("({n}, d)"), users));
        }
        if items.dims() != [self.items, users.dims()[1]] {
            let expected = format!("({}, {})", self.items, users.dims()[1]);
            return Err(shape("residual items", &expected, items));
        }
        // [Z, α U] [W, E]ᵀ = Z Wᵀ + α U Eᵀ: one product and one blocked loss.
        let scaled = users.to_dtype(DType::F64)?.broadcast_mul(&self.alpha)?;
        let scaled = scaled.to_dtype(users.dtype())?;
        Ok((Tensor::cat(&[&z, &scaled], 1)?, Tensor::cat(&[&w, items], 1)?))
    }
}

fn shape(what: &'static str, expected: &str, got: &Tensor) -> Error {
    Error::Shape { what, expected: expected.to_owned(), got: got.dims().to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::set_cross_entropy;

    fn hidden(n: usize, seed: u64) -> Var {
        normal_var((n, 6), 1.0, seed, &Device::Cpu).unwrap()
    }

    #[test]
    fn tied_head_is_a_projected_free_head() {
        let nodes = normal_var((9, 4), 1.0, 1, &Device::Cpu).unwrap();
        let tied = GllmHead::tied(6, &nodes, true, 2).unwrap();
        let mut parameters = Parameters::new();
        tied.collect("head", false, &mut parameters);
        assert_eq!(parameters.keys().collect::<Vec<_>>(), ["head.bias", "head.map"]);
        let rows = {
            let map = parameters["head.map"].to_dtype(DType::F32).unwrap();
            nodes.matmul(&map).unwrap()
        };
        let free = GllmHead::free_from(&rows, true).unwrap();
        let z = hidden(3, 5);
        let a = tied.logits(&z, None).unwrap().to_vec2::<f32>().unwrap();
        let b = free.logits(&z, None).unwrap().to_vec2::<f32>().unwrap();
        for (a, b) in a.iter().flatten().zip(b.iter().flatten()) {
            assert!((a - b).abs() < 1e-6);
        }
    }

    #[test]
    fn residual_adds_the_weighted_node_score() {
        let head = GllmHead::free(6, 9, false, 2, &Device::Cpu).unwrap();
        let users = normal_var((3, 4), 1.0, 8, &Device::Cpu).unwrap().as_tensor().clone();
        let items = normal_var((9, 4), 1.0, 9, &Device::Cpu).unwrap().as_tensor().clone();
        let z = hidden(3, 5);
        let plain = head.logits(&z, None).unwrap();
        let score = users.matmul(&items.t().unwrap()).unwrap();
        let residual = GraphResidual { users, items };
        head.set_alpha(0.7).unwrap();
        let with = head.logits(&z, Some(&residual)).unwrap();
        let expected = (plain + (score * 0.7).unwrap()).unwrap();
        let difference = (with - expected).unwrap().abs().unwrap().max_all().unwrap();
        assert!(difference.to_scalar::<f32>().unwrap() < 1e-5);

        // The gradient of α is the same in the blocked and the plain loss.
        let targets = [vec![1, 4], vec![0], vec![]];
        let masked = [vec![2], vec![], vec![]];
        let loss = head.loss(&z, Some(&residual), None, &targets, &masked).unwrap();
        let logits = head.logits(&z, Some(&residual)).unwrap();
        let plain = set_cross_entropy(&logits, &targets, &masked).unwrap();
        let a = loss.backward().unwrap().get(&head.alpha).unwrap().to_scalar::<f64>().unwrap();
        let b = plain.backward().unwrap().get(&head.alpha).unwrap().to_scalar::<f64>().unwrap();
        assert!((a - b).abs() < 1e-5 && a.abs() > 1e-3, "{a} {b}");
    }

    #[test]
    fn parts_of_a_batch_add_up_to_its_gradient_in_nearly_every_bit() {
        let nodes = normal_var((3000, 4), 1.0, 1, &Device::Cpu).unwrap();
        let head = GllmHead::tied(6, &nodes, true, 2).unwrap();
        let z = hidden(9, 5);
        let users = normal_var((9, 4), 1.0, 8, &Device::Cpu).unwrap();
        let targets: Vec<Vec<u32>> = (0..9).map(|r| vec![r * 300, r * 17 + 2]).collect();
        let masked: Vec<Vec<u32>> = (0..9).map(|r| vec![r * 50 + 1]).collect();
        let mut parameters = Parameters::new();
        head.collect("head", true, &mut parameters);
        // Computes the gradients of `len` rows from `start`.
        let gradients = |start: usize, len: usize| -> Vec<Vec<f64>> {
            let rows = start..start + len;
            let residual = GraphResidual {
                users: users.narrow(0, start, len).unwrap(),
                items: nodes.as_tensor().clone(),
            };
            let z = z.narrow(0, start, len).unwrap();
            let (targets, masked) = (&targets[rows.clone()], &masked[rows]);
            let loss = head.loss_part(&z, Some(&residual), None, targets, masked, 9).unwrap();
            let store = loss.backward().unwrap();
            let gradient = |var: &Var| store.get(var).unwrap().flatten_all().unwrap().to_vec1();
            parameters.values().map(|var| gradient(var).unwrap()).collect()
        };
        let (whole, first, second) = (gradients(0, 9), gradients(0, 4), gradients(4, 5));
        for ((whole, first), second) in whole.iter().zip(&first).zip(&second) {
            let largest = whole.iter().fold(0f64, |a, b| a.max(b.abs()));
            for ((whole, first), second) in whole.iter().zip(first).zip(second) {
                assert!((whole - (first + second)).abs() < 1e-13 * largest, "{whole} {first}");
            }
        }
    }

    #[test]
    fn a_zeroed_head_starts_from_the_fixed_logits() {
        let nodes = normal_var((9, 4), 1.0, 1, &Device::Cpu).unwrap();
        let head = GllmHead::tied(6, &nodes, true, 2).unwrap();
        head.set_zero().unwrap();
        let z = hidden(2, 5);
        let offset = normal_var((2, 9), 1.0, 7, &Device::Cpu).unwrap();
        let (targets, masked) = ([vec![1], vec![2, 3]], [vec![], vec![0]]);
        let loss = head.loss(&z, None, Some(offset.as_tensor()), &targets, &masked).unwrap();
        let fixed = set_cross_entropy(offset.as_tensor(), &targets, &masked).unwrap();
        let (a, b) = (loss.to_scalar::<f32>().unwrap(), fixed.to_scalar::<f32>().unwrap());
        assert!((a - b).abs() < 1e-6);
        let mut parameters = Parameters::new();
        head.collect("head", false, &mut parameters);
        let map = loss.backward().unwrap().get(&parameters["head.map"]).unwrap().clone();
        assert!(map.abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap() > 1e-3);
        let short = Tensor::zeros((2, 8), DType::F32, &Device::Cpu).unwrap();
        assert!(head.loss(&z, None, Some(&short), &targets, &masked).is_err());
    }

    #[test]
    fn ranks_like_the_decoder_on_full_rows() {
        let nodes = normal_var((90, 4), 1.0, 1, &Device::Cpu).unwrap();
        let head = GllmHead::tied(6, &nodes, true, 2).unwrap();
        head.set_bias(&normal_var(90, 1.0, 3, &Device::Cpu).unwrap()).unwrap();
        head.set_alpha(0.5).unwrap();
        let z = hidden(6, 5);
        let users = normal_var((6, 4), 1.0, 8, &Device::Cpu).unwrap().as_tensor().clone();
        let residual = GraphResidual { users, items: nodes.as_tensor().clone() };
        let excluded = [vec![7, 3], vec![], vec![80]];
        let rows = head.logits(&z, Some(&residual)).unwrap().to_vec2::<f32>().unwrap();
        for decoder in [Decoder::Parallel, Decoder::FirstLogit, Decoder::MeanSlots] {
            let lists = head.rank(&z, Some(&residual), 2, &excluded, 10, decoder).unwrap();
            for (user, (got, excluded)) in lists.iter().zip(&excluded).enumerate() {
                let full = crate::decode(&rows[2 * user..][..2], excluded, 10, decoder).unwrap();
                for (a, b) in got.iter().zip(&full) {
                    assert_eq!(a.item, b.item, "{decoder:?}, user {user}");
                    assert!((a.score - b.score).abs() < 1e-5, "{} {}", a.score, b.score);
                }
                assert_eq!(got.len(), full.len());
            }
        }
        assert!(head.rank(&z, None, 4, &excluded, 10, Decoder::Parallel).is_err());

        let all = head.logits(&z, None).unwrap();
        let some = head.logits_of(&z, &[80, 2]).unwrap().to_vec2::<f32>().unwrap();
        for (some, all) in some.iter().zip(all.to_vec2::<f32>().unwrap()) {
            assert!((some[0] - all[80]).abs() < 1e-5 && (some[1] - all[2]).abs() < 1e-5);
        }
        assert!(head.logits_of(&z, &[90]).is_err());
    }

    #[test]
    fn refuses_shapes_that_do_not_fit() {
        let head = GllmHead::free(6, 9, true, 2, &Device::Cpu).unwrap();
        let z = Tensor::zeros((3, 5), DType::F32, &Device::Cpu).unwrap();
        let message = head.logits(&z, None).unwrap_err().to_string();
        assert!(message.contains("(n, 6)"), "{message}");
        assert!(head.set_bias(&z).is_err());
    }
}
