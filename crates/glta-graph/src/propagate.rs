//! Propagation through the layers, forward and backward.
//!
//! All matrices in this module are divided by the square root of the degree. With `f = D^-½ e`, one
//! layer is `f' = D⁻¹ A f`: a sum over neighbours and one factor per row.

use ndarray::ArrayView2;
use rayon::prelude::*;

use crate::adjacency::{Adjacency, Side};
use crate::lines::{Line, Nodes, Panels};
use crate::tiles::{Product, Selection, run};
use crate::{NodeEmbeddings, Result};

/// The users and items that the loss of a batch uses.
#[derive(Debug, Default)]
pub(crate) struct Needed {
    pub(crate) users: NeededSide,
    pub(crate) items: NeededSide,
}

/// The needed rows of the users or of the items.
#[derive(Debug, Default)]
pub(crate) struct NeededSide {
    mask: Vec<bool>,
    /// The rows in order of first occurrence.
    pub(crate) rows: Vec<u32>,
    selection: Selection,
}

impl NeededSide {
    /// Collects the distinct rows and their edges.
    pub(crate) fn fill(&mut self, side: &Side, rows: impl Iterator<Item = u32>) {
        for &row in &self.rows {
            self.mask[row as usize] = false;
        }
        self.rows.clear();
        self.mask.resize(side.order.len(), false);
        for row in rows {
            let seen = &mut self.mask[row as usize];
            if !*seen {
                *seen = true;
                self.rows.push(row);
            }
        }
        side.tiles.select(&self.mask, &mut self.selection);
    }

    /// Returns whether pushing from the needed rows costs less than pulling from all rows. A push
    /// reads and writes, a pull only reads.
    fn push_is_cheaper(&self, side: &Side) -> bool {
        3 * self.selection.edges() < 2 * side.tiles.edges()
    }
}

/// Computes one layer, `next = D⁻¹ A nodes + add`.
///
/// If `only` is given, only these rows of `next` are computed. If `nonzero` is given, all other
/// rows of `nodes` must be zero. Both save work and change at most the order of summation.
fn layer(
    graph: &Adjacency,
    nodes: &Nodes,
    next: &mut Nodes,
    add: Option<&Nodes>,
    only: Option<&Needed>,
    nonzero: Option<&Needed>,
) {
    let sides = [
        (
            &graph.users,
            &graph.items,
            &nodes.items,
            &mut next.users,
            add.map(|a| &a.users),
            only.map(|n| &n.users),
            nonzero.map(|n| &n.items),
        ),
        (
            &graph.items,
            &graph.users,
            &nodes.users,
            &mut next.items,
            add.map(|a| &a.items),
            only.map(|n| &n.items),
            nonzero.map(|n| &n.users),
        ),
    ];
    let mut tasks = Vec::new();
    for (side, other, src, dst, add, only, nonzero) in sides {
        let mut product =
            Product { src, scale: &side.inv_degree, add, selection: only.map(|n| &n.selection) };
        match nonzero {
            Some(rows) if rows.push_is_cheaper(other) => {
                product.selection = Some(&rows.selection);
                other.tiles.scatter(graph.isa, product, dst, &mut tasks);
            }
            _ => side.tiles.gather(graph.isa, product, dst, &mut tasks),
        }
    }
    run(tasks);
}

impl Adjacency {
    /// Computes LightGCN's forward pass: the mean of `Âᵏ · [users; items]` over `k = 0..=layers`
    /// (He et al. 2020, eq. 8 with equal weights).
    ///
    /// # Errors
    /// Returns the errors of [`multiply`](Self::multiply).
    pub fn propagate(
        &self,
        users: ArrayView2<'_, f32>,
        items: ArrayView2<'_, f32>,
        layers: usize,
    ) -> Result<NodeEmbeddings> {
        let nodes = self.load(users, items)?;
        Ok(self.unload(&mean_of_layers(self, &nodes, layers)))
    }
}

/// Computes the mean over layers `0..=layers` of the propagated embeddings.
pub(crate) fn mean_of_layers(graph: &Adjacency, embeddings: &Nodes, layers: usize) -> Nodes {
    let mut nodes = embeddings.clone();
    graph.scale_by(&mut nodes, |side| &side.inv_sqrt_degree);
    let mut sum = nodes.clone();
    let mut next = nodes.clone();
    for _ in 0..layers {
        layer(graph, &nodes, &mut next, None, None, None);
        std::mem::swap(&mut nodes, &mut next);
        for (sum, nodes) in [(&mut sum.users, &nodes.users), (&mut sum.items, &nodes.items)] {
            let panels: Vec<usize> = (0..nodes.panels()).collect();
            sum.panels_mut().zip(panels).for_each(|(sum, p)| {
                sum.par_chunks_mut(1 << 12)
                    .zip(nodes.panel(p).par_chunks(1 << 12))
                    .for_each(|(sum, lines)| add_lines(sum, lines));
            });
        }
    }
    let weight = 1.0 / (layers + 1) as f32;
    let factors =
        |side: &Side| -> Vec<f32> { side.sqrt_degree.iter().map(|root| root * weight).collect() };
    let (users, items) = (factors(&graph.users), factors(&graph.items));
    for panel in sum.users.panels_mut() {
        graph.isa.scale(panel, &users, None);
    }
    for panel in sum.items.panels_mut() {
        graph.isa.scale(panel, &items, None);
    }
    sum
}

