use std::sync::Arc;

use crate::report::EXAMPLES;
use crate::{Error, Result};

/// The items of each user, a binary `(users, items)` matrix in compressed sparse rows.
///
/// Rows are sorted by item id and have no repeated items. A clone shares the memory of its original
/// and takes constant time, so several parts of a program can own the same training data.
///
/// ```
/// use glta_data::Interactions;
///
/// let seen = Interactions::from_pairs(2, 3, [(1, 2), (0, 1), (1, 0), (1, 2)])?;
/// assert_eq!(seen.items(1), [0, 2]);
/// assert_eq!(seen.len(), 3);
/// assert!(seen.contains(0, 1));
/// # Ok::<(), glta_data::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interactions {
    n_items: usize,
    offsets: Arc<Vec<usize>>,
    items: Arc<Vec<u32>>,
}

impl Interactions {
    /// Creates the matrix from `(user, item)` pairs in any order. Repeated pairs count once.
    ///
    /// The function needs 8 bytes per pair while it reads and 4 more while it sorts.
    ///
    /// # Errors
    /// Returns an error if an id is outside `0..n_users` or `0..n_items`, or if one of these counts
    /// exceeds `u32::MAX`.
    pub fn from_pairs(
        n_users: usize,
        n_items: usize,
        pairs: impl IntoIterator<Item = (u32, u32)>,
    ) -> Result<Self> {
        let (users, items): (Vec<u32>, Vec<u32>) = pairs.into_iter().unzip();
        Self::from_columns(n_users, n_items, &users, &items)
    }

    /// Creates the matrix from two columns in any order: `users[k]` interacted with `items[k]`.
    /// Repeated pairs count once.
    ///
    /// The function allocates only the result. It uses a counting sort by user and a sort within
    /// each row.
    ///
    /// # Errors
    /// Returns an error if the columns have different lengths, if an id is outside `0..n_users` or
    /// `0..n_items`, or if one of these counts exceeds `u32::MAX`.
    pub fn from_columns(
        n_users: usize,
        n_items: usize,
        users: &[u32],
        items: &[u32],
    ) -> Result<Self> {
        Self::with_repeats(n_users, n_items, users, items).map(|(matrix, _)| matrix)
    }

    /// Creates the matrix like [`from_columns`](Self::from_columns), and also returns the repeated
    /// pairs.
    pub(crate) fn with_repeats(
        n_users: usize,
        n_items: usize,
        users: &[u32],
        items: &[u32],
    ) -> Result<(Self, Repeats)> {
        check_counts(n_users, n_items)?;
        if users.len() != items.len() {
            return Err(Error::ColumnLength {
                column: "items",
                expected: users.len(),
                got: items.len(),
            });
        }
        check_ids("user", users, n_users)?;
        check_ids("item", items, n_items)?;
        let mut offsets = row_offsets(n_users, users);
        let mut columns = vec![0; items.len()];
        // The loop moves offsets[u] from the start of row u to its end, which is the start of row u
        // + 1. A shift by one position restores the offsets.
        for (&user, &item) in users.iter().zip(items) {
            let next = &mut offsets[user as usize];
            columns[*next] = item;
            *next += 1;
        }
        offsets.rotate_right(1);
        offsets[0] = 0;
        let repeats = sort_rows(&mut offsets, &mut columns);
        Ok((Self::from_csr_unchecked(n_items, offsets, columns), repeats))
    }

    /// Creates the matrix from compressed sparse rows. `offsets` has `n_users + 1` entries from 0
    /// to `items.len()`, and the items of each row are strictly ascending.
    ///
    /// # Errors
    /// Returns [`Error::BadCsr`] with the first problem, and an error if an item is outside
    /// `0..n_items` or a count exceeds `u32::MAX`.
    pub fn from_csr(n_items: usize, offsets: Vec<usize>, items: Vec<u32>) -> Result<Self> {
        let bad = |problem: String| Err(Error::BadCsr(problem));
        if offsets.first() != Some(&0) || offsets.last() != Some(&items.len()) {
            return bad(format!(
                "offsets must start at 0 and end at the number of entries, {}",
                items.len()
            ));
        }
        check_counts(offsets.len() - 1, n_items)?;
        for (user, ends) in offsets.windows(2).enumerate() {
            if ends[0] > ends[1] || ends[1] > items.len() {
                return bad(format!("the offsets decrease at row {user}"));
            }
            if items[ends[0]..ends[1]].windows(2).any(|w| w[0] >= w[1]) {
                return bad(format!("row {user} is not strictly ascending"));
            }
        }
        check_ids("item", &items, n_items)?;
        Ok(Self::from_csr_unchecked(n_items, offsets, items))
    }

