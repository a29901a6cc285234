use std::ops::ControlFlow;

use candle_core::Device;
use candle_nn::optim::{AdamW, Optimizer, ParamsAdamW};
use glta_metrics::{EvaluationConfig, Metric, evaluate};
use ndarray::Array2;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::sampler::Batch;
use super::*;
use crate::small_data::{texts, train};

mod fixture {
    include!("numpy_fixture.rs");
}

fn config() -> AlphaRecConfig {
    AlphaRecConfig {
        dim: 6,
        negatives: 7,
        batch_size: 64,
        epochs: 3,
        learning_rate: 0.01,
        ..AlphaRecConfig::default()
    }
}

fn values(tensors: impl IntoIterator<Item = Tensor>) -> Vec<f64> {
    let flat = |t: Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    tensors.into_iter().flat_map(flat).map(f64::from).collect()
}

fn close(got: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len());
    for (at, (a, b)) in got.iter().zip(expected).enumerate() {
        assert!((a - b).abs() < tolerance, "{at}: {a} {b}");
    }
}

/// Compares representations, loss, gradient and Adam with the paper's formulas in NumPy.
#[test]
fn equals_the_formulas_in_numpy() {
    let edges =
        [(0, 0), (0, 1), (0, 4), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2), (2, 4), (3, 3), (3, 0)];
    let train = Interactions::from_pairs(5, 6, edges).unwrap();
    let mut texts = Array2::from_shape_fn((6, 6), |(r, c)| {
        let (r, c) = (r as f64, c as f64);
        (1.0 + 1.7 * r + 2.3 * c * (r + 1.0)).sin() as f32
    });
    texts.row_mut(2).fill(0.0);
    let config = AlphaRecConfig { dim: 4, temperature: 0.2, ..AlphaRecConfig::default() };
    let model = Model::new(&config, &train, texts.view()).unwrap();
    for (at, parameter) in (1u8..).zip(model.parameters()) {
        let (rows, columns) = parameter.dims2().unwrap();
        let value = |n: usize| {
            let (r, c) = ((n / columns) as f64, (n % columns) as f64);
            (0.9 * (5.0 * f64::from(at) + 3.7 * r + 2.9 * c * (r + 1.0)).sin()) as f32
        };
        let start: Vec<f32> = (0..rows * columns).map(value).collect();
        let start = Tensor::from_vec(start, (rows, columns), &Device::Cpu).unwrap();
        parameter.set(&start).unwrap();
    }
    let nodes = model.embeddings().unwrap();
    let nodes: Vec<f64> = nodes.users.iter().chain(&nodes.items).map(|&v| f64::from(v)).collect();
    close(&nodes, &fixture::NODES, 1e-6);

    let pairs = [(0, 1), (2, 0), (2, 4), (1, 2), (0, 1), (3, 3)];
    let batch = Batch::new(&train, pairs.into_iter().unzip(), vec![4, 1, 5, 3]);
    let loss = || model.loss(&batch).unwrap();
    close(&values([loss()]), &[fixture::LOSS], 1e-6);
    let gradient = loss().backward().unwrap();
    let gradient = model.parameters().into_iter().map(|p| gradient.get(&p).unwrap().clone());
    close(&values(gradient), &fixture::GRADIENT, 2e-6);
    let mut adam = AdamW::new(
        model.parameters(),
        ParamsAdamW { lr: 0.05, weight_decay: 0.0, ..Default::default() },
    )
    .unwrap();
    (0..3).for_each(|_| adam.backward_step(&loss()).unwrap());
    let after = model.parameters().into_iter().map(|p| p.as_tensor().clone());
    close(&values(after), &fixture::AFTER_THREE_STEPS, 2e-5);
}

#[test]
fn gradients_equal_finite_differences() {
    let train = train();
    let mut texts = texts(15, 2);
    texts.row_mut(0).fill(0.0);
    let model = Model::new(&config(), &train, texts.view()).unwrap();
    let batch = Sampler::new(&train, 5, 7).draw(0, 40);
    let loss = || model.loss(&batch).unwrap();
    let value = || f64::from(loss().to_scalar::<f32>().unwrap());
    let gradients = loss().backward().unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    for (n, parameter) in model.parameters().iter().enumerate() {
        let gradient = values([gradients.get(parameter).unwrap().clone()]);
        let at = parameter.as_tensor().copy().unwrap();
        let norm = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
        assert!(norm > 1e-3, "{n}: {norm}");
        // The directions of the finite differences: the gradient itself, and a random one.
        let along: Vec<f32> = gradient.iter().map(|g| (g / norm) as f32).collect();
        let random: Vec<f32> =
            (0..gradient.len()).map(|_| rng.random_range(-1.0f32..1.0)).collect();
        for direction in [along, random] {
            let slope: f64 = gradient.iter().zip(&direction).map(|(g, &d)| g * f64::from(d)).sum();
            let direction = Tensor::from_vec(direction, at.shape(), at.device()).unwrap();
            let step = 2e-3;
            let moved = |sign: f64| {
                parameter.set(&(&at + (&direction * (sign * step)).unwrap()).unwrap()).unwrap();
                value()
            };
            let measured = (moved(1.0) - moved(-1.0)) / (2.0 * step);
            parameter.set(&at).unwrap();
            // Both values are rounded to f32.
            let rounding = f64::from(f32::EPSILON) * value().abs() / (2.0 * step);
            let allowed = 0.02 * slope.abs().max(0.05 * norm) + rounding;
            assert!((measured - slope).abs() < allowed, "{n}: {measured} {slope}");
        }
    }
}

