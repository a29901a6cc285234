use super::*;
use candle_core::Tensor;
use ndarray::Array2;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn train() -> Interactions {
    let pairs = (0..24u32).flat_map(|u| (0..15u32).map(move |i| (u, i)));
    let kept = pairs.filter(|(u, i)| (u * 7 + i * i * 3 + u * i) % 4 == 0);
    Interactions::from_pairs(24, 15, kept).unwrap()
}

fn texts(rows: usize, seed: u64) -> Array2<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    Array2::from_shape_fn((rows, 9), |_| rng.random_range(-1.0f32..1.0))
}

/// All of them at once, with weights that make every part count.
fn config() -> ContrastiveConfig {
    ContrastiveConfig {
        dim: 6,
        hyperedges: 5,
        hyper_weight: 0.7,
        text_weight: 0.5,
        l2: 0.1,
        init_std: 0.5,
        batch_size: 64,
        ..ContrastiveConfig::default()
    }
}

#[test]
fn gradients_equal_finite_differences() {
    let train = train();
    let (users, items) = (texts(24, 1), texts(15, 2));
    let graph = Adjacency::new(&train).unwrap();
    let model = Model::new(&config(), graph, Some(users.view()), Some(items.view())).unwrap();
    let batch = Sampler::new(&train, 5).draw(0, 40);
    // Without the stop, which finite differences know nothing of.
    let loss = || model.loss(&batch, false).unwrap();
    let gradients = loss().backward().unwrap();
    let value = || f64::from(loss().to_scalar::<f32>().unwrap());
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    assert_eq!(model.parameters().len(), 7);
    for (n, parameter) in model.parameters().iter().enumerate() {
        let gradient = gradients.get(parameter).unwrap().flatten_all().unwrap();
        let gradient = gradient.to_vec1::<f32>().unwrap();
        let at = parameter.as_tensor().copy().unwrap();
        // Along the gradient itself and in a random direction.
        let norm = gradient.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
        let along: Vec<f32> = gradient.iter().map(|&g| (f64::from(g) / norm) as f32).collect();
        let random: Vec<f32> =
            (0..gradient.len()).map(|_| rng.random_range(-1.0f32..1.0)).collect();
        for direction in [along, random] {
            let slope: f64 =
                gradient.iter().zip(&direction).map(|(&g, &d)| f64::from(g) * f64::from(d)).sum();
            let direction = Tensor::from_vec(direction, at.shape(), at.device()).unwrap();
            let step = 2e-3;
            let moved = |sign: f64| {
                parameter.set(&(&at + (&direction * (sign * step)).unwrap()).unwrap()).unwrap();
                value()
            };
            let measured = (moved(1.0) - moved(-1.0)) / (2.0 * step);
            parameter.set(&at).unwrap();
            let scale = slope.abs().max(0.05 * norm);
            assert!((measured - slope).abs() < 0.02 * scale, "{n}: {measured} {slope}");
        }
    }
}

#[test]
fn the_graphs_view_is_a_fixed_target() {
    let train = train();
    let graph = Adjacency::new(&train).unwrap();
    let config = ContrastiveConfig { text_weight: 0.0, ..config() };
    let model = Model::new(&config, graph, None, None).unwrap();
    let batch = Sampler::new(&train, 5).draw(0, 40);
    let gradient = |stop| {
        let gradients = model.loss(&batch, stop).unwrap().backward().unwrap();
        let embeddings = &model.parameters()[0];
        gradients.get(embeddings).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    assert_ne!(gradient(true), gradient(false));
}

#[test]
fn without_contrasts_the_scores_are_those_of_lightgcn() {
    let train = train();
    let config = ContrastiveConfig { epochs: 2, dim: 6, ..ContrastiveConfig::default() };
    let graph = Adjacency::new(&train).unwrap();
    let model = Model::new(&config, graph.clone(), None, None).unwrap();
    let layer0 = model.parameters()[0].to_vec2::<f32>().unwrap().concat();
    let layer0 = Array2::from_shape_vec((39, 6), layer0).unwrap();
    let (users, items) = layer0.view().split_at(ndarray::Axis(0), 24);
    let expected = graph.propagate(users, items, 3).unwrap();
    let got = nodes(&model).unwrap();
    for (a, b) in [(&got.users, &expected.users), (&got.items, &expected.items)] {
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5));
    }
}

