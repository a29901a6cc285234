use std::path::Path;

use serde::Deserialize;

use super::amazon_files::{AmazonConfig, Files, is_table};
use super::amazon_processed;
use super::catalogue::{Catalogue, described};
use super::input::Source;
use super::json::{RawId, Texts, for_each_record};
use super::pairs::read;
use super::pairs_config::{PairsConfig, PairsLayout};
use crate::dataset::Collector;
use crate::report::FileReport;
use crate::{Dataset, Error, Item, Result};

/// Reads Amazon reviews of 2014, 2018 or 2023 in the publishers' format. A folder contains a file
/// of reviews and a file of metadata (`meta_*`) as JSON lines (in 2014, Python dicts), plain or
/// gzipped. The function also reads a folder with a `*.item.json`, the processed form of the
/// MiniOneRec project.
///
/// | generation | reviews | field of the item id |
/// |---|---|---|
/// | 2014 | `reviews_Category.json`, `reviews_Category_5.json`, `ratings_Category.csv` | `asin` |
/// | 2018 | `Category.json`, `Category_5.json`, `Category.csv` (the item first) | `asin` |
/// | 2023 | `Category.jsonl`, `Category.csv`, or its parts `Category.train.csv`, … | `parent_asin` |
///
/// Items have `title`, `description`, categories as `genres`, and the texts `brand` and `features`,
/// without markup and with decoded entities. A title that contains a script of the web page counts
/// as missing. If a user reviews an item several times, the latest review counts. If several
/// records describe an item, the first record counts.
///
/// # Errors
/// Returns an error if a file is missing, several files match, a line is invalid, or no item of the
/// metadata has interactions.
pub fn amazon(path: impl AsRef<Path>, config: &AmazonConfig) -> Result<Dataset> {
    let source = Source::open(path.as_ref())?;
    let category = config.category.as_deref().unwrap_or_default();
    let mut items = source
        .file_names()
        .filter(|name| name.contains(amazon_processed::ITEMS) && name.starts_with(category));
    if items.next().is_some() {
        return amazon_processed::read(&source, category);
    }
    let files = Files::find(&source, config)?;
    let mut collector = Collector::new(true, true);
    for reviews in &files.reviews {
        if is_table(reviews) {
            let config = PairsConfig::of(PairsLayout::Pairs);
            source.read(reviews, |input| read(input, &config, &mut collector))?;
        } else {
            read_reviews(&source, reviews, &mut collector)?;
        }
    }
    let mut catalogue = Catalogue::new(collector);
    if let Some(meta) = &files.meta {
        let rows = source.read(meta, |input| {
            for_each_record(input, |meta: Meta| {
                let id = meta.parent_asin.as_ref().unwrap_or(&meta.asin);
                catalogue.add(&id.0, || meta.item(&id.0))
            })
        })?;
        let layout = "metadata, JSON lines".into();
        catalogue.read(FileReport { file: meta.clone(), layout, rows });
    }
    catalogue.finish(files.name())
}

fn read_reviews(source: &Source, reviews: &str, collector: &mut Collector) -> Result<()> {
    let rows = source.read(reviews, |input| {
        for_each_record(input, |review: Review| {
            let item = review.parent_asin.as_ref().unwrap_or(&review.asin);
            let time = review
                .unix_review_time
                .or(review.timestamp.map(|milliseconds| milliseconds.div_euclid(1000)));
            collector.push(&review.user.0, &item.0, review.rating, time)
        })
    })?;
    if rows == 0 {
        return Err(Error::Empty(format!("{}/{reviews}", source.path().display())));
    }
    let layout = "reviews, JSON lines".into();
    tracing::info!("{reviews}: read as {layout}, {rows} records");
    collector.report.files.push(FileReport { file: reviews.to_owned(), layout, rows });
    Ok(())
}

#[derive(Deserialize)]
struct Review {
    #[serde(rename = "reviewerID", alias = "user_id")]
    user: RawId,
    /// Id of the item. It may be missing if the record has a `parent_asin`.
    #[serde(default)]
    asin: RawId,
    parent_asin: Option<RawId>,
    #[serde(rename = "overall", alias = "rating")]
    rating: Option<f32>,
    /// Time in seconds, in the data up to 2018.
    #[serde(rename = "unixReviewTime")]
    unix_review_time: Option<i64>,
    /// Time in milliseconds, in the data of 2023.
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
