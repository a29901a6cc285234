//! Finds neighbours among the items of the nearest clusters. This is an inverted file (Jégou et al.
//! 2011, "Product Quantization for Nearest Neighbor Search") without the quantisation.

use std::ops::Range;

use glta_core::{pick, stream};
use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView1, Axis, s};
use rand::seq::SliceRandom;
use rayon::prelude::*;

use crate::keep::{Best, keep_best};
use crate::sparse::SparseRows;
use crate::{Result, TextVectors};

/// Number of nearest clusters with whose items an item is compared.
const NEAR: usize = 24;
/// Number of sampled items per cluster that determine the centres.
const SAMPLED: usize = 40;
/// Number of steps of Lloyd's algorithm.
const STEPS: usize = 5;
/// Number of items whose cosines with all centres are computed at a time.
const BLOCK: usize = 256;
/// Minimum and maximum number of items whose neighbours are found together. With more items, one
/// product compares more of them with a cluster.
const TOGETHER: std::ops::RangeInclusive<usize> = 512..=8_192;
/// Number of blocks of items between two progress reports.
const WAVE: usize = 16;

/// Items grouped by their nearest centre.
#[derive(Debug, Clone)]
pub(crate) struct Clusters {
    /// Centres of the clusters, as rows of unit norm.
    centres: Array2<f32>,
    /// Items of each cluster, in ascending order.
    members: Vec<Vec<u32>>,
}

impl Clusters {
    /// Groups the items by their text vectors. Items without a text are in no cluster.
    pub(crate) fn new(vectors: &TextVectors) -> Self {
        let items = with_text(vectors);
        let centres = centres(vectors, &items);
        let of = by_cosines(vectors, &items, &centres, |cosines| vec![first(cosines)]);
        Self::of(&items, &of, centres)
    }

    fn of(items: &[u32], of: &[u32], centres: Array2<f32>) -> Self {
        let mut members = vec![Vec::new(); centres.nrows()];
        for (&item, &cluster) in items.iter().zip(of) {
            members[cluster as usize].push(item);
        }
        Self { centres, members }
    }

    /// Returns the items of the clusters that are nearest to a unit vector, in ascending order.
    pub(crate) fn near(&self, vector: ArrayView1<'_, f32>) -> Vec<u32> {
        let near = nearest(self.centres.dot(&vector).as_slice().unwrap_or_default());
        let members = near.iter().flat_map(|&c| self.members[c as usize].iter().copied());
        let mut items: Vec<u32> = members.collect();
        items.sort_unstable();
        items
    }

    /// Adds a new item to the cluster of its nearest centre. Call this only with an id that is
    /// larger than all ids in the clusters.
    pub(crate) fn insert(&mut self, item: u32, vector: ArrayView1<'_, f32>) {
        let cosines = self.centres.dot(&vector);
        let cluster = first(cosines.as_slice().unwrap_or_default());
        if let Some(members) = self.members.get_mut(cluster as usize) {
            members.push(item);
        }
    }
}