fn add_lines(sum: &mut [Line], lines: &[Line]) {
    for (sum, line) in sum.iter_mut().zip(lines) {
        for (s, x) in sum.0.iter_mut().zip(line.0) {
            *s += x;
        }
    }
}

/// Buffers of the forward and the backward pass, reused between batches.
#[derive(Debug)]
pub(crate) struct Passes {
    layers: usize,
    ping: Nodes,
    pong: Nodes,
}

impl Passes {
    pub(crate) fn new(graph: &Adjacency, dim: usize, layers: usize) -> Self {
        let zeros = || Nodes::zeros(graph.n_users(), graph.n_items(), dim);
        Self { layers, ping: zeros(), pong: zeros() }
    }

    /// Writes the final embeddings of the needed rows to `out`. `scaled` contains the layer-0
    /// embeddings divided by the square root of the degree.
    pub(crate) fn forward(
        &mut self,
        graph: &Adjacency,
        scaled: &Nodes,
        needed: &Needed,
        out: &mut Nodes,
    ) {
        // `out` accumulates the layers of the needed rows.
        collect(out, scaled, needed, |sum, x| *sum = x);
        for k in 0..self.layers {
            let only = (k + 1 == self.layers).then_some(needed);
            let src = if k == 0 { scaled } else { &self.ping };
            layer(graph, src, &mut self.pong, None, only, None);
            collect(out, &self.pong, needed, |sum, x| *sum += x);
            std::mem::swap(&mut self.ping, &mut self.pong);
        }
        let weight = 1.0 / (self.layers + 1) as f32;
        rescale(&mut out.users, &needed.users.rows, |row| graph.users.sqrt_degree[row] * weight);
        rescale(&mut out.items, &needed.items.rows, |row| graph.items.sqrt_degree[row] * weight);
    }

    /// Writes to `out` the gradient with respect to the layer-0 embeddings, divided by the square
    /// root of the degree. `gradient` is the gradient with respect to the final embeddings, zero
    /// outside the needed rows. The method divides `gradient` by the square root of the degree in
    /// place.
    ///
    /// `Â` is symmetric, so the gradient is the mean over `k` of `Âᵏ G`, computed by Horner's rule.
    pub(crate) fn backward(
        &mut self,
        graph: &Adjacency,
        gradient: &mut Nodes,
        needed: &Needed,
        out: &mut Nodes,
    ) {
        let weight = 1.0 / (self.layers + 1) as f32;
        rescale(&mut gradient.users, &needed.users.rows, |row| {
            graph.users.inv_sqrt_degree[row] * weight
        });
        rescale(&mut gradient.items, &needed.items.rows, |row| {
            graph.items.inv_sqrt_degree[row] * weight
        });
        if self.layers == 0 {
            out.clone_from(gradient);
            return;
        }
        for k in 0..self.layers {
            let last = k + 1 == self.layers;
            let next = if last { &mut *out } else { &mut self.pong };
            if k == 0 {
                layer(graph, gradient, next, Some(gradient), None, Some(needed));
            } else {
                layer(graph, &self.ping, next, Some(gradient), None, None);
            }
            std::mem::swap(&mut self.ping, &mut self.pong);
        }
    }
}

/// Applies `f(out, src)` to every element of the needed rows.
fn collect(out: &mut Nodes, src: &Nodes, needed: &Needed, f: impl Fn(&mut f32, f32) + Sync) {
    let sides = [
        (&mut out.users, &src.users, &needed.users.rows),
        (&mut out.items, &src.items, &needed.items.rows),
    ];
    for (out, src, rows) in sides {
        let panels: Vec<(usize, &mut [Line])> = out.panels_mut().enumerate().collect();
        panels.into_par_iter().for_each(|(p, lines)| {
            let src = src.panel(p);
            for &row in rows {
                let line = &mut lines[row as usize];
                for (o, x) in line.0.iter_mut().zip(src[row as usize].0) {
                    f(o, x);
                }
            }
        });
    }
}

fn rescale(nodes: &mut Panels, rows: &[u32], factor: impl Fn(usize) -> f32 + Sync) {
    for lines in nodes.panels_mut() {
        for &row in rows {
            let factor = factor(row as usize);
            for x in &mut lines[row as usize].0 {
                *x *= factor;
            }
        }
    }
}
