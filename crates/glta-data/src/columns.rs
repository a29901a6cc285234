//! Interactions as columns, one row per interaction.

use crate::interactions::{Repeats, row_offsets};
use crate::{Error, Interactions, Result};

/// Rows of interactions in the order of the file. All columns have the same length.
#[derive(Debug, Default)]
pub(crate) struct Columns {
    pub(crate) users: Vec<u32>,
    pub(crate) items: Vec<u32>,
    pub(crate) ratings: Option<Vec<f32>>,
    pub(crate) timestamps: Option<Vec<i64>>,
}

/// Interactions, with ratings and times in the order of their column indices, and the repeated
/// pairs.
#[derive(Debug)]
pub(crate) struct Grouped {
    pub(crate) interactions: Interactions,
    pub(crate) ratings: Option<Vec<f32>>,
    pub(crate) timestamps: Option<Vec<i64>>,
    pub(crate) repeats: Repeats,
}

impl Columns {
    /// Groups the rows by user and sorts each user's rows by item. If rows repeat a (user, item)
    /// pair, keeps the one with the latest time. Without times, or with equal times, keeps the last
    /// one.
    ///
    /// The function sorts one column after another, and in place if the rows are already grouped by
    /// user, as in MovieLens. Peak memory is therefore little more than the columns.
    pub(crate) fn group(mut self, n_users: usize, n_items: usize) -> Result<Grouped> {
        for (column, got) in [
            ("items", Some(self.items.len())),
            ("ratings", self.ratings.as_ref().map(Vec::len)),
            ("timestamps", self.timestamps.as_ref().map(Vec::len)),
        ] {
            if got.is_some_and(|got| got != self.users.len()) {
                return Err(Error::ColumnLength {
                    column,
                    expected: self.users.len(),
                    got: got.unwrap_or(0),
                });
            }
        }
        if self.ratings.is_none() && self.timestamps.is_none() {
            let (interactions, repeats) =
                Interactions::with_repeats(n_users, n_items, &self.users, &self.items)?;
            return Ok(Grouped { interactions, ratings: None, timestamps: None, repeats });
        }
        if let Some(&id) = self.users.iter().find(|&&u| u as usize >= n_users) {
            return Err(Error::IdOutOfRange { kind: "user", id, len: n_users });
        }
        let mut offsets = row_offsets(n_users, &self.users);
        if !self.users.is_sorted() {
            scatter(&self.users, &offsets, &mut self.items);
            if let Some(ratings) = &mut self.ratings {
                scatter(&self.users, &offsets, ratings);
            }
            if let Some(timestamps) = &mut self.timestamps {
                scatter(&self.users, &offsets, timestamps);
            }
        }
        drop(std::mem::take(&mut self.users));
        let mut row = Row::default();
        let mut repeats = Repeats::default();
        let (mut start, mut kept) = (0, 0);
        for (user, end) in offsets.iter_mut().skip(1).enumerate() {
            row.order(&self.items[start..*end], self.timestamps.as_deref(), start, |item| {
                repeats.add(user, item);
            });
            // The row is copied to scratch memory, so that its kept entries can move to the front.
            apply(&row.order, &mut row.items, &mut self.items, start, kept);
            if let Some(ratings) = &mut self.ratings {
                apply(&row.order, &mut row.ratings, ratings, start, kept);
            }
            if let Some(timestamps) = &mut self.timestamps {
                apply(&row.order, &mut row.timestamps, timestamps, start, kept);
            }
            start = *end;
            kept += row.order.len();
            *end = kept;
        }
        self.items.truncate(kept);
        self.items.shrink_to_fit();
        if let Some(ratings) = &mut self.ratings {
            ratings.truncate(kept);
            ratings.shrink_to_fit();
        }
        if let Some(timestamps) = &mut self.timestamps {
            timestamps.truncate(kept);
            timestamps.shrink_to_fit();
        }
        let interactions = Interactions::from_csr(n_items, offsets, self.items)?;
        let Self { ratings, timestamps, .. } = self;
        Ok(Grouped { interactions, ratings, timestamps, repeats })
    }
}

