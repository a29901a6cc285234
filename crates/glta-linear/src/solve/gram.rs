//! The matrix `A = XᵀX + αTTᵀ + λI`, item by item.

use std::sync::Arc;

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView1, Axis, s};
use pulp::{Arch, Simd, WithSimd};

use super::counts::Counts;
use super::small::Small;
use crate::TextVectors;
use crate::keep::keep_best;

/// Number of bits of the hash set of a system's members: the item and its sources.
const SOME: usize = 4096;

/// The entries of the local systems. Pairs without a count are zeros.
#[derive(Debug, Clone)]
pub(crate) struct Gram {
    pub(crate) counts: Arc<Counts>,
    pub(crate) degrees: Arc<Vec<u32>>,
    /// Text vectors and their squared lengths.
    pub(crate) text: Option<(TextVectors, Arc<Vec<f32>>)>,
    /// Text vectors of items that were added after the fit.
    pub(crate) later: Vec<Vec<f32>>,
    /// Weight α of the text vectors.
    pub(crate) weight: f64,
    /// L2 regularisation λ.
    pub(crate) l2: f64,
}

/// The items of a user who is left out of a system.
#[derive(Debug, Clone, Copy, Default)]
/// All items of the user, in ascending order.
pub(crate) struct Own<'a> {
    pub(crate) items: &'a [u32],
    /// The items of the user whose pairs were counted.
    pub(crate) counted: &'a [u32],
}

/// Scratch memory of a thread that solves local systems.
pub(crate) struct Scratch {
    arch: Arch,
    pub(crate) small: Small,
    /// The position of an item among the members, plus one; 0 for all other items.
    places: Vec<u32>,
    /// Text vectors of the members, `(members, dim)`.
    block: Array2<f32>,
    /// Inner products of the text vectors of the members, `(members, members)`.
    products: Array2<f32>,
    pub(crate) members: Vec<u32>,
    /// Entries of `A` between an item and its candidates.
    pub(crate) strengths: Vec<f32>,
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scratch").finish_non_exhaustive()
    }
}

impl Scratch {
    pub(crate) fn new(items: usize) -> Self {
        Self {
            arch: Arch::new(),
            small: Small::new(),
            places: vec![0; items],
            block: Array2::zeros((0, 0)),
            products: Array2::zeros((0, 0)),
            members: Vec::new(),
            strengths: vec![0.0; items],
        }
    }

    /// Extends the memory for items that were added after the fit.
    pub(crate) fn fit(&mut self, items: usize) {
        self.places.resize(items, 0);
        self.strengths.resize(items, 0.0);
    }
}

impl Gram {
    pub(crate) fn n_items(&self) -> usize {
        self.degrees.len()
    }

    /// Returns the text vector of an item; empty without text vectors.
    pub(crate) fn vector(&self, item: usize) -> &[f32] {
        let Some((vectors, _)) = &self.text else {
            return &[];
        };
        match item.checked_sub(vectors.n_items()) {
            None => vectors.row(item),
            Some(later) => self.later.get(later).map_or(&[], Vec::as_slice),
        }
    }

    /// Returns `A_ii`.
    pub(crate) fn diagonal(&self, item: usize) -> f64 {
        let text = self.text.as_ref().map_or(0.0, |(_, squares)| f64::from(squares[item]));
        f64::from(self.degrees[item]) + self.weight * text + self.l2
    }

    /// Writes the items that co-occur with an item or are among its text neighbours to
    /// `scratch.members`, and their entries of `A` to `scratch.strengths`.
    pub(crate) fn candidates(&self, item: usize, neighbours: &[u32], scratch: &mut Scratch) {
        let Scratch { arch, members, strengths, places, .. } = scratch;
        members.clear();
        let (items, counts) = self.counts.row(item);
        for (&other, &count) in items.iter().zip(counts) {
            strengths[other as usize] = count as f32;
            places[other as usize] = 1;
            members.push(other);
        }
        for &other in neighbours {
            if places[other as usize] == 0 && other as usize != item {
                strengths[other as usize] = 0.0;
                places[other as usize] = 1;
                members.push(other);
            }
        }
        members.iter().for_each(|&other| places[other as usize] = 0);
        if self.text.is_some() && self.weight > 0.0 {
            arch.dispatch(Products { gram: self, item, members, strengths });
        }
    }

