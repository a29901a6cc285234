//! Neighbours among the items of near clusters (an inverted file; Jégou et al. 2011, "Product
//! Quantization for Nearest Neighbor Search", without the quantisation).

use std::ops::Range;

use glta_core::{pick, stream};
use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView1, Axis, s};
use rand::seq::SliceRandom;
use rayon::prelude::*;

use crate::keep::{Best, keep_best};
use crate::sparse::SparseRows;
use crate::{Result, TextVectors};

/// Clusters whose items an item is compared with.
const NEAR: usize = 24;
/// Items a cluster that its centre is found with, and steps of Lloyd's algorithm.
const SAMPLED: usize = 40;
const STEPS: usize = 5;
/// Items whose cosines are computed at a time.
const BLOCK: usize = 64;
/// Items of a cluster whose neighbours are found together, and such blocks between two reports.
const TOGETHER: usize = 512;
const WAVE: usize = 32;

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
    let most_near: usize = {
        let mut sizes: Vec<usize> = clusters.members.iter().map(Vec::len).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        sizes.iter().take(NEAR).sum()
    };
    let slot = most.min(most_near);
    let (mut columns, mut values) =
        (vec![0u32; vectors.n_items() * slot], vec![0f32; vectors.n_items() * slot]);
    let mut lengths = vec![0; vectors.n_items()];
    // Every block is of one cluster, whose items are near the same clusters.
    let blocks: Vec<Range<usize>> = starts
        .windows(2)
        .flat_map(|ends| {
            let end = ends[1];
            let blocks = (ends[0]..end).step_by(TOGETHER);
            blocks.map(move |start| start..(start + TOGETHER).min(end))
        })
        .collect();
    let search = Search { clusters: &clusters, starts: &starts, order: &order, sorted: &sorted };
    let mut done = vectors.n_items() - order.len();
    for wave in blocks.chunks(WAVE) {
        let found: Vec<Vec<Vec<(u32, f32)>>> = wave
            .par_iter()
            .map_init(
                || vec![Best::new(most); TOGETHER],
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

/// What all blocks are searched in.
struct Search<'a> {
    clusters: &'a Clusters,
    /// Where the items of each cluster start, and where the last end.
    starts: &'a [usize],
    /// Items by cluster.
    order: &'a [u32],
    /// Their vectors.
    sorted: &'a Array2<f32>,
}

impl Search<'_> {
    /// The neighbours of the items of a block.
    fn block(&self, block: Range<usize>, best: &mut [Best]) -> Vec<Vec<(u32, f32)>> {
        let targets = self.sorted.slice(s![block.clone(), ..]);
        let to_centres = targets.dot(&self.clusters.centres.t());
        let all: Vec<u32> = (0..self.clusters.members.len() as u32).collect();
        // Clusters, and the items of the block that are near them.
        let mut near: Vec<(u32, usize)> = Vec::with_capacity(NEAR * block.len());
        for (row, cosines) in to_centres.axis_iter(Axis(0)).enumerate() {
            let mut own = all.clone();
            keep_best(&mut own, NEAR, |cluster| cosines[cluster as usize]);
            near.extend(own.into_iter().map(|cluster| (cluster, row)));
        }
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
