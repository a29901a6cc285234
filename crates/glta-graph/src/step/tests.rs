//! Compares the optimised step with PyTorch, with finite differences and with a plain version.

use glta_comm::Alone;
use glta_data::Interactions;
use ndarray::{Array2, s};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::config::PositiveSampling;
use crate::sampler::Sampler;
use crate::tiles::Limits;

mod fixture {
    include!("torch_fixture.rs");
}

/// Limits that divide small graphs into several blocks and chunks.
const SMALL: Limits = Limits { block: 3, max_block: 12, min_run: 2, chunk: 20 };

struct Model {
    graph: Adjacency,
    parameters: Parameters,
    step: Step,
}

impl Model {
    fn new(train: &Interactions, start: &Array2<f32>, config: &LightGcnConfig) -> Self {
        let graph = Adjacency::with_limits(train, SMALL).unwrap();
        let (users, items) = start.view().split_at(ndarray::Axis(0), train.n_users());
        let values = graph.load(users, items).unwrap();
        Self {
            parameters: Parameters::new(&graph, values),
            step: Step::new(&graph, config, config.dim),
            graph,
        }
    }

    /// Stacks users and items in the caller's order.
    fn stack(&self, nodes: &Nodes) -> Array2<f32> {
        let out = self.graph.unload(nodes);
        ndarray::concatenate![ndarray::Axis(0), out.users, out.items]
    }

    /// Returns the loss and the complete gradient with respect to the layer-0 embeddings.
    fn gradient(&mut self, batch: &Batch) -> (f64, Array2<f32>) {
        let loss = self.step.gradients(&Alone, &self.graph, &mut self.parameters, batch).unwrap();
        let mut gradient = self.parameters.scaled.clone();
        self.graph.scale_by(&mut gradient, |side| &side.sqrt_degree);
        let mut gradient = self.stack(&gradient);
        let values = self.stack(&self.parameters.values);
        let n = self.graph.n_users();
        for (row, mut out) in gradient.outer_iter_mut().enumerate() {
            let decay = if row < n {
                self.step.user_decay[self.graph.users.rank[row] as usize]
            } else {
                self.step.item_decay[self.graph.items.rank[row - n] as usize]
            };
            out.scaled_add(decay, &values.row(row));
        }
        (loss, gradient)
    }
}

/// A dense version of the model in `f64`, without optimisations.
struct Plain {
    adjacency: Array2<f64>,
    users: usize,
}

impl Plain {
    fn new(train: &Interactions) -> Self {
        let (users, n) = (train.n_users(), train.n_users() + train.n_items());
        let mut adjacency = Array2::zeros((n, n));
        for (u, i) in train.iter() {
            let (u, i) = (u as usize, users + i as usize);
            adjacency[(u, i)] = 1.0;
            adjacency[(i, u)] = 1.0;
        }
        let degrees = adjacency.sum_axis(ndarray::Axis(1));
        for ((r, c), value) in adjacency.indexed_iter_mut() {
            if *value > 0.0 {
                *value /= f64::sqrt(degrees[r] * degrees[c]);
            }
        }
        Self { adjacency, users }
    }

    fn forward(&self, start: &Array2<f64>, layers: usize) -> Array2<f64> {
        let (mut layer, mut sum) = (start.clone(), start.clone());
        for _ in 0..layers {
            layer = self.adjacency.dot(&layer);
            sum += &layer;
        }
        sum / (layers + 1) as f64
    }

    fn loss(&self, start: &Array2<f64>, batch: &Batch, config: &LightGcnConfig) -> f64 {
        let out = self.forward(start, config.layers);
        let (mut sum, mut norm) = (0.0, 0.0);
        for t in 0..batch.len() {
            let user = batch.users[t] as usize;
            let item = |id: u32| self.users + id as usize;
            let score = |id: u32| out.row(user).dot(&out.row(item(id)));
            let squares = |row: usize| start.row(row).dot(&start.row(row));
            let (positive, negative) = (batch.positives[t], batch.negatives[t]);
            sum += (score(negative) - score(positive)).exp().ln_1p();
            norm += squares(user) + squares(item(positive)) + squares(item(negative));
        }
        (sum + 0.5 * f64::from(config.l2) * norm) / batch.len() as f64
    }
}

fn random_train(users: u32, items: u32, seed: u64) -> Interactions {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let pairs: Vec<(u32, u32)> = (0..users)
        .flat_map(|u| (0..items).map(move |i| (u, i)))
        // Low ids are more frequent, so that degrees differ; the last user has no items.
        .filter(|&(u, i)| u + 1 < users && rng.random_range(0..u + i + 4) < 4)
        .collect();
    Interactions::from_pairs(users as usize, items as usize, pairs).unwrap()
}

fn random_start(n: usize, dim: usize) -> Array2<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    Array2::from_shape_fn((n, dim), |_| rng.random_range(-0.5..0.5))
}

fn close(got: &Array2<f32>, expected: &Array2<f64>, tolerance: f64) {
    for ((at, &g), &e) in got.indexed_iter().zip(expected) {
        assert!((f64::from(g) - e).abs() < tolerance, "{at:?}: {g} is not {e}");
    }
}