#[test]
fn batches_leave_out_items_of_the_user() {
    let train = train();
    let sampler = Sampler::new(&train, 5, 7);
    let batch = sampler.draw(3, 50);
    let mut negatives = batch.negatives.clone();
    negatives.sort_unstable();
    negatives.dedup();
    assert_eq!((negatives.len(), batch.users.len()), (7, 50));
    for ((&user, &item), left_out) in batch.users.iter().zip(&batch.positives).zip(&batch.left_out)
    {
        assert!(train.contains(user, item));
        for (at, &negative) in (0u32..).zip(&batch.negatives) {
            assert_eq!(left_out.contains(&at), train.contains(user, negative));
        }
    }
    assert_eq!(batch.positives, sampler.draw(3, 50).positives);
    assert_ne!(batch.positives, sampler.draw(4, 50).positives);
    // The data have only fifteen items.
    assert_eq!(Sampler::new(&train, 5, 256).draw(0, 4).negatives.len(), 15);
}

#[test]
fn the_same_bits_on_any_number_of_threads() {
    let (train, texts) = (train(), texts(15, 2));
    let run = |threads: usize, seed| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let model = AlphaRec::new(AlphaRecConfig { seed, ..config() }).unwrap();
            model.train(&train, None, texts.view()).unwrap().embeddings
        })
    };
    let one = run(1, 1);
    for threads in [2, 3, 4] {
        assert!(run(threads, 1) == one, "{threads} threads");
    }
    assert_ne!(run(1, 2), one);
}

#[test]
fn the_best_epoch_on_validation_data_is_kept() {
    let train = train();
    let held_out = train.filter(|u, i| (u + i) % 5 == 0);
    let rest = train.filter(|u, i| (u + i) % 5 != 0);
    let config =
        AlphaRecConfig { epochs: 60, eval_every: 2, patience: 3, learning_rate: 0.05, ..config() };
    let mut seen = Vec::new();
    let report = &mut |report: &ContrastiveEpoch| {
        seen.extend(report.validation);
        ControlFlow::Continue(())
    };
    let model = AlphaRec::new(config).unwrap();
    let trained = model.train_with(&rest, Some(&held_out), texts(15, 2).view(), report).unwrap();
    let ranking = EvaluationConfig { ks: vec![10], ..EvaluationConfig::default() };
    let kept = evaluate(&trained.embeddings.scorer(), &held_out, &[&rest], &ranking).unwrap();
    let best = seen.iter().copied().fold(f64::MIN, f64::max);
    assert_eq!(kept.get(Metric::Ndcg, 10), Some(best));
    assert_eq!(trained.best_validation(), Some(best));
    // Training stopped early, and the loss fell.
    assert!(trained.history.len() < 60);
    assert!(trained.history.last().unwrap().loss < trained.history[0].loss);
    for row in trained.embeddings.users.rows() {
        assert!((row.dot(&row) - 1.0).abs() < 1e-5);
    }
}

#[test]
fn rejects_invalid_arguments() {
    let (train, items) = (train(), texts(15, 1));
    for config in [
        AlphaRecConfig { dim: 0, ..config() },
        AlphaRecConfig { negatives: 0, ..config() },
        AlphaRecConfig { patience: 0, ..config() },
        AlphaRecConfig { temperature: 0.0, ..config() },
        AlphaRecConfig { learning_rate: f64::NAN, ..config() },
    ] {
        assert!(matches!(AlphaRec::new(config), Err(Error::Config { system: "AlphaRec", .. })));
    }
    let model = AlphaRec::new(config()).unwrap();
    let message = model.train(&train, None, texts(3, 1).view()).unwrap_err().to_string();
    assert!(message.contains("3 for 15 items"), "{message}");
    let none = model.train(&train, None, Array2::zeros((15, 0)).view());
    assert!(matches!(none, Err(Error::TextVectors(_))));
    let mut infinite = items.clone();
    infinite[[2, 3]] = f32::INFINITY;
    let infinite = model.train(&train, None, infinite.view());
    assert!(matches!(infinite, Err(Error::TextVectors(_))));
    let empty = Interactions::empty(3, 15).unwrap();
    assert!(matches!(model.train(&empty, None, items.view()), Err(Error::NothingToTrain)));
    let stop = &mut |_: &ContrastiveEpoch| ControlFlow::Break(());
    let stopped = model.train_with(&train, None, items.view(), stop);
    assert!(matches!(stopped, Err(Error::Cancelled)));
}
