use std::collections::HashSet;

use sha2::{Digest, Sha256};

/// Salted hash of a deleted user's id. The id itself is not kept.
pub(crate) type Person = [u8; 32];

/// The set of deleted users.
#[derive(Debug, Clone, Default)]
pub(crate) struct Forgotten {
    salt: Vec<u8>,
    people: HashSet<Person>,
}

impl Forgotten {
    pub(crate) fn new(salt: Vec<u8>, people: impl IntoIterator<Item = Person>) -> Self {
        Self { salt, people: people.into_iter().collect() }
    }

    /// Returns the hash of a raw user id.
    pub(crate) fn person(&self, user: &str) -> Person {
        let mut hash = Sha256::new();
        hash.update(&self.salt);
        hash.update(user.as_bytes());
        hash.finalize().into()
    }

    pub(crate) fn contains(&self, user: &str) -> bool {
        !self.people.is_empty() && self.people.contains(&self.person(user))
    }

    pub(crate) fn insert(&mut self, user: &str) {
        self.people.insert(self.person(user));
    }

    pub(crate) fn extend(&mut self, people: impl IntoIterator<Item = Person>) {
        self.people.extend(people);
    }

    pub(crate) fn len(&self) -> usize {
        self.people.len()
    }
}
