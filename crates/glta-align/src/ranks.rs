//! Sums gradients and gathers rankings over ranks.

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor};
use glta_comm::Communicator;
use glta_gllm::Ranked;
use glta_projector::Parameters;

use crate::optimizer::{Tensors, Whole, gradients};
use crate::{Error, Result};

/// The part of the loss of a batch that one rank computes.
pub(crate) enum BatchLoss {
    /// The batch has no example on any rank.
    None,
    /// This rank has no example, but other ranks have some.
    OtherRanks,
    /// The loss of this rank's examples. The sum over all ranks is the mean loss of the batch.
    Part(Tensor),
}

/// Computes the loss and the gradients of a whole batch, summed over the parts of all ranks. They
/// are still on the device. Returns `None` if the batch has no example.
///
/// # Errors
/// With one rank, returns an error if a parameter has no gradient.
pub(crate) fn batch_gradients(
    comm: &dyn Communicator,
    part: BatchLoss,
    parameters: &Parameters,
    stage: &'static str,
) -> Result<Option<Whole>> {
    let part = match part {
        BatchLoss::None => return Ok(None),
        BatchLoss::OtherRanks => None,
        BatchLoss::Part(loss) => Some(loss),
    };
    let loss = match &part {
        None => None,
        Some(loss) => Some(loss.detach().to_dtype(DType::F64)?.reshape(1)?),
    };
    let store = part.as_ref().map(Tensor::backward).transpose()?;
    match (comm.size(), loss, store) {
        (1, Some(head), Some(store)) => {
            Ok(Some(Whole { head, gradients: gradients(parameters, &store, stage)? }))
        }
        (1, ..) => Ok(None),
        (_, loss, store) => sum(comm, loss, store.as_ref(), parameters).map(Some),
    }
}

/// Sums the loss, a flag for each parameter that has a gradient, and the gradients over all ranks,
/// in one list per dtype.
fn sum(
    comm: &dyn Communicator,
    loss: Option<Tensor>,
    store: Option<&GradStore>,
    parameters: &Parameters,
) -> Result<Whole> {
    let own = |var| store.and_then(|store| store.get(var));
    let flags: Vec<f64> =
        parameters.values().map(|var| f64::from(u8::from(own(var).is_some()))).collect();
    let at = 1 + flags.len();
    let device = parameters.values().next().map_or(Device::Cpu, |var| var.device().clone());
    let loss = match loss {
        Some(loss) => loss,
        None => Tensor::zeros(1, DType::F64, &device)?,
    };
    let mut head = Tensor::cat(&[loss, Tensor::from_vec(flags, at - 1, &device)?], 0)?;
    let mut gradients = Tensors::new();
    for dtype in [DType::F64, DType::F32] {
        let vars = || parameters.iter().filter(|(_, var)| var.dtype() == dtype);
        let mut list = Vec::with_capacity(1 + parameters.len());
        if dtype == DType::F64 {
            list.push(head.clone());
        }
        for (_, var) in vars() {
            list.push(match own(var) {
                None => Tensor::zeros(var.elem_count(), dtype, &device)?,
                Some(gradient) => gradient.detach().flatten_all()?,
            });
        }
        if list.is_empty() {
            continue;
        }
        let flat = Tensor::cat(&list, 0)?;
        let flat = tracing::debug_span!("all-reduce").in_scope(|| comm.all_reduce_tensor(&flat))?;
        let mut start = 0;
        if dtype == DType::F64 {
            head = flat.narrow(0, 0, at)?;
            start = at;
        }
        for (name, var) in vars() {
            let gradient = flat.narrow(0, start, var.elem_count())?.reshape(var.shape())?;
            start += var.elem_count();
            gradients.insert(name.clone(), gradient);
        }
    }
    Ok(Whole { head, gradients })
}

/// Returns the indices of the examples of a batch that this rank processes, in ascending order. All
/// ranks get the same number of examples, plus or minus one, with similar total lengths, because
/// all wait for the slowest.
pub(crate) fn fair_share(comm: &dyn Communicator, lengths: &[usize]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&n| std::cmp::Reverse(lengths[n]));
    let mut own: Vec<usize> = order
        .chunks(comm.size())
        .enumerate()
        .filter_map(|(round, dealt)| {
            // The direction alternates, so that no rank always gets the longer example.
            let place = if round % 2 == 0 { comm.rank() } else { comm.size() - 1 - comm.rank() };
            dealt.get(place).copied()
        })
        .collect();
    own.sort_unstable();
    own
}

