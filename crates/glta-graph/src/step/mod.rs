//! One training step: loss, gradient and Adam.

use glta_comm::Communicator;
use rayon::prelude::*;

use crate::Result;
use crate::adjacency::{Adjacency, Side};
use crate::config::LightGcnConfig;
use crate::kernel::{AdamRows, AdamStep};
use crate::lines::{Line, Nodes, Panels};
use crate::loss::bpr;
use crate::propagate::{Needed, NeededSide, Passes};
use crate::sampler::Batch;

/// Number of triples per parallel task.
const TRIPLES: usize = 512;
/// Number of rows per parallel Adam task.
const ROWS: usize = 2048;
const BETA1: f32 = 0.9;
const BETA2: f32 = 0.999;
const EPSILON: f32 = 1e-8;

/// The parameters and the moments of Adam, in internal order.
pub(crate) struct Parameters {
    pub(crate) values: Nodes,
    first: Nodes,
    second: Nodes,
    /// The parameters divided by the square root of the degree. During a step, this matrix contains
    /// the gradient, divided in the same way.
    scaled: Nodes,
    steps: i32,
}

impl Parameters {
    pub(crate) fn new(graph: &Adjacency, values: Nodes) -> Self {
        let zeros = || Nodes::zeros(graph.n_users(), graph.n_items(), values.users.dim());
        let mut scaled = values.clone();
        graph.scale_by(&mut scaled, |side| &side.inv_sqrt_degree);
        Self { first: zeros(), second: zeros(), scaled, values, steps: 0 }
    }

    /// Returns the parameters and frees the rest.
    pub(crate) fn into_values(self) -> Nodes {
        self.values
    }
}

/// The working memory of a step.
pub(crate) struct Step {
    l2: f32,
    needed: Needed,
    passes: Passes,
    /// Final embeddings of the needed rows.
    outputs: Nodes,
    /// Gradient with respect to the final embeddings; zero outside the needed rows.
    gradient: Nodes,
    /// L2 coefficients of the needed users; zero for other users.
    user_decay: Vec<f32>,
    /// L2 coefficients of the needed items; zero for other items.
    item_decay: Vec<f32>,
    /// The triples of the batch, with internal ids.
    triples: Batch,
    /// Scores of the positive items, then of the negative items.
    scores: Vec<f64>,
    positive_slopes: Vec<f32>,
    negative_slopes: Vec<f32>,
}

impl Step {
    /// Allocates buffers for `dim` columns.
    pub(crate) fn new(graph: &Adjacency, config: &LightGcnConfig, dim: usize) -> Self {
        let zeros = || Nodes::zeros(graph.n_users(), graph.n_items(), dim);
        Self {
            l2: config.l2,
            needed: Needed::default(),
            passes: Passes::new(graph, dim, config.layers),
            outputs: zeros(),
            gradient: zeros(),
            user_decay: vec![0.0; graph.n_users()],
            item_decay: vec![0.0; graph.n_items()],
            triples: Batch::default(),
            scores: Vec::new(),
            positive_slopes: Vec::new(),
            negative_slopes: Vec::new(),
        }
    }

    /// Returns the mean loss of a batch, including L2. Writes to `parameters.scaled` the gradient
    /// without the L2 part, divided by the square root of the degree. The L2 coefficients are
    /// written to the decay vectors.
    ///
    /// Each rank processes its own columns; only the scores are summed over ranks.
    pub(crate) fn gradients(
        &mut self,
        comm: &dyn Communicator,
        graph: &Adjacency,
        parameters: &mut Parameters,
        batch: &Batch,
    ) -> Result<f64> {
        self.clear();
        self.renumber(graph, batch);
        let (needed, triples) = (&mut self.needed, &self.triples);
        rayon::join(
            || needed.users.fill(&graph.users, triples.users.iter().copied()),
            || {
                let items = triples.positives.iter().chain(&triples.negatives);
                needed.items.fill(&graph.items, items.copied());
            },
        );
        self.passes.forward(graph, &parameters.scaled, &self.needed, &mut self.outputs);
        self.score();
        let decay = self.decay(&parameters.values);
        self.scores.push(decay);
        comm.all_reduce(&mut self.scores)?;
        let decay = self.scores.pop().unwrap_or_default();
        let loss = self.differentiate() + decay;
        self.accumulate();
        let (gradient, out) = (&mut self.gradient, &mut parameters.scaled);
        self.passes.backward(graph, gradient, &self.needed, out);
        Ok(loss)
    }

