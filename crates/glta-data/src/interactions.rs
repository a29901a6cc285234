use crate::{Error, Result};

/// Which items each user interacted with: a binary `(users, items)` matrix in
/// compressed sparse rows.
///
/// Rows are sorted by item id and hold no item twice.
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
    offsets: Vec<usize>,
    items: Vec<u32>,
}

impl Interactions {
    /// Builds the matrix from `(user, item)` pairs in any order; repeated pairs
    /// count once.
    ///
    /// # Errors
    /// An id outside `0..n_users` or `0..n_items`, or counts over `u32::MAX`.
    pub fn from_pairs(
        n_users: usize,
        n_items: usize,
        pairs: impl IntoIterator<Item = (u32, u32)>,
    ) -> Result<Self> {
        for (kind, len) in [("user", n_users), ("item", n_items)] {
            if u32::try_from(len).is_err() {
                return Err(Error::TooMany { kind, len });
            }
        }
        let mut pairs: Vec<(u32, u32)> = pairs.into_iter().collect();
        for &(user, item) in &pairs {
            for (kind, id, len) in [("user", user, n_users), ("item", item, n_items)] {
                if id as usize >= len {
                    return Err(Error::IdOutOfRange { kind, id, len });
                }
            }
        }
        pairs.sort_unstable();
        pairs.dedup();
        let mut offsets = vec![0usize; n_users + 1];
        for &(user, _) in &pairs {
            offsets[user as usize + 1] += 1;
        }
        for u in 0..n_users {
            offsets[u + 1] += offsets[u];
        }
        let items = pairs.into_iter().map(|(_, item)| item).collect();
        Ok(Self {
            n_items,
            offsets,
            items,
        })
    }

    /// A matrix without interactions.
    ///
    /// # Errors
    /// Counts over `u32::MAX`.
    pub fn empty(n_users: usize, n_items: usize) -> Result<Self> {
        Self::from_pairs(n_users, n_items, [])
    }

    /// Number of users (rows), those without interactions included.
    pub fn n_users(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Number of items (columns), those without interactions included.
    pub fn n_items(&self) -> usize {
        self.n_items
    }

    /// Number of interactions (non-zeros).
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is no interaction at all.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The items of `user`, ascending; empty for a user outside the matrix.
    pub fn items(&self, user: u32) -> &[u32] {
        let user = user as usize;
        if user >= self.n_users() {
            return &[];
        }
        &self.items[self.offsets[user]..self.offsets[user + 1]]
    }

    /// Whether `user` interacted with `item`.
    pub fn contains(&self, user: u32, item: u32) -> bool {
        self.items(user).binary_search(&item).is_ok()
    }

    /// All pairs, by user and then by item.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        (0..self.n_users() as u32).flat_map(|u| self.items(u).iter().map(move |&i| (u, i)))
    }

    /// Row offsets, `n_users + 1` of them, into [`column_indices`](Self::column_indices).
    pub fn offsets(&self) -> &[usize] {
        &self.offsets
    }

    /// The item ids of all rows one after the other.
    pub fn column_indices(&self) -> &[u32] {
        &self.items
    }

    /// How many users interacted with each item: `(items,)`.
    pub fn item_degrees(&self) -> Vec<u32> {
        let mut degrees = vec![0; self.n_items];
        for &item in &self.items {
            degrees[item as usize] += 1;
        }
        degrees
    }

    /// The `(items, users)` matrix: which users each item has.
    pub fn transpose(&self) -> Self {
        let mut offsets = vec![0usize; self.n_items + 1];
        for &item in &self.items {
            offsets[item as usize + 1] += 1;
        }
        for i in 0..self.n_items {
            offsets[i + 1] += offsets[i];
        }
        let mut next = offsets.clone();
        let mut users = vec![0; self.items.len()];
        for (user, item) in self.iter() {
            let slot = &mut next[item as usize];
            users[*slot] = user;
            *slot += 1;
        }
        Self {
            n_items: self.n_users(),
            offsets,
            items: users,
        }
    }

    /// Interactions that are in either matrix.
    ///
    /// # Errors
    /// [`Error::IdOutOfRange`] when `other` is larger than `self`.
    pub fn union(&self, other: &Self) -> Result<Self> {
        Self::from_pairs(
            self.n_users(),
            self.n_items,
            self.iter().chain(other.iter()),
        )
    }
}