/// Returns the lists of all ranks, in the order of the ranks.
pub(crate) fn gather_lists(
    comm: &dyn Communicator,
    own: Vec<Vec<Ranked>>,
) -> Result<Vec<Vec<Ranked>>> {
    if comm.size() == 1 {
        return Ok(own);
    }
    // A list is sent as its length, then its items and scores as bit patterns.
    let mut words: Vec<u32> = Vec::new();
    for list in &own {
        words.push(list.len() as u32);
        words.extend(list.iter().flat_map(|ranked| [ranked.item, ranked.score.to_bits()]));
    }
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let all = comm.all_gather(&bytes)?.concat();
    let mut words = all.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let mut lists = Vec::new();
    while let Some(len) = words.next() {
        let mut list = Vec::with_capacity(len as usize);
        for _ in 0..len {
            let (Some(item), Some(score)) = (words.next(), words.next()) else {
                return Err(Error::Internal("a rank sent a list that is cut off"));
            };
            list.push(Ranked { item, score: f32::from_bits(score) });
        }
        lists.push(list);
    }
    Ok(lists)
}

#[cfg(test)]
mod tests {
    use candle_core::Var;
    use glta_comm::in_process;

    use super::*;

    fn on_ranks<R: Send + 'static>(
        size: usize,
        work: impl Fn(&dyn Communicator) -> R + Clone + Send + 'static,
    ) -> Vec<R> {
        let threads: Vec<_> = in_process(size)
            .into_iter()
            .map(|comm| {
                let work = work.clone();
                std::thread::spawn(move || {
                    let result = work(&comm);
                    comm.barrier().unwrap();
                    result
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    }

    fn parameters() -> Parameters {
        let var = |values: &[f32]| Var::new(values, &Device::Cpu).unwrap();
        Parameters::from([("a".to_owned(), var(&[1.0, 2.0])), ("b".to_owned(), var(&[3.0]))])
    }

    #[test]
    fn parts_are_summed_and_a_gradient_may_come_from_one_rank() {
        let results = on_ranks(3, |comm| {
            let parameters = parameters();
            let (a, b) = (parameters["a"].as_tensor(), parameters["b"].as_tensor());
            let part = match comm.rank() {
                0 => BatchLoss::Part(a.sqr().unwrap().sum_all().unwrap()),
                1 => BatchLoss::OtherRanks,
                _ => BatchLoss::Part((a.sum_all().unwrap() + b.sum_all().unwrap()).unwrap()),
            };
            let whole = batch_gradients(comm, part, &parameters, "test").unwrap().unwrap();
            let (loss, gradients) = whole.clipped(100.0, "test", 1).unwrap();
            let values = |name: &str| gradients[name].to_vec1::<f32>().unwrap();
            (loss, values("a"), values("b"))
        });
        for result in results {
            assert_eq!(result, (11.0, vec![3.0, 5.0], vec![1.0]));
        }
        let missing = on_ranks(2, |comm| {
            let parameters = parameters();
            let part = BatchLoss::Part(parameters["a"].as_tensor().sum_all().unwrap());
            let whole = batch_gradients(comm, part, &parameters, "test").unwrap().unwrap();
            whole.clipped(1.0, "test", 1).map(drop).unwrap_err().to_string()
        });
        assert!(missing.iter().all(|m| m.contains("no gradient reached b")), "{missing:?}");
    }

    #[test]
    fn every_example_is_taken_once_and_long_ones_are_spread() {
        let lengths: Vec<usize> = (0..31).map(|n| 40 + n * n % 97 * 10).collect();
        for size in 1..6 {
            for taken in [0, 1, 2, 7, 16, 31] {
                let lengths = lengths[..taken].to_vec();
                let given = lengths.clone();
                let shares = on_ranks(size, move |comm| fair_share(comm, &given));
                let mut all = shares.concat();
                all.sort_unstable();
                assert_eq!(all, (0..taken).collect::<Vec<_>>());
                assert!(shares.iter().all(|own| own.is_sorted()));
                let counts = || shares.iter().map(Vec::len);
                assert!(counts().max().unwrap() - counts().min().unwrap() <= 1);
                if taken == 31 {
                    let sums = || shares.iter().map(|own| own.iter().map(|&n| lengths[n]).sum());
                    let (most, least): (usize, usize) =
                        (sums().max().unwrap(), sums().min().unwrap());
                    // The difference is at most the longest example, because a rank may have one
                    // example more.
                    assert!(most - least <= *lengths.iter().max().unwrap(), "{most} {least}");
                }
            }
        }
    }

    #[test]
    fn lists_come_in_the_order_of_the_ranks() {
        let list = |rank: usize| -> Vec<Vec<Ranked>> {
            (0..rank)
                .map(|n| vec![Ranked { item: rank as u32, score: n as f32 - 0.5 }; n])
                .collect()
        };
        let expected: Vec<Vec<Ranked>> = (0..3).flat_map(list).collect();
        for all in on_ranks(3, move |comm| gather_lists(comm, list(comm.rank())).unwrap()) {
            assert_eq!(all, expected);
        }
    }
}