    /// Applies one Adam step to the result of [`gradients`](Self::gradients).
    pub(crate) fn update(&self, graph: &Adjacency, parameters: &mut Parameters, rate: f32) {
        parameters.steps = parameters.steps.saturating_add(1);
        let correction = |beta: f32| 1.0 - f64::from(beta).powi(parameters.steps);
        let step = AdamStep {
            beta1: BETA1,
            beta2: BETA2,
            epsilon: EPSILON,
            step_size: (f64::from(rate) / correction(BETA1)) as f32,
            second_scale: (1.0 / correction(BETA2).sqrt()) as f32,
        };
        let p = parameters;
        let mut tasks = adam_tasks(
            &graph.users,
            [&mut p.values.users, &mut p.first.users, &mut p.second.users, &mut p.scaled.users],
            &self.user_decay,
        );
        tasks.extend(adam_tasks(
            &graph.items,
            [&mut p.values.items, &mut p.first.items, &mut p.second.items, &mut p.scaled.items],
            &self.item_decay,
        ));
        tasks.into_par_iter().for_each(|rows| graph.isa.adam(step, rows));
    }

    /// Resets the buffers of the last batch to zero.
    fn clear(&mut self) {
        let sides = [
            (&self.needed.users, &mut self.gradient.users, &mut self.user_decay),
            (&self.needed.items, &mut self.gradient.items, &mut self.item_decay),
        ];
        for (needed, gradient, decay) in sides {
            for lines in gradient.panels_mut() {
                for &row in &needed.rows {
                    lines[row as usize] = Line::ZERO;
                }
            }
            for &row in &needed.rows {
                decay[row as usize] = 0.0;
            }
        }
    }

    fn renumber(&mut self, graph: &Adjacency, batch: &Batch) {
        let map = |out: &mut Vec<u32>, ids: &[u32], side: &Side| {
            out.clear();
            out.extend(ids.iter().map(|&id| side.rank[id as usize]));
        };
        map(&mut self.triples.users, &batch.users, &graph.users);
        map(&mut self.triples.positives, &batch.positives, &graph.items);
        map(&mut self.triples.negatives, &batch.negatives, &graph.items);
    }

    /// Computes this rank's part of the triples' scores.
    fn score(&mut self) {
        let n = self.triples.len();
        self.scores.resize(2 * n, 0.0);
        let (triples, outputs) = (&self.triples, &self.outputs);
        let (positives, negatives) = self.scores.split_at_mut(n);
        positives
            .par_chunks_mut(TRIPLES)
            .zip(negatives.par_chunks_mut(TRIPLES))
            .enumerate()
            .for_each(|(chunk, (positives, negatives))| {
                for (k, (positive, negative)) in positives.iter_mut().zip(negatives).enumerate() {
                    let t = chunk * TRIPLES + k;
                    let user = triples.users[t];
                    *positive = dot(outputs, user, triples.positives[t]);
                    *negative = dot(outputs, user, triples.negatives[t]);
                }
            });
    }

    /// Replaces the scores by the derivatives of the loss with respect to them, and returns the
    /// mean loss.
    fn differentiate(&mut self) -> f64 {
        let n = self.triples.len();
        let share = 1.0 / n as f32;
        let (positives, negatives) = self.scores.split_at(n);
        for (slopes, scores) in
            [(&mut self.positive_slopes, positives), (&mut self.negative_slopes, negatives)]
        {
            slopes.clear();
            slopes.extend(scores.iter().map(|&score| score as f32));
        }
        let losses: Vec<f64> = self
            .positive_slopes
            .par_chunks_mut(TRIPLES)
            .zip(self.negative_slopes.par_chunks_mut(TRIPLES))
            .map(|(positives, negatives)| {
                let mut sum = 0.0;
                for (positive, negative) in positives.iter_mut().zip(negatives) {
                    let (loss, slope) = bpr(*positive, *negative);
                    sum += loss;
                    (*positive, *negative) = (-slope * share, slope * share);
                }
                sum
            })
            .collect();
        losses.into_iter().sum::<f64>() / n as f64
    }

