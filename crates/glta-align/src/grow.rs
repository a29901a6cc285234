//! Methods that add items and interactions to a recommender, and forget users.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use glta_data::Item;
use ndarray::Array2;

use crate::artifact::save_vectors;
use crate::data::{ItemRecord, RunData};
use crate::files::{
    CONFIG, ENCODERS, HISTORY, LINEAR, TF_IDF, VECTORS, read, whitening_file, write_whole,
};
use crate::growth::{Growth, GrowthEncoders, not_growing};
use crate::recommender::Recommender;
use crate::{Error, Result};

impl Recommender {
    /// Prepares the recommender for adding items and interactions and for forgetting users. The
    /// text vectors and the encoders are read from the folder of the recommender, and
    /// co-occurrences are counted again.
    ///
    /// ```no_run
    /// # use glta_align::{GrowthEncoders, Recommender};
    /// # use glta_data::Item;
    /// # fn grow() -> glta_align::Result<()> {
    /// let mut recommender = Recommender::open("model")?;
    /// recommender.grow(GrowthEncoders::default())?;
    /// recommender.add_items(&[Item::titled("tea-104", "Second flush Darjeeling")])?;
    /// recommender.add_interactions(&[("ann", "tea-7"), ("a new customer", "tea-7")])?;
    /// recommender.fold()?;
    /// recommender.forget_user("bob")?;
    /// recommender.save("model-2")?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Returns [`Error::Unsupported`] if the recommender was not opened from a folder, if a prompt
    /// path contributes to its scores, or if the run held out validation items. Returns an error if
    /// files are missing or damaged.
    pub fn grow(&mut self, encoders: GrowthEncoders<'_>) -> Result<()> {
        let Some(folder) = self.folder().filter(|_| !self.has_prompt()) else {
            return Err(Error::Unsupported(
                "only a linear model that was opened from a folder can grow; parts that were \
                 trained by gradient change with the next fit"
                    .into(),
            ));
        };
        let growth = Growth::open(folder, self.config(), self.data(), encoders)?;
        self.set_growth(growth);
        Ok(())
    }

    /// Adds items without interactions and returns their dense ids. The items can be recommended at
    /// once, because the encoders compute vectors of their texts. A text is composed of the same
    /// fields as the texts of other items.
    ///
    /// # Errors
    /// Returns [`Error::Unsupported`] before [`grow`](Self::grow) or if an encoder is missing, and
    /// [`Error::Data`] if a raw id exists or is repeated. On an error, no item is added.
    pub fn add_items(&mut self, items: &[Item]) -> Result<Range<u32>> {
        for (nth, item) in items.iter().enumerate() {
            let twice = items[..nth].iter().any(|other| other.raw_id == item.raw_id);
            if twice || self.item(&item.raw_id).is_some() {
                return Err(Error::Data(format!("the item {} already exists", item.raw_id)));
            }
        }
        let config = self.config().clone();
        let items: Vec<ItemRecord> = items.iter().map(|item| self.data().record(item)).collect();
        let growth = self.growth_mut()?;
        let texts: Vec<String> = items.iter().map(|item| item.text.clone()).collect();
        let vectors = growth.encode(&config, &texts)?;
        let view = vectors.as_ref().map(|vectors| vectors.view());
        let new = growth.growing_mut().add_items(view, items.len())?;
        self.push_items(&items);
        Ok(new)
    }

    /// Replaces the title, the text and the fields of an item. This needs no call of
    /// [`grow`](Self::grow). Until the next fit, the weights of the item are based on its former
    /// text.
    ///
    /// # Errors
    /// Returns [`Error::Data`] if the raw id is unknown.
    pub fn replace_item(&mut self, item: &Item) -> Result<()> {
        let none = || Error::Data(format!("the item {} does not exist", item.raw_id));
        let id = self.item(&item.raw_id).ok_or_else(none)?;
        let record = self.data().record(item);
        self.put_record(id, record);
        Ok(())
    }

