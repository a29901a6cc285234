use std::ops::ControlFlow;

use candle_core::Tensor;
use glta_metrics::{EvaluationConfig, Metric, evaluate};
use ndarray::{Array2, ArrayView2};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::small_data::{texts, train};

/// Returns settings that enable all losses, with weights that make each loss matter.
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
    // Seven tensors: embeddings, two of the hypergraph, two layers with biases.
    check_gradients(&config(), 7);
}

#[test]
fn gradients_of_masked_nodes_equal_finite_differences() {
    let config = ContrastiveConfig { mask: 0.4, hyperedges: 0, hyper_weight: 0.0, ..config() };
    check_gradients(&config, 6);
}

fn check_gradients(config: &ContrastiveConfig, tensors: usize) {
    let train = train();
    let (mut users, mut items) = (texts(24, 1), texts(15, 2));
    // One user and one item have no text.
    users.row_mut(3).fill(0.0);
    items.row_mut(0).fill(0.0);
    let graph = Adjacency::new(&train).unwrap();
    let model = Model::new(config, graph, Some(users.view()), Some(items.view())).unwrap();
    let batch = Sampler::new(&train, 5, config.mask).draw(0, 40);
    // `stop` is false, because finite differences cannot represent the stopped gradient.
    let loss = || model.loss(&batch, false).unwrap();
    let gradients = loss().backward().unwrap();
    let value = || f64::from(loss().to_scalar::<f32>().unwrap());
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    assert_eq!(model.parameters().len(), tensors);
    for (n, parameter) in model.parameters().iter().enumerate() {
        let gradient = gradients.get(parameter).unwrap().flatten_all().unwrap();
        let gradient = gradient.to_vec1::<f32>().unwrap();
        let at = parameter.as_tensor().copy().unwrap();
        // The directions of the finite differences: the gradient itself, and a random one.
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
            // Both values are rounded to f32.
            let rounding = f64::from(f32::EPSILON) * value().abs() / (2.0 * step);
            let apart = (measured - slope).abs();
            assert!(apart < 0.02 * scale + rounding, "{n}: {measured} {slope}");
        }
    }
}

#[test]
fn the_graphs_view_is_a_fixed_target() {
    let train = train();
    let graph = Adjacency::new(&train).unwrap();
    let config = ContrastiveConfig { text_weight: 0.0, ..config() };
    let model = Model::new(&config, graph, None, None).unwrap();
    let batch = Sampler::new(&train, 5, 0.0).draw(0, 40);
    let gradient = |stop| {
        let gradients = model.loss(&batch, stop).unwrap().backward().unwrap();
        let embeddings = &model.parameters()[0];
        gradients.get(embeddings).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    assert_ne!(gradient(true), gradient(false));
}

#[test]
fn without_contrasts_scores_equal_lightgcn() {
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
        model.train(&train, None, texts).unwrap().embeddings
    };
    assert_eq!(run(Some(&items), 1), run(Some(&items), 1));
    assert_ne!(run(Some(&items), 1), run(Some(&items), 2));
    assert_ne!(run(Some(&items), 1), run(None, 1));
    // Rows of zeros are not texts.
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
        .train_with(
            &rest,
            Some(&held_out),
            NodeTexts::default(),
            &mut |report: &ContrastiveEpoch| {
                seen.extend(report.validation);
                ControlFlow::Continue(())
            },
        )
        .unwrap();
    let ranking = EvaluationConfig { ks: vec![10], ..EvaluationConfig::default() };
    assert_eq!(trained.history.iter().filter_map(|e| e.validation).collect::<Vec<_>>(), seen);
    assert!(trained.best_epoch.is_multiple_of(2));
    let kept = evaluate(&trained.embeddings.scorer(), &held_out, &[&rest], &ranking).unwrap();
    let best = seen.iter().copied().fold(f64::MIN, f64::max);
    assert_eq!(kept.get(Metric::Ndcg, 10), Some(best));
    assert_eq!(trained.best_validation(), Some(best));
    let last = seen.iter().rposition(|&v| v == best).unwrap();
    assert!(seen.len() - 1 - last <= 3);
}

#[test]
fn rejects_invalid_arguments() {
    let train = train();
    for config in [
        ContrastiveConfig { dim: 0, ..Default::default() },
        ContrastiveConfig { patience: 0, ..Default::default() },
        ContrastiveConfig { temperature: 0.0, ..Default::default() },
        ContrastiveConfig { l2: f64::NAN, ..Default::default() },
        ContrastiveConfig { text_temperature: -1.0, ..Default::default() },
        ContrastiveConfig { mask: 1.0, ..ContrastiveConfig::rlmrec_gen() },
        ContrastiveConfig { text_weight: 0.0, ..ContrastiveConfig::rlmrec_gen() },
        ContrastiveConfig { hyperedges: 8, ..ContrastiveConfig::rlmrec_gen() },
        ContrastiveConfig { hyper_weight: 0.1, ..Default::default() },
    ] {
        assert!(matches!(Contrastive::new(config), Err(Error::Config { .. })));
    }
    let model = Contrastive::new(ContrastiveConfig { epochs: 1, ..Default::default() }).unwrap();
    let few = texts(3, 1);
    let few = NodeTexts { users: Some(few.view()), items: None };
    let message = model.train(&train, None, few).unwrap_err().to_string();
    assert!(message.contains("3 for 24 users"), "{message}");
    let (wide, narrow) = (texts(24, 1), texts(15, 1));
    let narrow = narrow.slice(ndarray::s![.., ..4]);
    let both = NodeTexts { users: Some(wide.view()), items: Some(narrow) };
    let con = ContrastiveConfig { epochs: 1, ..ContrastiveConfig::rlmrec_con() };
    let message = Contrastive::new(con).unwrap().train(&train, None, both).unwrap_err().to_string();
    assert!(message.contains("9 columns of users and 4 of items"), "{message}");
    let empty = Interactions::empty(3, 3).unwrap();
    let nothing = model.train(&empty, None, NodeTexts::default());
    assert!(matches!(nothing, Err(Error::NothingToTrain)));
    let stop = &mut |_: &ContrastiveEpoch| ControlFlow::Break(());
    let stopped = model.train_with(&train, None, NodeTexts::default(), stop);
    assert!(matches!(stopped, Err(Error::Cancelled)));
}

