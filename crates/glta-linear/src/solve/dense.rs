//! The dense inverse of the Gram matrix.

use glta_data::Interactions;
use glta_linalg::{add_gram, cholesky, gram_of_lower, invert_lower};
use ndarray::{Array2, Axis};
use rayon::prelude::*;

use crate::{Error, Result, TextVectors};

/// `B` and the diagonal of `P = (XᵀX + αTTᵀ + λI)⁻¹`.
pub(crate) fn solve(
    train: &Interactions,
    text: Option<(&TextVectors, f64)>,
    l2: f64,
) -> Result<(Array2<f32>, Vec<f64>)> {
    let items = train.n_items();
    let mut matrix = gram(train, l2);
    if let Some((vectors, weight)) = text.filter(|&(_, weight)| weight > 0.0) {
        add_gram(&mut matrix, weight, vectors.view().mapv(f64::from).view())?;
    }
    cholesky(&mut matrix).map_err(|_| Error::NotPositiveDefinite { l2 })?;
    invert_lower(&mut matrix)?;
    // A⁻¹ = L⁻ᵀ L⁻¹
    gram_of_lower(&mut matrix)?;
    let inverse = matrix;
    // The inverse is symmetric and only its lower triangle is there.
    let at = |i: usize, j: usize| {
        if i >= j { inverse[(i, j)] } else { inverse[(j, i)] }
    };
    let diagonal: Vec<f64> = (0..items).map(|j| inverse[(j, j)]).collect();
    let mut weights = Array2::zeros((items, items));
    weights.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each(|(i, mut row)| {
        for (j, weight) in row.iter_mut().enumerate() {
            if i != j {
                *weight = (-at(i, j) / diagonal[j]) as f32;
            }
        }
    });
    Ok((weights, diagonal))
}

/// The lower triangle of `XᵀX + λI`.
fn gram(train: &Interactions, l2: f64) -> Array2<f64> {
    let items = train.n_items();
    let users_of = train.transpose();
    let mut gram = Array2::zeros((items, items));
    gram.axis_iter_mut(Axis(0)).into_par_iter().enumerate().for_each(|(item, mut row)| {
        for &user in users_of.items(item as u32) {
            let others = train.items(user);
            let to = others.partition_point(|&o| (o as usize) <= item);
            for &other in &others[..to] {
                row[other as usize] += 1.0;
            }
        }
        row[item] += l2;
    });
    gram
}