#[test]
fn equal_to_pytorch() {
    let edges = [(0, 0), (0, 1), (0, 4), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2), (2, 4)];
    let train = Interactions::from_pairs(4, 5, edges).unwrap();
    let triples = [(0, 1, 2), (2, 0, 3), (2, 4, 3), (1, 2, 0), (0, 1, 3)];
    let batch = Batch {
        users: triples.map(|t| t.0).to_vec(),
        positives: triples.map(|t| t.1).to_vec(),
        negatives: triples.map(|t| t.2).to_vec(),
    };
    let config = LightGcnConfig { dim: 3, l2: 0.01, ..Default::default() };
    let start = Array2::from_shape_fn((9, 3), |(r, c)| {
        (0.5 * (1.0 + 0.7 * r as f64 + 1.3 * c as f64).sin()) as f32
    });
    let mut model = Model::new(&train, &start, &config);
    let (users, items) = (start.slice(s![..4, ..]), start.slice(s![4.., ..]));
    let out = model.graph.propagate(users, items, 3).unwrap();
    let out = ndarray::concatenate![ndarray::Axis(0), out.users, out.items];
    close(&out, &ndarray::arr2(&fixture::OUTPUT), 1e-6);
    let (loss, gradient) = model.gradient(&batch);
    assert!((loss - fixture::LOSS).abs() < 1e-6);
    close(&gradient, &ndarray::arr2(&fixture::GRADIENT), 1e-6);
    model.step.update(&model.graph, &mut model.parameters, 0.05);
    for _ in 1..3 {
        let _ = model.gradient(&batch);
        model.step.update(&model.graph, &mut model.parameters, 0.05);
    }
    let after = model.stack(&model.parameters.values);
    close(&after, &ndarray::arr2(&fixture::AFTER_THREE_STEPS), 1e-5);
}

#[test]
fn gradients_equal_finite_differences_of_the_plain_form() {
    let train = random_train(23, 31, 1);
    // A batch of few users makes the step push, a batch of many makes it pull.
    for (layers, triples) in [(3, 4), (3, 200), (2, 5), (1, 7), (0, 9), (4, 30)] {
        let config = LightGcnConfig { dim: 19, layers, l2: 0.02, ..Default::default() };
        let start = random_start(54, config.dim);
        let mut batch = Batch::default();
        Sampler::new(&train, &config).unwrap().fill(&mut batch, 0, triples);
        let mut model = Model::new(&train, &start, &config);
        // Another batch in between checks that its gradient does not affect the next one.
        let mut other = Batch::default();
        Sampler::new(&train, &config).unwrap().fill(&mut other, 500, 11);
        let _ = model.gradient(&other);
        model.parameters = Parameters::new(&model.graph, model.parameters.values.clone());
        let (value, gradient) = model.gradient(&batch);

        let plain = Plain::new(&train);
        let start = start.mapv(f64::from);
        assert!((value - plain.loss(&start, &batch, &config)).abs() < 1e-5);
        let mut numeric = Array2::zeros(start.dim());
        for (at, out) in numeric.indexed_iter_mut() {
            let shifted = |change: f64| {
                let mut moved = start.clone();
                moved[at] += change;
                plain.loss(&moved, &batch, &config)
            };
            *out = (shifted(1e-4) - shifted(-1e-4)) / 2e-4;
        }
        close(&gradient, &numeric, 1e-6);
    }
}

#[test]
fn savings_do_not_change_the_result() {
    // Compare all rows and edges with only the rows of the batch.
    let train = random_train(60, 80, 2);
    let config = LightGcnConfig { dim: 20, ..Default::default() };
    let start = random_start(140, config.dim);
    let model = Model::new(&train, &start, &config);
    let (users, items) = (start.slice(s![..60, ..]), start.slice(s![60.., ..]));
    let full = model.graph.propagate(users, items, 3).unwrap();
    let mut needed = Needed::default();
    needed.users.fill(&model.graph.users, [5, 0, 59, 5].into_iter());
    needed.items.fill(&model.graph.items, [1, 79].into_iter());
    assert_eq!(needed.users.rows, [5, 0, 59]);
    let mut out = Nodes::zeros(60, 80, config.dim);
    Passes::new(&model.graph, config.dim, 3).forward(
        &model.graph,
        &model.parameters.scaled,
        &needed,
        &mut out,
    );
    let got = model.graph.unload(&out);
    for row in [5, 0, 59] {
        let id = model.graph.users.order[row] as usize;
        for (g, f) in got.users.row(id).iter().zip(full.users.row(id)) {
            assert!((g - f).abs() < 1e-6);
        }
    }
    let plain = Plain::new(&train).forward(&start.mapv(f64::from), 3);
    let stacked = ndarray::concatenate![ndarray::Axis(0), full.users, full.items];
    close(&stacked, &plain, 1e-6);
}

#[test]
fn the_same_bits_on_any_number_of_threads_and_instruction_set() {
    let train = random_train(150, 220, 4);
    let config =
        LightGcnConfig { dim: 24, positives: PositiveSampling::Interaction, ..Default::default() };
    let start = random_start(370, config.dim);
    let run = |threads: usize, isa| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut model = Model::new(&train, &start, &config);
            model.graph.isa = isa;
            let sampler = Sampler::new(&train, &config).unwrap();
            let (mut batch, mut losses) = (Batch::default(), Vec::new());
            for step in 0..5 {
                sampler.fill(&mut batch, step * 9000, 9000);
                losses.push(model.gradient(&batch).0);
                model.step.update(&model.graph, &mut model.parameters, 0.01);
            }
            (losses, model.stack(&model.parameters.values))
        })
    };
    let expected = run(1, crate::kernel::Isa::detect());
    for threads in [2, 3, 4] {
        assert!(run(threads, crate::kernel::Isa::detect()) == expected, "{threads} threads");
    }
    for isa in crate::kernel::Isa::available() {
        assert!(run(2, isa) == expected, "{isa:?}");
    }
}