#[test]
fn a_seed_gives_the_same_embeddings_and_texts_change_them() {
    let (train, items) = (train(), texts(15, 2));
    let config = ContrastiveConfig { epochs: 3, ..config() };
    let run = |items: Option<&Array2<f32>>, seed| {
        let model = Contrastive::new(ContrastiveConfig { seed, ..config.clone() }).unwrap();
        let texts = NodeTexts { items: items.map(|i| i.view()), users: None };
        model.train(&train, None, texts, &mut |_| ControlFlow::Continue(())).unwrap()
    };
    assert_eq!(run(Some(&items), 1), run(Some(&items), 1));
    assert_ne!(run(Some(&items), 1), run(Some(&items), 2));
    assert_ne!(run(Some(&items), 1), run(None, 1));
    // Zeros are no texts.
    assert_eq!(run(Some(&Array2::zeros((15, 9))), 1).users.dim(), (24, 6));
}

#[test]
fn the_best_epoch_on_validation_data_is_kept() {
    let train = train();
    let held_out = train.filter(|u, i| (u + i) % 5 == 0);
    let rest = train.filter(|u, i| (u + i) % 5 != 0);
    let config = ContrastiveConfig {
        dim: 6,
        epochs: 40,
        eval_every: 2,
        patience: 3,
        learning_rate: 0.05,
        ..ContrastiveConfig::default()
    };
    let mut seen = Vec::new();
    let trained = Contrastive::new(config)
        .unwrap()
        .train(&rest, Some(&held_out), NodeTexts::default(), &mut |report| {
            seen.extend(report.validation);
            ControlFlow::Continue(())
        })
        .unwrap();
    let ranking = EvaluationConfig { ks: vec![10], ..EvaluationConfig::default() };
    let kept = evaluate(&trained.scorer(), &held_out, &[&rest], &ranking).unwrap();
    let best = seen.iter().copied().fold(f64::MIN, f64::max);
    assert_eq!(kept.get(Metric::Ndcg, 10), Some(best));
    let last = seen.iter().rposition(|&v| v == best).unwrap();
    assert!(seen.len() - 1 - last <= 3);
}

#[test]
fn refuses_what_cannot_work() {
    let train = train();
    for config in [
        ContrastiveConfig { dim: 0, ..Default::default() },
        ContrastiveConfig { patience: 0, ..Default::default() },
        ContrastiveConfig { temperature: 0.0, ..Default::default() },
        ContrastiveConfig { l2: f64::NAN, ..Default::default() },
        ContrastiveConfig { hyper_weight: 0.1, ..Default::default() },
    ] {
        assert!(matches!(Contrastive::new(config), Err(Error::Config { .. })));
    }
    let model = Contrastive::new(ContrastiveConfig { epochs: 1, ..Default::default() }).unwrap();
    let mut go = |_: &ContrastiveEpoch| ControlFlow::Continue(());
    let few = texts(3, 1);
    let few = NodeTexts { users: Some(few.view()), items: None };
    let message = model.train(&train, None, few, &mut go).unwrap_err().to_string();
    assert!(message.contains("3 for 24 users"), "{message}");
    let empty = Interactions::empty(3, 3).unwrap();
    let nothing = model.train(&empty, None, NodeTexts::default(), &mut go);
    assert!(matches!(nothing, Err(Error::NothingToTrain)));
    let stopped = model.train(&train, None, NodeTexts::default(), &mut |_| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(Error::Cancelled)));
}
