//! The written interactions and deletions of users, which apply in addition to the data of the
//! model.

use std::collections::HashMap;
use std::sync::Arc;

use crate::journal::Forgotten;

/// Interactions that were written and users that were deleted, by raw ids. They apply to every
/// model.
#[derive(Debug, Default)]
pub(crate) struct People {
    /// Items that were written for each user, as indices into `names`, in the order of arrival.
    added: HashMap<String, Vec<u32>>,
    numbers: HashMap<Arc<str>, u32>,
    names: Vec<Arc<str>>,
    forgotten: Forgotten,
}

impl People {
    pub(crate) fn new(forgotten: Forgotten) -> Self {
        Self { forgotten, ..Self::default() }
    }

    /// Adds an interaction. A known interaction changes nothing.
    pub(crate) fn add(&mut self, user: &str, item: &str) {
        let number = match self.numbers.get(item) {
            Some(&number) => number,
            None => {
                let (name, number) = (Arc::<str>::from(item), self.names.len() as u32);
                self.names.push(Arc::clone(&name));
                self.numbers.insert(name, number);
                number
            }
        };
        match self.added.get_mut(user) {
            Some(items) if items.contains(&number) => {}
            Some(items) => items.push(number),
            None => drop(self.added.insert(user.to_owned(), vec![number])),
        }
    }

    /// Deletes a user. Later interactions belong to a new user.
    pub(crate) fn forget(&mut self, user: &str) {
        self.added.remove(user);
        self.forgotten.insert(user);
    }

    /// Returns whether the model's data about a user must not be used.
    pub(crate) fn is_forgotten(&self, user: &str) -> bool {
        self.forgotten.contains(user)
    }

    /// Returns the items that were written for a user; `None` if there are none.
    pub(crate) fn items(&self, user: &str) -> Option<impl Iterator<Item = &str>> {
        let items = self.added.get(user)?;
        Some(items.iter().map(|&number| &*self.names[number as usize]))
    }

    /// Iterates over all users with written interactions.
    pub(crate) fn users(&self) -> impl Iterator<Item = &str> {
        self.added.keys().map(String::as_str)
    }

    /// Returns the number of pairs of a user and an item.
    pub(crate) fn interactions(&self) -> usize {
        self.added.values().map(Vec::len).sum()
    }

    /// Returns the number of deleted users.
    pub(crate) fn forgotten(&self) -> usize {
        self.forgotten.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_known_until_the_user_is_deleted() {
        let mut people = People::default();
        for (user, item) in [("ann", "tea"), ("ann", "mug"), ("ann", "tea"), ("ben", "tea")] {
            people.add(user, item);
        }
        let items = |people: &People, user| -> Option<Vec<String>> {
            Some(people.items(user)?.map(str::to_owned).collect())
        };
        assert_eq!(items(&people, "ann").unwrap(), ["tea", "mug"]);
        assert_eq!((people.interactions(), people.users().count()), (3, 2));
        assert!(items(&people, "eve").is_none() && !people.is_forgotten("ann"));
        people.forget("ann");
        assert!(items(&people, "ann").is_none() && people.is_forgotten("ann"));
        people.add("ann", "pot");
        assert_eq!(items(&people, "ann").unwrap(), ["pot"]);
        assert!(people.is_forgotten("ann"));
        assert_eq!(people.forgotten(), 1);
    }
}