    /// Writes the `k` candidates with the largest `|A_ij| / √A_ii`, in ascending order, to
    /// `scratch.members`. Writes all other items if there are at most `k`.
    pub(crate) fn sources(&self, item: usize, neighbours: &[u32], k: usize, scratch: &mut Scratch) {
        if k >= self.n_items().saturating_sub(1) {
            scratch.members.clear();
            scratch.members.extend((0..self.n_items() as u32).filter(|&i| i as usize != item));
            return;
        }
        self.candidates(item, neighbours, scratch);
        let Scratch { members, strengths, .. } = scratch;
        for &other in members.iter() {
            let strength = &mut strengths[other as usize];
            *strength = strength.abs() / (self.diagonal(other as usize).sqrt() as f32);
        }
        keep_best(members, k, |i| strengths[i as usize]);
        members.sort_unstable();
    }

    /// Writes the rows and columns of `scratch.members` to `scratch.small`, without the user `own`.
    pub(crate) fn fill(&self, own: Own<'_>, scratch: &mut Scratch) {
        let Scratch { small, places, block, products, members, .. } = scratch;
        let n = members.len();
        small.reset(n);
        // Most items of a row are not members. A small set shows this without reading `places`.
        let mut some = [0u64; SOME / 64];
        for (place, &item) in members.iter().enumerate() {
            places[item as usize] = place as u32 + 1;
            some[item as usize % SOME / 64] |= 1 << (item % 64);
        }
        for (a, &item) in members.iter().enumerate() {
            let (others, counts) = self.counts.row(item as usize);
            let mut put = |b: usize, count: u32| {
                // The other row may have been truncated and started again.
                let pair = small.at(a.max(b), a.min(b));
                *pair = pair.max(f64::from(count));
            };
            if others.len() > 12 * n {
                for (b, other) in members.iter().enumerate() {
                    if let Ok(at) = others.binary_search(other) {
                        put(b, counts[at]);
                    }
                }
            } else {
                for (&other, &count) in others.iter().zip(counts) {
                    if some[other as usize % SOME / 64] >> (other % 64) & 1 == 0 {
                        continue;
                    }
                    let place = places[other as usize];
                    if place > 0 {
                        put(place as usize - 1, count);
                    }
                }
            }
        }
        members.iter().for_each(|&item| places[item as usize] = 0);
        let is_in = |items: &[u32], item: &u32| items.binary_search(item).is_ok();
        if !own.counted.is_empty() {
            let theirs: Vec<usize> = (0..n).filter(|&a| is_in(own.counted, &members[a])).collect();
            for (nth, &a) in theirs.iter().enumerate() {
                for &b in &theirs[..nth] {
                    // A pair without a count stays without one.
                    let count = small.at(a, b);
                    *count = (*count - 1.0).max(0.0);
                }
            }
        }
        if let Some((vectors, _)) = self.text.as_ref().filter(|_| self.weight > 0.0) {
            let dim = vectors.view().ncols();
            if block.nrows() < n || block.ncols() != dim {
                *block = Array2::zeros((n, dim));
                *products = Array2::zeros((n, n));
            }
            for (mut row, &item) in block.rows_mut().into_iter().zip(members.iter()) {
                row.assign(&ArrayView1::from(self.vector(item as usize)));
            }
            let (block, mut products) =
                (block.slice(s![..n, ..]), products.slice_mut(s![..n, ..n]));
            general_mat_mul(1.0, &block, &block.t(), 0.0, &mut products);
            for (column, products) in products.axis_iter(Axis(0)).enumerate() {
                small.add(column, products.iter().skip(column + 1), self.weight);
            }
        }
        for (a, item) in members.iter().enumerate() {
            let less = if is_in(own.items, item) { 1.0 } else { 0.0 };
            *small.at(a, a) = self.diagonal(*item as usize) - less;
        }
    }
}

/// The operation that adds the weighted products of the text vector of `item` and the text vectors
/// of `members`.
struct Products<'a> {
    gram: &'a Gram,
    item: usize,
    members: &'a [u32],
    strengths: &'a mut [f32],
}

impl WithSimd for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { gram, item, members, strengths } = self;
        let (own, weight) = (gram.vector(item), gram.weight as f32);
        for &other in members {
            strengths[other as usize] += weight * dot(own, gram.vector(other as usize));
        }
    }
}

/// Returns the inner product of two vectors of equal length. The compiler vectorises the loop over
/// sixteen sums, and the result is bit-identical on all processors.
#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    let mut sums = [0f32; 16];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..16 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}
