//! Computes the dense inverse of the Gram matrix.

use std::ops::ControlFlow;

use glta_data::Interactions;
use glta_linalg::{Step, add_gram_with, invert_with};
use ndarray::{Array2, Axis};
use rayon::prelude::*;

use crate::{Error, Result, TextVectors};

/// Number of rows between two progress reports.
const ROWS: usize = 512;

/// Returns `B` and the diagonal of `P = (XᵀX + αTTᵀ + λI)⁻¹`. `advance` is called with the finished
/// fraction of the inverse.
pub(crate) fn solve(
    train: &Interactions,
    text: Option<(&TextVectors, f64)>,
    l2: f64,
    advance: &mut dyn FnMut(f64) -> Result<()>,
) -> Result<(Array2<f32>, Vec<f64>)> {
    let items = train.n_items();
    let mut matrix = gram(train, l2, &mut || advance(0.0))?;
    if let Some((vectors, weight)) = text.filter(|&(_, weight)| weight > 0.0) {
        let vectors = vectors.view().mapv(f64::from);
        let steps = &mut |_: &Step| answer(advance(0.0));
        add_gram_with(&mut matrix, weight, vectors.view(), steps)?;
    }
    let steps = &mut |step: &Step| answer(advance(step.done));
    invert_with(&mut matrix, steps).map_err(|error| match error {
        glta_linalg::Error::Cancelled(_) => Error::Cancelled,
        _ => Error::NotPositiveDefinite { l2 },
    })?;
    let inverse = matrix;
    // The inverse is symmetric, and only its lower triangle is computed.
    let at = |i: usize, j: usize| {
        if i >= j { inverse[(i, j)] } else { inverse[(j, i)] }
    };
    let diagonal: Vec<f64> = (0..items).map(|j| inverse[(j, j)]).collect();
    let mut weights = Array2::zeros((items, items));
    for (nth, mut rows) in weights.axis_chunks_iter_mut(Axis(0), ROWS).enumerate() {
        rows.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each(|(row, mut weights)| {
            let i = nth * ROWS + row;
            for (j, weight) in weights.iter_mut().enumerate() {
                if i != j {
                    *weight = (-at(i, j) / diagonal[j]) as f32;
                }
            }
        });
        advance(1.0)?;
    }
    Ok((weights, diagonal))
}

fn answer(reported: Result<()>) -> ControlFlow<()> {
    match reported {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    }
}

/// Returns the lower triangle of `XᵀX + λI`.
fn gram(
    train: &Interactions,
    l2: f64,
    advance: &mut dyn FnMut() -> Result<()>,
) -> Result<Array2<f64>> {
    let items = train.n_items();
    let users_of = train.transpose();
    let mut gram = Array2::zeros((items, items));
    for (nth, mut rows) in gram.axis_chunks_iter_mut(Axis(0), ROWS).enumerate() {
        rows.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each(|(row, mut sums)| {
            let item = nth * ROWS + row;
            for &user in users_of.items(item as u32) {
                let others = train.items(user);
                let to = others.partition_point(|&o| (o as usize) <= item);
                for &other in &others[..to] {
                    sums[other as usize] += 1.0;
                }
            }
            sums[item] += l2;
        });
        advance()?;
    }
    Ok(gram)
}
