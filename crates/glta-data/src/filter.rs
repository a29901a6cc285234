use crate::report::FilterReport;
use crate::{Dataset, Error, Interactions, Item, Result};

impl Dataset {
    /// Keeps the interactions with a rating of at least `threshold`, and removes users and items
    /// without interactions.
    ///
    /// # Errors
    /// Returns [`Error::MissingColumn`] if the data set has no ratings.
    pub fn min_rating(self, threshold: f32) -> Result<Self> {
        let Some(ratings) = &self.ratings else {
            return Err(Error::MissingColumn {
                dataset: self.name,
                column: "ratings",
                needed_by: "a minimum rating",
            });
        };
        let keep = ratings.iter().map(|&r| r >= threshold).collect::<Vec<_>>();
        let before = self.sizes();
        let kept = self.retain(&keep).without_empty();
        Ok(kept.filtered(format!("min_rating({threshold})"), before))
    }

    /// Removes users with fewer than `k_user` items and items with fewer than `k_item` users,
    /// repeatedly, until all remaining users and items have enough.
    ///
    /// The result is the largest part of the data with this property, whatever the order of
    /// removals. `k_core(1, 1)` is [`drop_empty`](Self::drop_empty).
    pub fn k_core(self, k_user: usize, k_item: usize) -> Self {
        let before = self.sizes();
        let by_user = &self.interactions;
        let by_item = by_user.transpose();
        let (n_users, n_items) = (self.n_users(), self.n_items());
        // Nodes are users, then items. A node enters the queue when its degree falls below its k.
        // Its edges are then removed.
        let need = |node: usize| if node < n_users { k_user } else { k_item };
        let mut degree: Vec<usize> = (0..n_users as u32)
            .map(|u| by_user.items(u).len())
            .chain((0..n_items as u32).map(|i| by_item.items(i).len()))
            .collect();
        let mut gone: Vec<bool> = (0..degree.len()).map(|n| degree[n] < need(n)).collect();
        let mut queue: Vec<usize> = (0..degree.len()).filter(|&n| gone[n]).collect();
        while let Some(node) = queue.pop() {
            let (neighbours, base) = match node.checked_sub(n_users) {
                None => (by_user.items(node as u32), n_users),
                Some(item) => (by_item.items(item as u32), 0),
            };
            for &neighbour in neighbours {
                let neighbour = base + neighbour as usize;
                if !gone[neighbour] {
                    degree[neighbour] -= 1;
                    if degree[neighbour] < need(neighbour) {
                        gone[neighbour] = true;
                        queue.push(neighbour);
                    }
                }
            }
        }
        let keep: Vec<bool> =
            by_user.iter().map(|(u, i)| !gone[u as usize] && !gone[n_users + i as usize]).collect();
        let core = self.retain(&keep).without_empty();
        core.filtered(format!("k_core({k_user}, {k_item})"), before)
    }

    /// Keeps the items for which `keep` returns true, and removes users without interactions.
    pub fn retain_items(self, keep: impl Fn(&Item) -> bool) -> Self {
        let kept: Vec<bool> = self.items.iter().map(keep).collect();
        let rows: Vec<bool> =
            self.interactions.column_indices().iter().map(|&item| kept[item as usize]).collect();
        let users: Vec<bool> = vec![true; self.n_users()];
        let before = self.sizes();
        let kept = self.retain(&rows).renumber(&users, &kept).drop_empty_users();
        kept.filtered("retain_items".into(), before)
    }

    /// Removes users and items without interactions. The other users and items keep their order.
    pub fn drop_empty(self) -> Self {
        let before = self.sizes();
        self.without_empty().filtered("drop_empty".into(), before)
    }

    /// Returns the numbers of users, items and interactions.
    fn sizes(&self) -> [usize; 3] {
        [self.n_users(), self.n_items(), self.interactions.len()]
    }

    /// Adds a filter to the report.
    fn filtered(mut self, rule: String, before: [usize; 3]) -> Self {
        let after = self.sizes();
        let textless = self.items.iter().filter(|item| item.is_textless()).count();
        let [users, items, interactions] =
            [0, 1, 2].map(|n| format!("{} of {}", after[n], before[n]));
        let texts = match textless {
            0 => String::new(),
            textless => format!("; {textless} of {} items have no text", after[1]),
        };
        tracing::info!(
            "{}: {rule} keeps {users} users, {items} items, {interactions} interactions{texts}",
            self.name
        );
        self.report.filters.push(FilterReport { rule, before, after });
        self
    }

    fn without_empty(self) -> Self {
        let items: Vec<bool> = self.interactions.item_degrees().iter().map(|&d| d > 0).collect();
        let users: Vec<bool> =
            (0..self.n_users() as u32).map(|u| !self.interactions.items(u).is_empty()).collect();
        self.renumber(&users, &items)
    }

    fn drop_empty_users(self) -> Self {
        let users: Vec<bool> =
            (0..self.n_users() as u32).map(|u| !self.interactions.items(u).is_empty()).collect();
        let items = vec![true; self.n_items()];
        self.renumber(&users, &items)
    }

