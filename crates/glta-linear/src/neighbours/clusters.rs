//! Neighbours among the items of near clusters (an inverted file; Jégou et al. 2011, "Product
//! Quantization for Nearest Neighbor Search", without the quantisation).

use std::ops::Range;

use glta_core::{pick, stream};
use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView1, ArrayViewMut2, Axis, ShapeError, s};
use rand::seq::SliceRandom;
use rayon::prelude::*;

use crate::keep::{Best, keep_best};
use crate::sparse::SparseRows;
use crate::{Error, Result, TextVectors};

/// Clusters whose items are compared with those of one.
const NEAR: usize = 16;
/// Items a cluster that its centre is found with, and steps of Lloyd's algorithm.
const SAMPLED: usize = 40;
const STEPS: usize = 5;
/// Items whose cosines are computed at a time.
const BLOCK: usize = 64;
/// Blocks between two reports.
const WAVE: usize = 128;

/// Items by the centre that is nearest to them.
#[derive(Debug, Clone)]
pub(crate) struct Clusters {
    /// Rows of length 1.
    centres: Array2<f32>,
    /// Ascending.
    members: Vec<Vec<u32>>,
}

impl Clusters {
    /// Items without a text are in no cluster.
    pub(crate) fn new(vectors: &TextVectors) -> Self {
        let items: Vec<u32> =
            (0..vectors.n_items()).filter(|&i| vectors.has_text(i)).map(|i| i as u32).collect();
        let count = (2.0 * (items.len() as f64).sqrt()) as usize;
        let centres = centres(vectors, &items, count.max(1));
        let of = assign(vectors, &items, &centres);
        let mut members = vec![Vec::new(); centres.nrows()];
        for (&item, &cluster) in items.iter().zip(&of) {
            members[cluster as usize].push(item);
        }
        Self { centres, members }
    }

    /// The items of the clusters that are nearest to a vector of length 1, ascending.
    pub(crate) fn near(&self, vector: ArrayView1<'_, f32>) -> Vec<u32> {
        let cosines = self.centres.dot(&vector);
        let mut near: Vec<u32> = (0..self.members.len() as u32).collect();
        keep_best(&mut near, NEAR, |cluster| cosines[cluster as usize]);
        let members = near.iter().flat_map(|&c| self.members[c as usize].iter().copied());
        let mut items: Vec<u32> = members.collect();
        items.sort_unstable();
        items
    }

    /// Puts a new item, of the largest id, into its cluster.
    pub(crate) fn insert(&mut self, item: u32, vector: ArrayView1<'_, f32>) {
        let cosines = self.centres.dot(&vector);
        let mut best: Vec<u32> = (0..self.members.len() as u32).collect();
        keep_best(&mut best, 1, |cluster| cosines[cluster as usize]);
        if let Some(members) = best.first().and_then(|&c| self.members.get_mut(c as usize)) {
            members.push(item);
        }
    }

    /// The clusters that are nearest to each, the nearest first.
    fn near_clusters(&self) -> Vec<Vec<u32>> {
        let cosines = self.centres.dot(&self.centres.t());
        let near = cosines.axis_iter(Axis(0)).map(|cosines| {
            let mut near: Vec<u32> = (0..self.members.len() as u32).collect();
            keep_best(&mut near, NEAR, |other| cosines[other as usize]);
            // The best are then soon found.
            near.sort_by(|&a, &b| cosines[b as usize].total_cmp(&cosines[a as usize]));
            near
        });
        near.collect()
    }
}