    /// Sets the L2 coefficients from the number of occurrences of each node, and returns the L2
    /// part of the loss.
    fn decay(&mut self, values: &Nodes) -> f64 {
        if self.l2 == 0.0 {
            return 0.0;
        }
        let unit = self.l2 / self.triples.len() as f32;
        for &user in &self.triples.users {
            self.user_decay[user as usize] += 1.0;
        }
        for &item in self.triples.positives.iter().chain(&self.triples.negatives) {
            self.item_decay[item as usize] += 1.0;
        }
        let side = |needed: &NeededSide, decay: &mut [f32], values: &Panels| -> f64 {
            let mut sum = 0.0;
            for &row in &needed.rows {
                let row = row as usize;
                decay[row] *= unit;
                let norm: f32 = (0..values.panels())
                    .map(|p| values.panel(p)[row].0.iter().map(|x| x * x).sum::<f32>())
                    .sum();
                sum += 0.5 * f64::from(decay[row]) * f64::from(norm);
            }
            sum
        };
        let (users, items) = rayon::join(
            || side(&self.needed.users, &mut self.user_decay, &values.users),
            || side(&self.needed.items, &mut self.item_decay, &values.items),
        );
        users + items
    }

    /// Sums the gradient with respect to the final embeddings. A task is one panel of users or
    /// items, so triples are added in the same order at any number of threads.
    fn accumulate(&mut self) {
        let triples = &self.triples;
        let (positives, negatives) = (&self.positive_slopes, &self.negative_slopes);
        let (users, items) = (&self.outputs.users, &self.outputs.items);
        let to_users = self.gradient.users.panels_mut().map(|lines| (true, lines));
        let to_items = self.gradient.items.panels_mut().map(|lines| (false, lines));
        let work: Vec<(usize, (bool, &mut [Line]))> =
            to_users.enumerate().chain(to_items.enumerate()).collect();
        work.into_par_iter().with_max_len(1).for_each(|(panel, (to_users, out))| {
            let (users, items) = (users.panel(panel), items.panel(panel));
            for (t, (&user, &positive)) in triples.users.iter().zip(&triples.positives).enumerate()
            {
                let pairs = [(positive, positives[t]), (triples.negatives[t], negatives[t])];
                for (item, slope) in pairs {
                    if to_users {
                        multiply_add(&mut out[user as usize], slope, &items[item as usize]);
                    } else {
                        multiply_add(&mut out[item as usize], slope, &users[user as usize]);
                    }
                }
            }
        });
    }
}

/// Computes an inner product. Each panel is summed separately, so the result does not depend on the
/// division of panels among ranks.
fn dot(nodes: &Nodes, user: u32, item: u32) -> f64 {
    let mut total = 0.0;
    for panel in 0..nodes.users.panels() {
        let user = &nodes.users.panel(panel)[user as usize].0;
        let item = &nodes.items.panel(panel)[item as usize].0;
        let mut sums = [0.0f32; 4];
        for (user, item) in user.as_chunks::<4>().0.iter().zip(item.as_chunks::<4>().0) {
            for ((sum, u), i) in sums.iter_mut().zip(user).zip(item) {
                *sum += u * i;
            }
        }
        total += f64::from(sums.iter().sum::<f32>());
    }
    total
}

fn multiply_add(out: &mut Line, factor: f32, line: &Line) {
    for (o, x) in out.0.iter_mut().zip(line.0) {
        *o += factor * x;
    }
}

/// Divides the rows of one side into Adam tasks.
fn adam_tasks<'a>(
    side: &'a Side,
    matrices: [&'a mut Panels; 4],
    decay: &'a [f32],
) -> Vec<AdamRows<'a>> {
    let rows = side.order.len();
    let mut tasks = Vec::new();
    let [values, first, second, scaled] = matrices;
    let panels = values
        .panels_mut()
        .zip(first.panels_mut())
        .zip(second.panels_mut())
        .zip(scaled.panels_mut());
    for (((values, first), second), scaled) in panels {
        let pieces = values
            .chunks_mut(ROWS)
            .zip(first.chunks_mut(ROWS))
            .zip(second.chunks_mut(ROWS))
            .zip(scaled.chunks_mut(ROWS));
        for (k, (((parameters, first), second), scaled)) in pieces.enumerate() {
            let range = k * ROWS..rows.min((k + 1) * ROWS);
            tasks.push(AdamRows {
                parameters,
                first,
                second,
                scaled,
                sqrt_degree: &side.sqrt_degree[range.clone()],
                inv_sqrt_degree: &side.inv_sqrt_degree[range.clone()],
                decay: &decay[range],
            });
        }
    }
    tasks
}

#[cfg(test)]
mod tests;