/// Implements [`TextNeighbours::find`](super::TextNeighbours::find) for many items.
pub(super) fn find(
    vectors: &TextVectors,
    most: usize,
    advance: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<SparseRows> {
    let items = with_text(vectors);
    let centres = centres(vectors, &items);
    let near_count = NEAR.min(centres.nrows()).max(1);
    let near = by_cosines(vectors, &items, &centres, nearest);
    let of: Vec<u32> = near.chunks(near_count).map(|near| near[0]).collect();
    let clusters = Clusters::of(&items, &of, centres);
    // The items of a cluster are contiguous, and so are the clusters near them.
    let mut by_cluster: Vec<u32> = (0..items.len() as u32).collect();
    by_cluster.sort_by_key(|&nth| of[nth as usize]);
    let order: Vec<u32> = by_cluster.iter().map(|&nth| items[nth as usize]).collect();
    let near: Vec<u32> = by_cluster
        .iter()
        .flat_map(|&nth| near[nth as usize * near_count..][..near_count].iter().copied())
        .collect();
    let starts: Vec<usize> = std::iter::once(0)
        .chain(clusters.members.iter().scan(0, |end, members| {
            *end += members.len();
            Some(*end)
        }))
        .collect();
    let sorted = vectors.unit_rows(&order);
    let most_near: usize = {
        let mut sizes: Vec<usize> = clusters.members.iter().map(Vec::len).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        sizes.iter().take(NEAR).sum()
    };
    let slot = most.min(most_near);
    let (mut columns, mut values) =
        (vec![0u32; vectors.n_items() * slot], vec![0f32; vectors.n_items() * slot]);
    let mut lengths = vec![0; vectors.n_items()];
    let together = (order.len() / 64).clamp(*TOGETHER.start(), *TOGETHER.end());
    let blocks: Vec<Range<usize>> = (0..order.len())
        .step_by(together)
        .map(|start| start..(start + together).min(order.len()))
        .collect();
    let search =
        Search { starts: &starts, order: &order, near: &near, near_count, sorted: &sorted };
    let mut done = vectors.n_items() - order.len();
    for wave in blocks.chunks(WAVE) {
        let found: Vec<Vec<Vec<(u32, f32)>>> = wave
            .par_iter()
            .map_init(
                || vec![Best::new(most); together],
                |best, block| search.block(block.clone(), best),
            )
            .collect();
        for (block, found) in wave.iter().zip(found) {
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

/// The data that the search shares among all blocks.
struct Search<'a> {
    /// The start of each cluster's items, and the end of the last one.
    starts: &'a [usize],
    /// Items, sorted by cluster.
    order: &'a [u32],
    /// Nearest clusters, `near_count` per item, in the order of `order`.
    near: &'a [u32],
    near_count: usize,
    /// Text vectors, with one row per item in the order of `order`.
    sorted: &'a Array2<f32>,
}

impl Search<'_> {
    /// Returns the neighbours of the items of a block.
    fn block(&self, block: Range<usize>, best: &mut [Best]) -> Vec<Vec<(u32, f32)>> {
        let targets = self.sorted.slice(s![block.clone(), ..]);
        // Collect, for each cluster, the items of the block that are near it.
        let of_block = &self.near[block.start * self.near_count..block.end * self.near_count];
        let mut near: Vec<(u32, usize)> =
            of_block.iter().enumerate().map(|(nth, &c)| (c, nth / self.near_count)).collect();
        near.sort_unstable();
        for near in near.chunk_by(|a, b| a.0 == b.0) {
            let cluster = near[0].0 as usize;
            let others = self.starts[cluster]..self.starts[cluster + 1];
            let rows: Vec<usize> = near.iter().map(|pair| pair.1).collect();
            let sources = self.sorted.slice(s![others.clone(), ..]);
            let mut products = Array2::<f32>::zeros((rows.len(), others.len()));
            let wanted = targets.select(Axis(0), &rows);
            general_mat_mul(1.0, &wanted, &sources.t(), 0.0, &mut products);
            for (&row, cosines) in rows.iter().zip(products.axis_iter(Axis(0))) {
                let cosines = cosines.to_slice().unwrap_or_default();
                best[row].offer(
                    &self.order[others.clone()],
                    cosines,
                    self.order[block.start + row],
                );
            }
        }
        best[..block.len()].iter_mut().map(|best| best.take().collect()).collect()
    }
}

fn with_text(vectors: &TextVectors) -> Vec<u32> {
    (0..vectors.n_items()).filter(|&i| vectors.has_text(i)).map(|i| i as u32).collect()
}

/// Computes the centres of `2√items` clusters, as rows of unit norm.
fn centres(vectors: &TextVectors, items: &[u32]) -> Array2<f32> {
    let count = ((2.0 * (items.len() as f64).sqrt()) as usize).max(1);
    let mut random = stream(0, "text clusters", &[]);
    let mut sample = pick(items, SAMPLED * count, &mut random);
    sample.shuffle(&mut random);
    let mut centres = vectors.unit_rows(&sample[..count.min(sample.len())]);
    let unit = vectors.unit_rows(&sample);
    for _ in 0..STEPS {
        let of = by_cosines(vectors, &sample, &centres, |cosines| vec![first(cosines)]);
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

/// Returns the index of the largest cosine; on a tie, the lowest index.
fn first(cosines: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (cluster, &cosine) in cosines.iter().enumerate() {
        if cosine > best.1 {
            best = (cluster, cosine);
        }
    }
    best.0 as u32
}

/// Returns the indices of the `NEAR` largest cosines (or of all), the largest first.
fn nearest(cosines: &[f32]) -> Vec<u32> {
    let all: Vec<u32> = (0..cosines.len() as u32).collect();
    let mut best = Best::new(NEAR);
    best.offer(&all, cosines, u32::MAX);
    let mut near: Vec<u32> = best.take().map(|(cluster, _)| cluster).collect();
    if near.len() < NEAR {
        // Fewer cosines are positive.
        near = all;
        keep_best(&mut near, NEAR, |cluster| cosines[cluster as usize]);
    }
    let own = first(cosines);
    near.sort_unstable_by_key(|&cluster| (cluster != own, cluster));
    near
}

/// Concatenates the results of `choose` on the cosines of each item with all centres.
fn by_cosines(
    vectors: &TextVectors,
    items: &[u32],
    centres: &Array2<f32>,
    choose: impl Fn(&[f32]) -> Vec<u32> + Sync,
) -> Vec<u32> {
    let blocks: Vec<Vec<u32>> = items
        .par_chunks(BLOCK)
        .map(|block| {
            // For vectors of one dimension, `dot` would return the columns in sequence.
            let mut cosines = Array2::zeros((block.len(), centres.nrows()));
            general_mat_mul(1.0, &vectors.unit_rows(block), &centres.t(), 0.0, &mut cosines);
            let rows = cosines.axis_iter(Axis(0));
            rows.flat_map(|row| choose(row.to_slice().unwrap_or_default())).collect()
        })
        .collect();
    blocks.concat()
}