/// See [`TextNeighbours::find`](super::TextNeighbours::find).
pub(super) fn find(
    vectors: &TextVectors,
    most: usize,
    advance: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<SparseRows> {
    let clusters = Clusters::new(vectors);
    let starts: Vec<usize> = std::iter::once(0)
        .chain(clusters.members.iter().scan(0, |end, members| {
            *end += members.len();
            Some(*end)
        }))
        .collect();
    // The items of a cluster lie behind each other.
    let order = clusters.members.concat();
    let sorted = vectors.unit_rows(&order);
    let near = clusters.near_clusters();
    let candidates =
        |of: &Vec<u32>| of.iter().map(|&other| clusters.members[other as usize].len()).sum();
    let slot = near.iter().map(candidates).max().unwrap_or(0).min(most);
    let (mut columns, mut values) =
        (vec![0u32; vectors.n_items() * slot], vec![0f32; vectors.n_items() * slot]);
    let mut lengths = vec![0; vectors.n_items()];
    // Every block is of one cluster.
    let blocks: Vec<(usize, Range<usize>)> = (0..clusters.members.len())
        .flat_map(|cluster| {
            let end = starts[cluster + 1];
            let blocks = (starts[cluster]..end).step_by(BLOCK);
            blocks.map(move |start| (cluster, start..(start + BLOCK).min(end)))
        })
        .collect();
    let mut done = vectors.n_items() - order.len();
    for wave in blocks.chunks(WAVE) {
        let found: Vec<Vec<Vec<(u32, f32)>>> = wave
            .par_iter()
            .map_init(
                || (Vec::new(), vec![Best::new(most); BLOCK]),
                |(products, best), (cluster, block)| {
                    let targets = sorted.slice(s![block.clone(), ..]);
                    for &other in &near[*cluster] {
                        let others = starts[other as usize]..starts[other as usize + 1];
                        let (rows, width) = (block.len(), others.len());
                        products.clear();
                        products.resize(rows * width, 0f32);
                        let mut product = ArrayViewMut2::from_shape((rows, width), products)?;
                        let sources = sorted.slice(s![others.clone(), ..]);
                        general_mat_mul(1.0, &targets, &sources.t(), 0.0, &mut product);
                        let items = &order[others];
                        let lines = products.chunks_exact(width.max(1));
                        for ((best, cosines), &item) in
                            best.iter_mut().zip(lines).zip(&order[block.clone()])
                        {
                            best.offer(items, cosines, item);
                        }
                    }
                    Ok(best[..block.len()].iter_mut().map(|best| best.take().collect()).collect())
                },
            )
            .collect::<std::result::Result<_, ShapeError>>()
            .map_err(|e| Error::TextVectors(e.to_string()))?;
        for ((_, block), found) in wave.iter().zip(found) {
            done += block.len();
            for (&item, row) in order[block.clone()].iter().zip(found) {
                let start = item as usize * slot;
                lengths[item as usize] = row.len();
                for (place, (column, cosine)) in (start..).zip(row) {
                    (columns[place], values[place]) = (column, cosine);
                }
            }
        }
        advance(done)?;
    }
    Ok(SparseRows::from_slots(slot, &lengths, columns, values))
}

/// Centres of `count` clusters, rows of length 1.
fn centres(vectors: &TextVectors, items: &[u32], count: usize) -> Array2<f32> {
    let mut random = stream(0, "text clusters", &[]);
    let mut sample = pick(items, SAMPLED * count, &mut random);
    sample.shuffle(&mut random);
    let mut centres = vectors.unit_rows(&sample[..count.min(sample.len())]);
    let unit = vectors.unit_rows(&sample);
    for _ in 0..STEPS {
        let of = assign(vectors, &sample, &centres);
        let mut sums = Array2::<f32>::zeros(centres.dim());
        for (row, &cluster) in unit.axis_iter(Axis(0)).zip(&of) {
            let mut sum = sums.row_mut(cluster as usize);
            sum += &row;
        }
        for (mut centre, sum) in centres.axis_iter_mut(Axis(0)).zip(sums.axis_iter(Axis(0))) {
            let length = sum.dot(&sum).sqrt();
            // A cluster without items keeps its centre.
            if length > 0.0 {
                centre.assign(&(&sum / length));
            }
        }
    }
    centres
}

/// The cluster of each item.
fn assign(vectors: &TextVectors, items: &[u32], centres: &Array2<f32>) -> Vec<u32> {
    let blocks: Vec<Vec<u32>> = items
        .par_chunks(BLOCK)
        .map(|block| {
            let cosines = vectors.unit_rows(block).dot(&centres.t());
            let best = cosines.axis_iter(Axis(0)).map(|row| {
                let mut best = (0, f32::NEG_INFINITY);
                for (cluster, &cosine) in row.iter().enumerate() {
                    if cosine > best.1 {
                        best = (cluster, cosine);
                    }
                }
                best.0 as u32
            });
            best.collect()
        })
        .collect();
    blocks.into_iter().flatten().collect()
}