    /// Creates the matrix from rows that are known to be valid.
    pub(crate) fn from_csr_unchecked(n_items: usize, offsets: Vec<usize>, items: Vec<u32>) -> Self {
        debug_assert_eq!(offsets.last(), Some(&items.len()));
        Self { n_items, offsets: Arc::new(offsets), items: Arc::new(items) }
    }

    /// Creates a matrix without interactions.
    ///
    /// # Errors
    /// Returns an error if a count exceeds `u32::MAX`.
    pub fn empty(n_users: usize, n_items: usize) -> Result<Self> {
        Self::from_pairs(n_users, n_items, [])
    }

    /// Returns the number of users (rows), including users without interactions.
    pub fn n_users(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Returns the number of items (columns), including items without interactions.
    pub fn n_items(&self) -> usize {
        self.n_items
    }

    /// Returns the number of interactions (non-zeros).
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Returns whether there are no interactions.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Returns the items of `user` in ascending order, and an empty slice for an unknown user.
    pub fn items(&self, user: u32) -> &[u32] {
        let user = user as usize;
        if user >= self.n_users() {
            return &[];
        }
        &self.items[self.offsets[user]..self.offsets[user + 1]]
    }

    /// Returns whether `user` interacted with `item`.
    pub fn contains(&self, user: u32, item: u32) -> bool {
        self.items(user).binary_search(&item).is_ok()
    }

    /// Returns all pairs, sorted by user and then by item.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        (0..self.n_users() as u32).flat_map(|u| self.items(u).iter().map(move |&i| (u, i)))
    }

    /// Returns the `n_users + 1` row offsets into [`column_indices`](Self::column_indices).
    pub fn offsets(&self) -> &[usize] {
        &self.offsets
    }

    /// Returns the item ids of all rows, concatenated.
    pub fn column_indices(&self) -> &[u32] {
        &self.items
    }

    /// Returns the number of users of each item, `(items,)`.
    pub fn item_degrees(&self) -> Vec<u32> {
        let mut degrees = vec![0; self.n_items];
        for &item in self.items.iter() {
            degrees[item as usize] += 1;
        }
        degrees
    }

    /// Returns the `(items, users)` matrix, with the users of each item.
    pub fn transpose(&self) -> Self {
        let offsets = row_offsets(self.n_items, &self.items);
        let mut next = offsets.clone();
        let mut users = vec![0; self.items.len()];
        for (user, item) in self.iter() {
            let slot = &mut next[item as usize];
            users[*slot] = user;
            *slot += 1;
        }
        Self::from_csr_unchecked(self.n_users(), offsets, users)
    }

    /// Returns the interactions for which `keep(user, item)` returns true. The ids do not change.
    pub fn filter(&self, mut keep: impl FnMut(u32, u32) -> bool) -> Self {
        let mut offsets = Vec::with_capacity(self.offsets.len());
        let mut items = Vec::new();
        offsets.push(0);
        for user in 0..self.n_users() as u32 {
            items.extend(self.items(user).iter().filter(|&&item| keep(user, item)));
            offsets.push(items.len());
        }
        Self::from_csr_unchecked(self.n_items, offsets, items)
    }

    /// Returns the interactions of both matrices.
    ///
    /// # Errors
    /// Returns [`Error::IdOutOfRange`] if `other` has an id that `self` lacks.
    pub fn union(&self, other: &Self) -> Result<Self> {
        Self::from_pairs(self.n_users(), self.n_items, self.iter().chain(other.iter()))
    }
}

/// Repeated (user, item) pairs.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Repeats {
    /// Number of rows beyond the first row of each pair.
    pub(crate) count: u64,
    /// First few repeated pairs, for the report.
    pub(crate) examples: Vec<(u32, u32)>,
}

impl Repeats {
    #[cold]
    pub(crate) fn add(&mut self, user: usize, item: u32) {
        self.count += 1;
        let pair = (user as u32, item);
        if self.examples.len() < EXAMPLES && self.examples.last() != Some(&pair) {
            self.examples.push(pair);
        }
    }
}

