use std::path::Path;

use serde::{Deserialize, Serialize};

use super::amazon_processed;
use super::catalogue::{Catalogue, described};
use super::input::Source;
use super::json::{RawId, Texts, for_each_record};
use crate::dataset::Collector;
use crate::{Dataset, Error, Item, Result};

/// Which files of a folder are read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AmazonConfig {
    /// Where a folder holds several categories: the one to read, as in its file
    /// names, such as `Gift_Cards`. Default none.
    pub category: Option<String>,
    /// Name of the reviews file, where the category has several (all reviews
    /// and a 5-core). Default none.
    pub reviews: Option<String>,
}

/// Reads Amazon review data of 2014, 2018 or 2023 as the publishers serve it:
/// one file of reviews and one of metadata (`meta_*`) in a folder, JSON lines
/// (2014: Python dicts), plain or gzipped. A folder with a `*.item.json`, the
/// processed form of the MiniOneRec project, is read too.
///
/// | generation | reviews | items named by |
/// |---|---|---|
/// | 2014 | `reviews_Category.json`, `reviews_Category_5.json` | `asin` |
/// | 2018 | `Category.json`, `Category_5.json` | `asin` |
/// | 2023 | `Category.jsonl` | `parent_asin` |
///
/// Items have `title`, `description`, categories as `genres`, and the texts
/// `brand` and `features`, all with markup and entities cleaned; a title that is
/// a script by mistake counts as missing. Of repeated reviews of an item by a
/// user the latest counts, of repeated metadata the first.
///
/// # Errors
/// A missing file, several that fit, or the first line that is no such record.
pub fn amazon(path: impl AsRef<Path>, config: &AmazonConfig) -> Result<Dataset> {
    let source = Source::open(path.as_ref())?;
    let category = config.category.as_deref().unwrap_or_default();
    let item_files = source
        .file_names()
        .filter(|name| name.contains(amazon_processed::ITEMS) && name.starts_with(category));
    if item_files.count() > 0 {
        return amazon_processed::read(&source, category);
    }
    let (reviews, meta) = files(&source, category, config)?;
    let mut collector = Collector::new(true, true);
    source.read(&reviews, |input| {
        for_each_record(input, |review: Review| {
            let item = review.parent_asin.as_ref().unwrap_or(&review.asin);
            let time = review
                .unix_review_time
                .or(review.timestamp.map(|milliseconds| milliseconds / 1000));
            collector.push(&review.user.0, &item.0, review.rating, time)
        })
    })?;
    if collector.is_empty() {
        let file = format!("{}/{reviews}", source.path().display());
        return Err(Error::Empty(file));
    }
    let mut catalogue = Catalogue::new(collector);
    source.read(&meta, |input| {
        for_each_record(input, |meta: Meta| {
            let id = meta.parent_asin.as_ref().unwrap_or(&meta.asin);
            catalogue.add(&id.0, || meta.item(&id.0));
            Ok(())
        })
    })?;
    let name = reviews.split('.').next().unwrap_or_default();
    catalogue.finish(name)
}

fn files(source: &Source, category: &str, config: &AmazonConfig) -> Result<(String, String)> {
    let lines = |name: &str| name.ends_with(".json") || name.ends_with(".jsonl");
    let of_category = |name: &str| {
        let rest = name.strip_prefix(category);
        rest.is_some_and(|rest| category.is_empty() || rest.starts_with(['.', '_']))
    };
    let meta = source.one_file("meta_*.json or meta_*.jsonl", "category", |name| {
        let rest = name.strip_prefix("meta_");
        lines(name) && rest.is_some_and(of_category)
    })?;
    let reviews = match &config.reviews {
        Some(name) => name.strip_suffix(".gz").unwrap_or(name).to_owned(),
        None => source.one_file("reviews (*.json or *.jsonl)", "reviews", |name| {
            let rest = name.strip_prefix("reviews_").unwrap_or(name);
            lines(name) && !name.starts_with("meta_") && of_category(rest)
        })?,
    };
    Ok((reviews, meta))
}

#[derive(Deserialize)]
struct Review {
    #[serde(rename = "reviewerID", alias = "user_id")]
    user: RawId,
    asin: RawId,
    parent_asin: Option<RawId>,
    #[serde(rename = "overall", alias = "rating")]
    rating: Option<f32>,
    /// Seconds, up to 2018.
    #[serde(rename = "unixReviewTime")]
    unix_review_time: Option<i64>,
    /// Milliseconds, in 2023.
    timestamp: Option<i64>,
}

#[derive(Deserialize)]
struct Meta {
    #[serde(default)]
    asin: RawId,
    parent_asin: Option<RawId>,
    #[serde(default)]
    title: Texts,
    #[serde(default)]
    description: Texts,
    #[serde(default, alias = "categories")]
    category: Texts,
    #[serde(default, alias = "features")]
    feature: Texts,
    #[serde(default, alias = "store")]
    brand: Texts,
}

impl Meta {
    fn item(&self, id: &str) -> Item {
        let mut item = described(id, &self.title, &self.description);
        item.genres = self.category.cleaned();
        for (name, text) in
            [("brand", self.brand.joined(", ")), ("features", self.feature.joined("; "))]
        {
            if !text.is_empty() {
                item.other.insert(name.into(), text);
            }
        }
        item
    }
}
