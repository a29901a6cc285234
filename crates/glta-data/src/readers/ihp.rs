use std::path::Path;

use super::input::Source;
use super::json::{Entries, RawId, whole};
use super::pairs::finish_split;
use crate::dataset::Collector;
use crate::{Dataset, Error, Result, Split};

/// Reads the split of IHP (Yang et al., SIGIR 2024) from `user_history_train.json` and
/// `user_history_test.json` in one folder, plain or gzipped. Each file contains a JSON object that
/// maps a user to a list of item ids. The items have no texts.
///
/// # Errors
/// Returns an error if a file is missing or unreadable, if its JSON has a different structure, or
/// if there are no interactions.
pub fn ihp(path: impl AsRef<Path>) -> Result<(Dataset, Split)> {
    let source = Source::open(path.as_ref())?;
    let mut collector = Collector::new(false, false);
    let mut n_train = 0;
    for file in ["user_history_train.json", "user_history_test.json"] {
        n_train = collector.columns.users.len();
        let users: Entries<Vec<RawId>> = source.read(file, whole)?;
        for (user, items) in users.0 {
            for item in items {
                collector.push(&user, &item.0, None, None).map_err(|error| match error {
                    Error::MissingId { .. } => Error::Value {
                        file: format!("{}/{file}", source.path().display()),
                        problem: format!("{error} in the list of user `{user}`"),
                    },
                    other => other,
                })?;
            }
        }
        if collector.columns.users.len() == n_train {
            return Err(Error::Empty(format!("{}/{file}", source.path().display())));
        }
    }
    finish_split(source.stem(), collector, n_train)
}
