use ndarray::{Array2, ArrayViewMut2, Axis};
use rayon::prelude::*;

use crate::tridiagonal::{Reflections, tridiagonalise};
use crate::{Error, Result};

/// Maximum number of QL sweeps per eigenvalue; after them, an error is returned. One to three are
/// usual.
const MAX_SWEEPS: usize = 60;
/// Number of rotations that are collected before they are applied to the vectors.
const BATCH: usize = 1 << 16;
/// Number of vector components that one task rotates, small enough for the cache.
const WIDTH: usize = 16;

/// Eigenvalues and eigenvectors of a symmetric matrix, in descending order of the eigenvalues.
#[derive(Debug, Clone, PartialEq)]
pub struct Eigen {
    /// All eigenvalues, descending, `(n)`.
    pub values: Vec<f64>,
    /// Eigenvectors of the first eigenvalues, `(count, n)`: unit vectors, one per row. The
    /// component of largest magnitude is positive.
    pub vectors: Array2<f64>,
}

/// Computes the eigenvalues of a symmetric matrix, and the eigenvectors of the `count` largest ones
/// (all of them if there are fewer). Only the lower triangle is read.
///
/// The method is Householder's tridiagonal reduction followed by implicit QL steps (Golub and Van
/// Loan, "Matrix Computations", 8.3).
///
/// ```
/// use glta_linalg::symmetric_eigen;
/// use ndarray::array;
///
/// let eigen = symmetric_eigen(array![[2.0, 0.0], [1.0, 2.0]], 1)?;
/// assert!((eigen.values[0] - 3.0).abs() < 1e-12 && (eigen.values[1] - 1.0).abs() < 1e-12);
/// let half = 0.5f64.sqrt();
/// assert!(eigen.vectors.row(0).iter().all(|value| (value - half).abs() < 1e-12));
/// # Ok::<(), glta_linalg::Error>(())
/// ```
///
/// # Errors
/// Returns an error if the matrix is not square or contains values that are not finite.
pub fn symmetric_eigen(matrix: Array2<f64>, count: usize) -> Result<Eigen> {
    let (rows, columns) = matrix.dim();
    if rows != columns || !matrix.is_standard_layout() {
        let (operation, expected) = ("the eigenvalues", "a square matrix".into());
        return Err(Error::Shape { operation, expected, rows, columns });
    }
    let (mut diagonal, mut beside, reflections) = tridiagonalise(matrix);
    let mut rotated = Rotated::unit(rows);
    solve(&mut diagonal, &mut beside, &mut rotated)?;
    rotated.apply();
    let mut order: Vec<usize> = (0..rows).collect();
    order.sort_by(|&a, &b| diagonal[b].total_cmp(&diagonal[a]));
    let values: Vec<f64> = order.iter().map(|&i| diagonal[i]).collect();
    order.truncate(count);
    let vectors = finish(&rotated, &reflections, &order);
    Ok(Eigen { values, vectors })
}

/// A plane rotation of the vectors `at` and `at + 1`.
struct Rotation {
    at: usize,
    cos: f64,
    sin: f64,
}

/// The eigenvectors of the tridiagonal matrix, and rotations that are not yet applied to them.
struct Rotated {
    n: usize,
    /// The vectors in blocks: component `r` of vector `j` is at `blocks[r / WIDTH][j][r % WIDTH]`.
    blocks: Vec<Vec<[f64; WIDTH]>>,
    waiting: Vec<Rotation>,
}

impl Rotated {
    fn unit(n: usize) -> Self {
        let mut blocks = vec![vec![[0.0; WIDTH]; n]; n.div_ceil(WIDTH)];
        for i in 0..n {
            blocks[i / WIDTH][i][i % WIDTH] = 1.0;
        }
        Self { n, blocks, waiting: Vec::new() }
    }

    fn rotate(&mut self, rotation: Rotation) {
        self.waiting.push(rotation);
        if self.waiting.len() >= BATCH {
            self.apply();
        }
    }

