//! Adds the journal of a service to the tables of a fit.

use std::path::Path;

use glta_data::{Dataset, Interaction, Item};
use glta_serve::Journal;

use crate::Result;

/// Returns the data set with the interactions and items of a journal, and without deleted users. An
/// interaction of the journal without a time gets the time of its arrival. Ratings are omitted,
/// because the journal contains none.
pub(crate) fn with_journal(dataset: &Dataset, path: &Path) -> Result<Dataset> {
    let journal = Journal::read(path)?;
    let (written, mut put) = (journal.interactions()?, journal.items()?);
    let times = dataset.timestamps();
    let (users, items) = (dataset.users(), dataset.items());
    let mut all: Vec<Interaction<'_>> = Vec::new();
    for (nth, (user, item)) in dataset.interactions().iter().enumerate() {
        let user = users[user as usize].as_str();
        if !journal.is_forgotten(user) {
            let item = items[item as usize].raw_id.as_str();
            let timestamp = times.map(|times| times[nth]);
            all.push(Interaction { timestamp, ..Interaction::new(user, item) });
        }
    }
    for event in &written {
        let timestamp = times.and(event.time);
        all.push(Interaction { timestamp, ..Interaction::new(&event.user, &event.item) });
    }
    let known = items.iter().map(|item| put.remove(&item.raw_id).unwrap_or_else(|| item.clone()));
    let mut items: Vec<Item> = known.collect();
    items.extend(put.into_values());
    Ok(Dataset::from_interactions(dataset.name(), all, items)?)
}
