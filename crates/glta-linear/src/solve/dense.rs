//! The dense inverse of the Gram matrix.

use faer::linalg::cholesky::llt;
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::linalg::triangular_inverse::invert_lower_triangular;
use faer::{Accum, Mat, Par};
use glta_data::Interactions;
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
    let mut gram = gram(train, l2);
    if let Some((vectors, weight)) = text.filter(|&(_, weight)| weight > 0.0) {
        let vectors = vectors.view();
        let vectors = Mat::from_fn(items, vectors.ncols(), |r, c| f64::from(vectors[(r, c)]));
        triangular::matmul(
            gram.as_mut(),
            BlockStructure::TriangularLower,
            Accum::Add,
            vectors.as_ref(),
            BlockStructure::Rectangular,
            vectors.transpose(),
            BlockStructure::Rectangular,
            weight,
            Par::rayon(0),
        );
    }
    let inverse = invert(gram, l2)?;
    // The inverse is symmetric and only its lower triangle is there.
    let at = |i: usize, j: usize| {
        if i >= j { inverse[(i, j)] } else { inverse[(j, i)] }
    };
    let diagonal: Vec<f64> = (0..items).map(|j| inverse[(j, j)]).collect();
    let mut weights = Array2::zeros((items, items));
    let rows: Vec<_> = weights.axis_iter_mut(Axis(0)).enumerate().collect();
    rows.into_par_iter().for_each(|(i, mut row)| {
        for (j, weight) in row.iter_mut().enumerate() {
            if i != j {
                *weight = (-at(i, j) / diagonal[j]) as f32;
            }
        }
    });
    Ok((weights, diagonal))
}
/// The upper triangle, by rows, of `XᵀX + λI`: to faer, which stores columns,
/// the lower one.
fn gram(train: &Interactions, l2: f64) -> Mat<f64> {
    let items = train.n_items();
    let users_of = train.transpose();
    let mut gram = Mat::<f64>::zeros(items, items);
    let columns: Vec<_> = gram.col_iter_mut().enumerate().collect();
    columns.into_par_iter().for_each(|(item, column)| {
        let Some(column) = column.try_as_col_major_mut() else {
            return;
        };
        let column = column.as_slice_mut();
        for &user in users_of.items(item as u32) {
            let others = train.items(user);
            let from = others.partition_point(|&o| (o as usize) < item);
            for &other in &others[from..] {
                column[other as usize] += 1.0;
            }
        }
        column[item] += l2;
    });
    gram
}

/// The lower triangle of the inverse of a positive definite matrix of which the
/// lower triangle is given.
fn invert(mut matrix: Mat<f64>, l2: f64) -> Result<Mat<f64>> {
    let n = matrix.nrows();
    let par = Par::rayon(0);
    let mut memory = faer::dyn_stack::MemBuffer::new(
        llt::factor::cholesky_in_place_scratch::<f64>(n, par, Default::default()),
    );
    let stack = faer::dyn_stack::MemStack::new(&mut memory);
    llt::factor::cholesky_in_place(
        matrix.as_mut(),
        Default::default(),
        par,
        stack,
        Default::default(),
    )
    .map_err(|_| Error::NotPositiveDefinite { l2 })?;
    let mut inverse_factor = Mat::<f64>::zeros(n, n);
    invert_lower_triangular(inverse_factor.as_mut(), matrix.as_ref(), par);
    // A⁻¹ = L⁻ᵀ L⁻¹, into the memory that held L.
    triangular::matmul(
        matrix.as_mut(),
        BlockStructure::TriangularLower,
        Accum::Replace,
        inverse_factor.transpose(),
        BlockStructure::TriangularUpper,
        inverse_factor.as_ref(),
        BlockStructure::TriangularLower,
        1.0,
        par,
    );
    Ok(matrix)
}