/// Sorts every row and removes repeated items. Returns the repeated pairs.
fn sort_rows(offsets: &mut [usize], items: &mut Vec<u32>) -> Repeats {
    let mut repeats = Repeats::default();
    let (mut start, mut kept) = (0, 0);
    for (user, end) in offsets[1..].iter_mut().enumerate() {
        let row = start..*end;
        start = *end;
        if items[row.clone()].windows(2).any(|w| w[0] >= w[1]) {
            items[row.clone()].sort_unstable();
        }
        let first = kept;
        for k in row {
            let item = items[k];
            if kept == first || items[kept - 1] != item {
                items[kept] = item;
                kept += 1;
            } else {
                repeats.add(user, item);
            }
        }
        *end = kept;
    }
    if kept < items.len() {
        items.truncate(kept);
        items.shrink_to_fit();
    }
    repeats
}

fn check_counts(n_users: usize, n_items: usize) -> Result<()> {
    for (kind, len) in [("user", n_users), ("item", n_items)] {
        if u32::try_from(len).is_err() {
            return Err(Error::TooMany { kind, len });
        }
    }
    Ok(())
}

fn check_ids(kind: &'static str, ids: &[u32], len: usize) -> Result<()> {
    // The maximum is vectorised. The position is only needed for the message.
    if ids.iter().max().is_none_or(|&id| (id as usize) < len) {
        return Ok(());
    }
    let id = ids.iter().copied().find(|&id| id as usize >= len);
    Err(Error::IdOutOfRange { kind, id: id.unwrap_or_default(), len })
}

/// Returns the row offsets, `(n + 1,)`, of a matrix with `n` rows whose entry `k` is in row
/// `keys[k]`.
pub(crate) fn row_offsets(n: usize, keys: &[u32]) -> Vec<usize> {
    let mut offsets = vec![0; n + 1];
    for &key in keys {
        offsets[key as usize + 1] += 1;
    }
    for row in 0..n {
        offsets[row + 1] += offsets[row];
    }
    offsets
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn clones_share_memory() {
        let one = Interactions::from_pairs(2, 3, [(0, 1), (1, 2)]).unwrap();
        let other = one.clone();
        assert!(std::ptr::eq(one.column_indices(), other.column_indices()));
        assert!(std::ptr::eq(one.offsets(), other.offsets()));
    }

    proptest! {
        #[test]
        fn the_matrix_is_the_set_of_its_pairs(
            pairs in prop::collection::vec((0u32..7, 0u32..9), 0..80)
        ) {
            let matrix = Interactions::from_pairs(7, 9, pairs.iter().copied()).unwrap();
            let set: BTreeSet<(u32, u32)> = pairs.into_iter().collect();
            prop_assert_eq!(matrix.iter().collect::<Vec<_>>(), set.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(matrix.len(), set.len());
            for u in 0..8 {
                for i in 0..10 {
                    prop_assert_eq!(matrix.contains(u, i), set.contains(&(u, i)));
                }
            }
            let turned: BTreeSet<(u32, u32)> = set.iter().map(|&(u, i)| (i, u)).collect();
            prop_assert_eq!(matrix.transpose().iter().collect::<BTreeSet<_>>(), turned);
            prop_assert_eq!(&matrix.transpose().transpose(), &matrix);
            let rebuilt = Interactions::from_csr(
                9, matrix.offsets().to_vec(), matrix.column_indices().to_vec());
            prop_assert_eq!(rebuilt.unwrap(), matrix.clone());
            let even = matrix.filter(|u, i| (u + i) % 2 == 0);
            let odd = matrix.filter(|u, i| (u + i) % 2 == 1);
            prop_assert_eq!(even.union(&odd).unwrap(), matrix);
        }
    }

    #[test]
    fn ids_out_of_range_are_rejected() {
        let error = Interactions::from_pairs(2, 3, [(0, 0), (2, 0)]).unwrap_err();
        assert_eq!(error.to_string(), "user id 2 is out of range: there are 2 users (ids 0..2)");
        assert!(Interactions::from_pairs(2, 3, [(0, 3)]).is_err());
        assert!(Interactions::from_columns(2, 3, &[0, 1], &[0]).is_err());
        assert!(Interactions::from_pairs(1 << 33, 3, []).is_err());
    }

    #[test]
    fn invalid_csr_is_rejected() {
        for (offsets, items) in [
            (vec![], vec![]),
            (vec![0, 1], vec![]),
            (vec![0, 2, 1, 3], vec![0, 1, 2]),
            (vec![0, 5, 3], vec![0, 1, 2]),
            (vec![0, 2], vec![1, 1]),
            (vec![0, 2], vec![1, 0]),
            (vec![0, 1], vec![3]),
        ] {
            assert!(Interactions::from_csr(3, offsets, items).is_err());
        }
    }
}
