//! Neighbours among the items of near clusters (an inverted file; Jégou et al. 2011, "Product
//! Quantization for Nearest Neighbor Search", without the quantisation).

use glta_core::{pick, stream};
use ndarray::{Array2, ArrayView1, ArrayView2, Axis};
use rand::seq::SliceRandom;
use rayon::prelude::*;

use super::{has_text, nearest};
use crate::Result;
use crate::solve::counts::keep_best;
use crate::sparse::SparseRows;

/// Clusters whose items are compared with those of one.
const NEAR: usize = 16;
/// Items a cluster that its centre is found with, and steps of Lloyd's algorithm.
const SAMPLED: usize = 40;
const STEPS: usize = 5;
/// Items whose cosines are computed at a time.
const BLOCK: usize = 64;

/// Items by the centre that is nearest to them.
#[derive(Debug, Clone)]
pub(crate) struct Clusters {
    /// Rows of length 1.
    centres: Array2<f32>,
    /// Ascending.
    members: Vec<Vec<u32>>,
}

impl Clusters {
    /// `unit` has rows of length 1 or 0; those of length 0 are in no cluster.
    pub(crate) fn new(unit: ArrayView2<'_, f32>) -> Self {
        let items: Vec<u32> =
            (0..unit.nrows()).filter(|&i| has_text(unit, i)).map(|i| i as u32).collect();
        let count = (2.0 * (items.len() as f64).sqrt()) as usize;
        let centres = centres(unit, &items, count.max(1));
        let of = assign(unit, &items, &centres);
        let mut members = vec![Vec::new(); centres.nrows()];
        for (&item, &cluster) in items.iter().zip(&of) {
            members[cluster as usize].push(item);
        }
        Self { centres, members }
    }

    /// The items of the clusters that are nearest to a vector of length 1, ascending.
    pub(crate) fn near(&self, vector: ArrayView1<'_, f32>) -> Vec<u32> {
        let cosines = self.centres.dot(&vector);
        self.of_best(|cluster| cosines[cluster as usize])
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

    fn of_best(&self, cosine: impl Fn(u32) -> f32) -> Vec<u32> {
        let mut near: Vec<u32> = (0..self.members.len() as u32).collect();
        keep_best(&mut near, NEAR, cosine);
        let members = near.iter().flat_map(|&c| self.members[c as usize].iter().copied());
        let mut items: Vec<u32> = members.collect();
        items.sort_unstable();
        items
    }
}

/// See [`TextNeighbours::find`](super::TextNeighbours::find); `unit` has rows of length 1 or 0.
pub(super) fn find(
    unit: ArrayView2<'_, f32>,
    most: usize,
    advance: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<SparseRows> {
    let clusters = Clusters::new(unit);
    let cosines = clusters.centres.dot(&clusters.centres.t());
    // Every block is of one cluster.
    let blocks: Vec<(usize, &[u32])> = clusters
        .members
        .iter()
        .enumerate()
        .flat_map(|(cluster, own)| own.chunks(BLOCK).map(move |block| (cluster, block)))
        .collect();
    let mut rows: Vec<Vec<(u32, f32)>> = vec![Vec::new(); unit.nrows()];
    let mut done = unit.nrows() - clusters.members.iter().map(Vec::len).sum::<usize>();
    for wave in blocks.chunks(128) {
        let found: Vec<Vec<_>> = wave
            .par_iter()
            .map(|&(cluster, block)| {
                let others = clusters.of_best(|other| cosines[(cluster, other as usize)]);
                let products = rows_of(unit, block).dot(&rows_of(unit, &others).t());
                let rows = block.iter().zip(products.axis_iter(Axis(0)));
                rows.map(|(&item, row)| nearest(item, row, Some(&others), most)).collect()
            })
            .collect();
        for (&(_, block), found) in wave.iter().zip(found) {
            done += block.len();
            for (&item, row) in block.iter().zip(found) {
                rows[item as usize] = row;
            }
        }
        advance(done)?;
    }
    Ok(SparseRows::from_pieces(unit.nrows(), vec![rows]))
}

/// Centres of `count` clusters, rows of length 1.
fn centres(unit: ArrayView2<'_, f32>, items: &[u32], count: usize) -> Array2<f32> {
    let mut random = stream(0, "text clusters", &[]);
    let mut sample = pick(items, SAMPLED * count, &mut random);
    sample.shuffle(&mut random);
    let mut centres = rows_of(unit, &sample[..count.min(sample.len())]);
    for _ in 0..STEPS {
        let of = assign(unit, &sample, &centres);
        let mut sums = Array2::<f32>::zeros(centres.dim());
        for (&item, &cluster) in sample.iter().zip(&of) {
            let mut sum = sums.row_mut(cluster as usize);
            sum += &unit.row(item as usize);
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
fn assign(unit: ArrayView2<'_, f32>, items: &[u32], centres: &Array2<f32>) -> Vec<u32> {
    let blocks: Vec<Vec<u32>> = items
        .par_chunks(BLOCK)
        .map(|block| {
            let cosines = rows_of(unit, block).dot(&centres.t());
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

fn rows_of(unit: ArrayView2<'_, f32>, items: &[u32]) -> Array2<f32> {
    let rows: Vec<usize> = items.iter().map(|&item| item as usize).collect();
    unit.select(Axis(0), &rows)
}