    fn apply(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        self.blocks.par_iter_mut().for_each(|block| {
            for Rotation { at, cos, sin } in &waiting {
                if let [first, second] = &mut block[*at..*at + 2] {
                    for (x, y) in first.iter_mut().zip(second) {
                        (*x, *y) = (cos * *x - sin * *y, sin * *x + cos * *y);
                    }
                }
            }
        });
    }

    fn get(&self, vector: usize, number: usize) -> f64 {
        self.blocks[number / WIDTH][vector][number % WIDTH]
    }
}

/// Runs implicit QL steps and replaces `diagonal` by the eigenvalues.
fn solve(diagonal: &mut [f64], beside: &mut [f64], rotated: &mut Rotated) -> Result<()> {
    let n = diagonal.len();
    let (d, e) = (diagonal, beside);
    let largest = d.iter().chain(e.iter()).fold(0.0, |m: f64, v| m + v.abs());
    if !largest.is_finite() {
        return Err(Error::NoConvergence);
    }
    let norm = d.iter().zip(e.iter()).fold(0.0, |m: f64, (d, e)| m.max(d.abs() + e.abs()));
    let tiny = f64::EPSILON * norm;
    for l in 0..n {
        for sweep in 0.. {
            let m = (l..n - 1).find(|&m| e[m].abs() <= tiny).unwrap_or(n - 1);
            if m == l {
                break;
            }
            if sweep == MAX_SWEEPS {
                return Err(Error::NoConvergence);
            }
            let half = (d[l + 1] - d[l]) / (2.0 * e[l]);
            let mut g = d[m] - d[l] + e[l] / (half + half.hypot(1.0).copysign(half));
            let (mut sin, mut cos, mut shift) = (1.0, 1.0, 0.0);
            let mut split = false;
            for i in (l..m).rev() {
                let (f, b) = (sin * e[i], cos * e[i]);
                let r = f.hypot(g);
                e[i + 1] = r;
                if r == 0.0 {
                    // The matrix splits into two blocks here.
                    d[i + 1] -= shift;
                    e[m] = 0.0;
                    split = true;
                    break;
                }
                (sin, cos) = (f / r, g / r);
                g = d[i + 1] - shift;
                let r = (d[i] - g) * sin + 2.0 * cos * b;
                shift = sin * r;
                d[i + 1] = g + shift;
                g = cos * r - b;
                rotated.rotate(Rotation { at: i, cos, sin });
            }
            if !split {
                d[l] -= shift;
                e[l] = g;
                e[m] = 0.0;
            }
        }
    }
    Ok(())
}

/// Transforms eigenvectors of the tridiagonal matrix, in `order`, to those of the original matrix,
/// `(order, n)`.
fn finish(rotated: &Rotated, reflections: &Reflections, order: &[usize]) -> Array2<f64> {
    let mut vectors =
        Array2::from_shape_fn((order.len(), rotated.n), |(r, c)| rotated.get(order[r], c));
    let mut blocks: Vec<ArrayViewMut2<'_, f64>> =
        vectors.axis_chunks_iter_mut(Axis(0), WIDTH).collect();
    blocks.par_iter_mut().for_each(|block| {
        reflections.apply(block.view_mut());
        for mut vector in block.rows_mut() {
            let largest = vector.fold(0.0, |m: f64, &v| if v.abs() > m.abs() { v } else { m });
            if largest < 0.0 {
                vector.mapv_inplace(|v| -v);
            }
        }
    });
    vectors
}

#[cfg(test)]
mod tests {
    use ndarray::array;
    use rand::{Rng, SeedableRng};

    use super::*;