/// Sorts one column by user with a stable counting sort.
fn scatter<T: Copy + Default>(users: &[u32], offsets: &[usize], column: &mut Vec<T>) {
    let mut next = offsets.to_vec();
    let mut sorted = vec![T::default(); column.len()];
    for (&user, &value) in users.iter().zip(column.iter()) {
        let slot = &mut next[user as usize];
        sorted[*slot] = value;
        *slot += 1;
    }
    *column = sorted;
}

/// Writes the entries `start + order[..]` of a column to `column[kept..]`, where `kept ≤ start`.
fn apply<T: Copy>(
    order: &[u32],
    scratch: &mut Vec<T>,
    column: &mut [T],
    start: usize,
    kept: usize,
) {
    scratch.clear();
    scratch.extend(order.iter().map(|&at| column[start + at as usize]));
    column[kept..kept + scratch.len()].copy_from_slice(scratch);
}

/// Scratch memory for the rows of one user.
#[derive(Default)]
struct Row {
    keys: Vec<u64>,
    /// Positions of the kept rows, sorted by item.
    order: Vec<u32>,
    items: Vec<u32>,
    ratings: Vec<f32>,
    timestamps: Vec<i64>,
}

impl Row {
    fn order(
        &mut self,
        items: &[u32],
        timestamps: Option<&[i64]>,
        start: usize,
        mut repeated: impl FnMut(u32),
    ) {
        self.order.clear();
        self.keys.clear();
        self.keys.extend(
            items.iter().enumerate().map(|(at, &item)| (u64::from(item) << 32) | at as u64),
        );
        if !self.keys.is_sorted() {
            self.keys.sort_unstable();
        }
        let time = |at: u32| timestamps.map_or(0, |t| t[start + at as usize]);
        let mut last_item = None;
        for &key in &self.keys {
            let (item, at) = ((key >> 32) as u32, key as u32);
            match self.order.last_mut() {
                Some(previous) if last_item == Some(item) => {
                    repeated(item);
                    if time(at) >= time(*previous) {
                        *previous = at;
                    }
                }
                _ => self.order.push(at),
            }
            last_item = Some(item);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn keeps_the_latest_of_each_pair(
            rows in prop::collection::vec((0u32..5, 0u32..6, 0u8..10, 0i64..4), 0..60),
            sort in any::<bool>(),
        ) {
            let mut rows = rows;
            if sort {
                rows.sort_by_key(|r| r.0);
            }
            let mut latest: BTreeMap<(u32, u32), (f32, i64)> = BTreeMap::new();
            for &(u, i, r, t) in &rows {
                let slot = latest.entry((u, i)).or_insert((f32::from(r), t));
                if t >= slot.1 {
                    *slot = (f32::from(r), t);
                }
            }
            let columns = Columns {
                users: rows.iter().map(|r| r.0).collect(),
                items: rows.iter().map(|r| r.1).collect(),
                ratings: Some(rows.iter().map(|r| f32::from(r.2)).collect()),
                timestamps: Some(rows.iter().map(|r| r.3).collect()),
            };
            let n_rows = rows.len();
            let grouped = columns.group(5, 6).unwrap();
            prop_assert_eq!(grouped.repeats.count as usize, n_rows - latest.len());
            let got: Vec<_> = grouped
                .interactions
                .iter()
                .zip(grouped.ratings.unwrap().into_iter().zip(grouped.timestamps.unwrap()))
                .collect();
            prop_assert_eq!(got, latest.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn unequal_columns_and_wide_ids() {
        let columns = |users: &[u32], ratings: &[f32]| Columns {
            users: users.to_vec(),
            items: vec![0, 1],
            ratings: Some(ratings.to_vec()),
            timestamps: None,
        };
        assert!(columns(&[0, 0], &[1.0]).group(1, 2).is_err());
        assert!(columns(&[0], &[1.0]).group(1, 2).is_err());
        assert!(columns(&[0, 1], &[1.0, 1.0]).group(1, 2).is_err());
        assert!(columns(&[0, 0], &[1.0, 1.0]).group(1, 1).is_err());
        assert!(columns(&[0, 0], &[1.0, 1.0]).group(1, 2).is_ok());
    }
}