    /// Keeps interaction `k` if `keep[k]` is true. Users and items do not change.
    fn retain(mut self, keep: &[bool]) -> Self {
        let mut at = 0;
        self.interactions = self.interactions.filter(|_, _| {
            at += 1;
            keep[at - 1]
        });
        if let Some(ratings) = &mut self.ratings {
            retain_where(ratings, keep);
        }
        if let Some(timestamps) = &mut self.timestamps {
            retain_where(timestamps, keep);
        }
        self
    }

    /// Keeps the users and items whose entry is true, and renumbers them. Call this only if the
    /// removed users and items have no interactions.
    fn renumber(mut self, users: &[bool], items: &[bool]) -> Self {
        let mut next = 0;
        let new_item: Vec<u32> = items
            .iter()
            .map(|&kept| {
                next += u32::from(kept);
                next.wrapping_sub(1)
            })
            .collect();
        let mut offsets = vec![0];
        for (user, _) in users.iter().enumerate().filter(|(_, kept)| **kept) {
            offsets.push(self.interactions.offsets()[user + 1]);
        }
        let columns = self
            .interactions
            .column_indices()
            .iter()
            .map(|&item| new_item[item as usize])
            .collect();
        retain_where(&mut self.users, users);
        retain_where(&mut self.items, items);
        // The order does not change and removed ids have no entries, so the rows stay valid.
        self.interactions = Interactions::from_csr_unchecked(self.items.len(), offsets, columns);
        self
    }
}

fn retain_where<T>(values: &mut Vec<T>, keep: &[bool]) {
    let mut at = 0;
    values.retain(|_| {
        at += 1;
        keep[at - 1]
    });
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::Interaction;

    fn dataset(rows: &[(u8, u8, u8)]) -> Dataset {
        let names: Vec<(String, String)> =
            rows.iter().map(|(u, i, _)| (format!("u{u}"), format!("i{i}"))).collect();
        let interactions = names.iter().zip(rows).map(|((user, item), &(_, _, r))| Interaction {
            user,
            item,
            rating: Some(f32::from(r)),
            timestamp: None,
        });
        Dataset::from_interactions("d", interactions, vec![Item::titled("i0", "zero")]).unwrap()
    }

    /// Returns the raw ids and the rating of every interaction.
    fn rows(data: &Dataset) -> BTreeSet<(String, String, u8)> {
        data.interactions()
            .iter()
            .zip(data.ratings().unwrap())
            .map(|((u, i), &r)| {
                (data.users()[u as usize].clone(), data.items()[i as usize].raw_id.clone(), r as u8)
            })
            .collect()
    }

    proptest! {
        #[test]
        fn k_core_is_the_fixed_point_of_removals(
            raw in prop::collection::vec((0u8..8, 0u8..8, 0u8..5), 0..50),
            k_user in 0usize..5,
            k_item in 0usize..5,
        ) {
            let data = dataset(&raw);
            let mut left = rows(&data);
            loop {
                let before = left.len();
                let snapshot = left.clone();
                let users = |u: &str| snapshot.iter().filter(|r| r.0 == u).count();
                let items = |i: &str| snapshot.iter().filter(|r| r.1 == i).count();
                left.retain(|(u, i, _)| users(u) >= k_user && items(i) >= k_item);
                if left.len() == before {
                    break;
                }
            }
            let core = data.k_core(k_user, k_item);
            prop_assert_eq!(rows(&core), left);
            prop_assert!((0..core.n_users() as u32).all(|u| !core.interactions().items(u).is_empty()));
            prop_assert!(core.interactions().item_degrees().iter().all(|&d| d > 0));
        }

        #[test]
        fn min_rating_keeps_the_high_ones(
            raw in prop::collection::vec((0u8..8, 0u8..8, 0u8..5), 0..50),
        ) {
            let data = dataset(&raw);
            let expected: BTreeSet<_> = rows(&data).into_iter().filter(|r| r.2 >= 3).collect();
            prop_assert_eq!(rows(&data.min_rating(3.0).unwrap()), expected);
        }

        #[test]
        fn retain_items_drops_their_rows(
            raw in prop::collection::vec((0u8..8, 0u8..8, 0u8..5), 0..50),
        ) {
            let data = dataset(&raw);
            let expected: BTreeSet<_> = rows(&data).into_iter().filter(|r| r.1 == "i0").collect();
            let kept = data.retain_items(|item| !item.is_textless());
            prop_assert_eq!(kept.n_items(), 1);
            prop_assert_eq!(kept.n_users(), expected.len());
            prop_assert_eq!(rows(&kept), expected);
        }
    }

    #[test]
    fn min_rating_needs_ratings() {
        let data = Dataset::from_interactions("d", [Interaction::new("a", "x")], vec![]).unwrap();
        let error = data.min_rating(3.0).unwrap_err();
        assert!(error.to_string().contains("has no ratings"), "{error}");
    }
}