    /// Returns `Q diag(values) Qᵀ` with a random orthogonal `Q`, and NaN above the diagonal.
    fn with_values(values: &[f64]) -> Array2<f64> {
        let n = values.len();
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(n as u64);
        let mut a = Array2::from_diag(&ndarray::aview1(values));
        for _ in 0..4 {
            let v = ndarray::Array1::from_shape_fn(n, |_| rng.random_range(-1.0..1.0));
            let v = v.insert_axis(Axis(1));
            let length: f64 = v.iter().map(|v| v * v).sum();
            let h = Array2::eye(n) - v.dot(&v.t()) * (2.0 / length);
            a = h.dot(&a).dot(&h);
        }
        Array2::from_shape_fn((n, n), |(r, c)| if c > r { f64::NAN } else { a[(r, c)] })
    }

    fn assert_eigen(a: &Array2<f64>, eigen: &Eigen, tolerance: f64) {
        let a = Array2::from_shape_fn(a.dim(), |(r, c)| a[(r.max(c), r.min(c))]);
        let image = eigen.vectors.dot(&a);
        let products = eigen.vectors.dot(&eigen.vectors.t());
        for r in 0..eigen.vectors.nrows() {
            for c in 0..a.ncols() {
                let expected = eigen.values[r] * eigen.vectors[(r, c)];
                assert!((image[(r, c)] - expected).abs() < tolerance, "{r} {c}");
            }
            for c in 0..eigen.vectors.nrows() {
                let expected = if r == c { 1.0 } else { 0.0 };
                assert!((products[(r, c)] - expected).abs() < tolerance, "{r} {c}");
            }
        }
    }

    #[test]
    fn eigenpairs_reconstruct_the_matrix() {
        let spread: Vec<f64> = (0..150).map(|i| 10f64.powi(2 - i / 10)).collect();
        let mixed: Vec<f64> = (0..67).map(|i| f64::from((i * 37) % 23) - 11.0).collect();
        for values in [vec![3.0], vec![1.0, -2.0], vec![5.0; 20], vec![0.0; 9], spread, mixed] {
            let a = with_values(&values);
            let eigen = symmetric_eigen(a.clone(), usize::MAX).unwrap();
            let mut sorted = values.clone();
            sorted.sort_by(|a, b| b.total_cmp(a));
            for (got, expected) in eigen.values.iter().zip(&sorted) {
                assert!((got - expected).abs() < 1e-11, "{got} {expected}");
            }
            assert_eq!(eigen.vectors.dim(), (values.len(), values.len()));
            assert_eigen(&a, &eigen, 1e-11);
            let some = symmetric_eigen(a, 5).unwrap();
            assert_eq!(some.values, eigen.values);
            assert_eq!(some.vectors, eigen.vectors.slice(ndarray::s![..5.min(values.len()), ..]));
        }
        let eigen = symmetric_eigen(array![[2.0, 0.0], [-1.0, 2.0]], 1).unwrap();
        let half = 0.5f64.sqrt();
        assert!((eigen.values[0] - 3.0).abs() < 1e-14);
        assert!(
            (&eigen.vectors.row(0) - &array![half, -half]).iter().all(|d| d.abs() < 1e-14)
                || (&eigen.vectors.row(0) - &array![-half, half]).iter().all(|d| d.abs() < 1e-14)
        );
    }

    #[test]
    fn thread_count_does_not_change_results() {
        let values: Vec<f64> = (0..300).map(|i| f64::from((i * 37) % 230)).collect();
        let eigen = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| symmetric_eigen(with_values(&values), 40).unwrap())
        };
        assert_eq!(eigen(1), eigen(3));
    }

    #[test]
    fn rejects_invalid_arguments() {
        let shape = symmetric_eigen(Array2::zeros((2, 3)), 1);
        assert!(matches!(shape, Err(Error::Shape { .. })));
        for bad in [f64::NAN, f64::INFINITY] {
            let mut a = with_values(&[1.0, 2.0, 3.0]);
            a[(2, 0)] = bad;
            assert_eq!(symmetric_eigen(a, 1), Err(Error::NoConvergence));
        }
        let none = symmetric_eigen(Array2::zeros((0, 0)), 3).unwrap();
        assert!(none.values.is_empty() && none.vectors.is_empty());
    }
}
