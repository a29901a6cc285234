//! Finds the nearest items by text.

pub(crate) mod clusters;

use glta_core::{Progress, Silent};
use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, Axis, s};

use crate::keep::Best;
use crate::progress::Reporter;
use crate::ranges::in_ranges;
use crate::sparse::{Piece, SparseRows};
use crate::{Error, LinearStage, LinearStep, Result, TextVectors};

/// Number of items above which each item is compared only with the items of the nearest clusters.
pub(crate) const EXACT_ITEMS: usize = 40_000;

/// The nearest items of each item by the cosine of their text vectors.
///
/// With at most 40,000 items, all pairs are compared. With more, items are grouped into `2√items`
/// clusters, and each item is compared with the items of the 24 nearest clusters.
///
/// ```
/// use glta_linear::{TextNeighbours, TextVectors};
/// use ndarray::array;
///
/// let vectors = TextVectors::new(array![[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])?;
/// let near = TextNeighbours::find(&vectors, 1)?;
/// let (item, cosine) = near.of(0).next().unwrap();
/// assert_eq!(item, 1);
/// assert!((cosine - 0.8).abs() < 1e-6);
/// # Ok::<(), glta_linear::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct TextNeighbours {
    /// The neighbours of item `j` in row `j`, in ascending order, with their cosines, which are
    /// positive.
    pub(crate) rows: SparseRows,
}

impl TextNeighbours {
    /// Finds the `most` nearest items of each item among those with a positive cosine. Items
    /// without a text have no neighbours. If cosines are equal, the item with the lower id is kept.
    ///
    /// # Errors
    /// Returns [`Error::Config`] if `most` is 0.
    pub fn find(vectors: &TextVectors, most: usize) -> Result<Self> {
        Self::find_with(vectors, most, &mut Silent)
    }

    /// Finds neighbours like [`find`](Self::find) and reports the number of finished items.
    ///
    /// # Errors
    /// Returns the errors of [`find`](Self::find), and [`Error::Cancelled`].
    pub fn find_with(
        vectors: &TextVectors,
        most: usize,
        progress: &mut dyn Progress<LinearStep>,
    ) -> Result<Self> {
        Self::find_above(vectors, most, EXACT_ITEMS, progress)
    }

    fn find_above(
        vectors: &TextVectors,
        most: usize,
        exact: usize,
        progress: &mut dyn Progress<LinearStep>,
    ) -> Result<Self> {
        if most == 0 {
            let problem = "must be at least 1".into();
            return Err(Error::Config { system: "text neighbours", field: "most", problem });
        }
        let total = vectors.n_items() as u64;
        let mut reporter = Reporter::new(progress);
        let advance =
            &mut |done: usize| reporter.stage(LinearStage::TextNeighbours, done as u64, total);
        advance(0)?;
        if vectors.n_items() > exact {
            return Ok(Self { rows: clusters::find(vectors, most, advance)? });
        }
        let unit = vectors.unit();
        let all: Vec<u32> = (0..unit.nrows() as u32).collect();
        let mut rows = SparseRows::new();
        in_ranges(
            unit.nrows(),
            || (Array2::<f32>::zeros((0, 0)), Best::new(most)),
            |(block, best), range| {
                let targets = unit.slice(s![range.clone(), ..]);
                if block.dim() != (targets.nrows(), unit.nrows()) {
                    *block = Array2::zeros((targets.nrows(), unit.nrows()));
                }
                general_mat_mul(1.0, &targets, &unit.t(), 0.0, block);
                let mut piece = Piece::default();
                for (item, cosines) in range.zip(block.axis_iter(Axis(0))) {
                    best.offer(&all, cosines.to_slice().unwrap_or_default(), item as u32);
                    piece.push(best.take());
                }
                Ok(piece)
            },
            |piece| rows.push(&piece),
            advance,
        )?;
        Ok(Self { rows })
    }

    /// Returns the number of items.
    pub fn n_items(&self) -> usize {
        self.rows.n_rows()
    }

    /// Returns the neighbours of an item by ascending id, each with its cosine; empty for an
    /// unknown item.
    pub fn of(&self, item: u32) -> impl Iterator<Item = (u32, f32)> + '_ {
        let known = (item as usize) < self.n_items();
        let (items, cosines) =
            if known { self.rows.row(item as usize) } else { (&[][..], &[][..]) };
        items.iter().copied().zip(cosines.iter().copied())
    }

    /// Returns `cosᵖᵒʷᵉʳ` by source: row `i` contains the items with `i` among their neighbours.
    pub(crate) fn by_source(&self, power: i32) -> SparseRows {
        self.rows.transpose().map(|cosine| cosine.powi(power))
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;

    /// Creates vectors of items in 30 groups; every 50th item has no text.
    fn vectors(items: usize) -> TextVectors {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(4);
        let mut vectors = Array2::from_shape_fn((items, 24), |(item, c)| {
            let centre = if (item % 30) % 24 == c { 1.0 } else { 0.0 };
            centre + random.random_range(-0.25f32..0.25)
        });
        for item in (0..items).step_by(50) {
            vectors.row_mut(item).fill(0.0);
        }
        TextVectors::new(vectors).unwrap()
    }

    #[test]
    fn clusters_of_vectors_of_one_dimension() {
        let vectors = Array2::from_shape_fn((300, 1), |(item, _)| (item % 3) as f32 - 1.0);
        let vectors = TextVectors::new(vectors).unwrap();
        let near = TextNeighbours::find_above(&vectors, 5, 0, &mut Silent).unwrap();
        for item in 0..300 {
            let found: Vec<(u32, f32)> = near.of(item).collect();
            assert_eq!(found.len(), if item % 3 == 1 { 0 } else { 5 });
            let same = |&(other, cosine): &(u32, f32)| other % 3 == item % 3 && cosine == 1.0;
            assert!(found.iter().all(same), "{item}: {found:?}");
        }
    }

    #[test]
    fn clusters_find_nearly_all_nearest_items() {
        let vectors = vectors(3_000);
        let exact = TextNeighbours::find(&vectors, 10).unwrap();
        let clusters = TextNeighbours::find_above(&vectors, 10, 0, &mut Silent).unwrap();
        let (mut found, mut all) = (0, 0);
        for item in 0..3_000 {
            let got: Vec<u32> = clusters.of(item).map(|(other, _)| other).collect();
            assert!(!got.contains(&item) && got.is_sorted());
            found += exact.of(item).filter(|(other, _)| got.contains(other)).count();
            all += exact.of(item).count();
            if item % 50 == 0 {
                assert_eq!((exact.of(item).count(), got.len()), (0, 0));
            }
        }
        assert!(found as f64 > 0.95 * all as f64, "{found} of {all}");
    }

    #[test]
    fn the_result_does_not_depend_on_threads() {
        let vectors = vectors(1_500);
        let find = |threads: usize, exact: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| TextNeighbours::find_above(&vectors, 7, exact, &mut Silent).unwrap())
        };
        for exact in [0, 10_000] {
            assert_eq!(find(1, exact), find(3, exact));
        }
    }

    #[test]
    fn odd_vectors_have_no_neighbours() {
        for rows in [0, 1, 3] {
            let none = TextVectors::new(Array2::zeros((rows, 2))).unwrap();
            for exact in [0, 10] {
                let near = TextNeighbours::find_above(&none, 2, exact, &mut Silent).unwrap();
                assert_eq!(near.n_items(), rows);
                assert!((0..4).all(|item| near.of(item).next().is_none()));
            }
        }
        assert!(TextNeighbours::find(&vectors(3), 0).is_err());
    }
}