    /// Adds `(user, item)` pairs by raw ids. Unknown users are added, and unknown items are added
    /// without a text. The recommendations of these users change at once. Those of other users
    /// change after [`fold`](Self::fold).
    ///
    /// # Errors
    /// Returns [`Error::Unsupported`] before [`grow`](Self::grow).
    pub fn add_interactions(&mut self, pairs: &[(&str, &str)]) -> Result<()> {
        self.growth_mut()?;
        let mut unknown: Vec<ItemRecord> = Vec::new();
        for &(_, item) in pairs {
            let listed = unknown.iter().any(|record| record.raw_id == item);
            if self.item(item).is_none() && !listed {
                unknown.push(ItemRecord::bare(item));
            }
        }
        if !unknown.is_empty() {
            let growth = self.growth_mut()?;
            let zeros = growth.growing.text_dim().map(|dim| Array2::zeros((unknown.len(), dim)));
            growth.growing_mut().add_items(zeros.as_ref().map(|z| z.view()), unknown.len())?;
            self.push_items(&unknown);
        }
        let mut dense = Vec::with_capacity(pairs.len());
        for &(user, item) in pairs {
            let user = self.user_or_new(user);
            dense.extend(self.item(item).map(|item| (user, item)));
        }
        Ok(self.growth_mut()?.growing_mut().add_interactions(&dense)?)
    }

    /// Updates the weights of the linear model with the added interactions. Returns the number of
    /// items whose weights were computed again.
    ///
    /// # Errors
    /// Returns [`Error::Unsupported`] before [`grow`](Self::grow).
    pub fn fold(&mut self) -> Result<usize> {
        Ok(self.growth_mut()?.growing.fold()?)
    }

    /// Removes a user from histories, answers and the linear model, which then equals a fit without
    /// the user. Returns whether the user was known. A saved folder and a model that was trained by
    /// gradient descent change only with the next fit.
    ///
    /// # Errors
    /// Returns [`Error::Unsupported`] before [`grow`](Self::grow).
    pub fn forget_user(&mut self, raw_id: &str) -> Result<bool> {
        self.growth_mut()?;
        let Some(user) = self.user(raw_id) else {
            return Ok(false);
        };
        self.growth_mut()?.growing_mut().forget_user(user)?;
        self.forget_id(raw_id, user);
        Ok(true)
    }

    /// Saves the changed recommender in a new folder, from which [`open`](Self::open) reads it.
    ///
    /// # Errors
    /// Returns [`Error::Unsupported`] before [`grow`](Self::grow), [`Error::RunExists`] if the
    /// folder contains a run, and an error if the folder cannot be written.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<()> {
        let dir = dir.as_ref();
        let (Some(growth), Some(from)) = (self.growth(), self.folder()) else {
            return Err(not_growing());
        };
        if dir.join(CONFIG).exists() {
            return Err(Error::RunExists { path: dir.to_owned() });
        }
        std::fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))?;
        let growing = &growth.growing;
        let train = growing.interactions()?;
        let valid = glta_data::Interactions::empty(train.n_users(), train.n_items())?;
        let data = RunData { train: Arc::new(train), valid, ..self.data().clone() };
        data.save(dir)?;
        growing.model().save(dir.join(LINEAR))?;
        match growing.text()? {
            Some(text) => save_vectors(&dir.join(VECTORS), text.view())?,
            None => save_vectors(&dir.join(VECTORS), Array2::zeros((data.items.len(), 0)).view())?,
        }
        let whitenings = (0..growth.encoders.len()).map(whitening_file);
        let others = [ENCODERS, TF_IDF, CONFIG].map(String::from);
        for name in whitenings.chain(others).filter(|name| from.join(name).exists()) {
            write_whole(&dir.join(&name), &read(&from.join(&name))?)?;
        }
        // The file is written last, because it marks a finished run.
        write_whole(&dir.join(HISTORY), &read(&from.join(HISTORY))?)
    }
}