/// Compares the loss with the formula, written in f64 over the triples and all users.
#[test]
fn the_text_contrast_equals_rlmrec() {
    let train = train();
    let config = ContrastiveConfig { text_weight: 0.3, l2: 0.0, dim: 6, ..Default::default() };
    let (users, mut items) = (texts(24, 1), texts(15, 2));
    items.row_mut(4).fill(0.0);
    let model = |texts: [Option<ArrayView2<f32>>; 2], config: &ContrastiveConfig| {
        let [users, items] = texts;
        Model::new(config, Adjacency::new(&train).unwrap(), users, items).unwrap()
    };
    let batch = Sampler::new(&train, 5, 0.0).draw(0, 40);
    let with = model([Some(users.view()), Some(items.view())], &config);
    let without = model([None, None], &config);
    let value = |m: &Model| f64::from(m.loss(&batch, true).unwrap().to_scalar::<f32>().unwrap());
    let got = (value(&with) - value(&without)) / 0.3;

    let parameters: Vec<Array2<f64>> = with.parameters()[1..]
        .iter()
        .map(|p| {
            let (rows, columns) = p.dims2().unwrap();
            let values = p.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            Array2::from_shape_vec((rows, columns), values).unwrap().mapv(f64::from)
        })
        .collect();
    let project = |texts: &Array2<f32>| {
        let middle = texts.mapv(f64::from).dot(&parameters[0]) + &parameters[1];
        middle.mapv(|v| if v > 0.0 { v } else { 0.01 * v }).dot(&parameters[2]) + &parameters[3]
    };
    let [user_nodes, item_nodes] = with.embeddings().unwrap().map(|n| n.mapv(f64::from));
    let (user_texts, item_texts) = (project(&users), project(&items));
    let cosine = |a: ndarray::ArrayView1<f64>, b: ndarray::ArrayView1<f64>| {
        a.dot(&b) / (a.dot(&a) * b.dot(&b)).sqrt()
    };
    let term = |nodes: &Array2<f64>, texts: &Array2<f64>, ids: &[u32], others: &[u32]| -> f64 {
        let known = |ids: &[u32]| -> Vec<usize> {
            let all = ids.iter().map(|&id| id as usize);
            all.filter(|&id| texts.nrows() == 24 || id != 4).collect()
        };
        let others = known(others);
        let of = |id: usize, other: usize| cosine(nodes.row(id), texts.row(other)) / 0.2;
        let rows = known(ids).into_iter().map(|id| {
            others.iter().map(|&other| of(id, other).exp()).sum::<f64>().ln() - of(id, id)
        });
        rows.sum::<f64>() / ids.len() as f64
    };
    let all: Vec<u32> = (0..24).collect();
    let expected = term(&user_nodes, &user_texts, &batch.users, &all)
        + term(&item_nodes, &item_texts, &batch.positives, &batch.positives)
        + term(&item_nodes, &item_texts, &batch.negatives, &batch.negatives);
    assert!((got - expected).abs() < 2e-5 * expected, "{got} {expected}");
}

#[test]
fn masked_nodes_start_from_the_token() {
    let train = train();
    let config = ContrastiveConfig { dim: 6, mask: 0.3, text_weight: 0.1, ..Default::default() };
    let items = texts(15, 2);
    let graph = Adjacency::new(&train).unwrap();
    let model = Model::new(&config, graph, None, Some(items.view())).unwrap();
    let sampler = Sampler::new(&train, 5, 0.3);
    let batch = sampler.draw(0, 40);
    assert_eq!(batch.masked.len(), 11);
    assert_ne!(batch.masked, sampler.draw(1, 40).masked);
    // A run without masks draws the same triples.
    assert_eq!(batch.users, Sampler::new(&train, 5, 0.0).draw(0, 40).users);
    let value = || model.loss(&batch, true).unwrap().to_scalar::<f32>().unwrap();
    let before = (value(), nodes(&model).unwrap());
    // The layer-0 embedding of a masked node affects only the L2 term.
    let config = ContrastiveConfig { l2: 0.0, ..config };
    let graph = Adjacency::new(&train).unwrap();
    let model = Model::new(&config, graph, None, Some(items.view())).unwrap();
    let embeddings = &model.parameters()[0];
    let loss = model.loss(&batch, true).unwrap();
    let gradient = loss.backward().unwrap();
    let gradient = gradient.get(embeddings).unwrap().to_vec2::<f32>().unwrap();
    let reached = |row: &usize| gradient[*row].iter().any(|&v| v != 0.0);
    assert!(!batch.masked.iter().any(|&row| reached(&(row as usize))));
    assert!((0..39).filter(reached).count() > 10);
    // The token does not change the scores.
    assert!(before.0.is_finite());
    let token = model.parameters().pop().unwrap();
    token.set(&token.ones_like().unwrap()).unwrap();
    assert_eq!(nodes(&model).unwrap(), before.1);
}
