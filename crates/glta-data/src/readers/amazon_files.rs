//! Finds the reviews and metadata of a category in a folder.

use serde::{Deserialize, Serialize};

use super::input::Source;
use crate::{Error, Result};

/// Settings that select the files of a category in a folder of Amazon reviews.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AmazonConfig {
    /// Name of the category in the file names, such as `Gift_Cards`. It is needed if a folder has
    /// several categories. Default none.
    pub category: Option<String>,
    /// Name of the file of reviews, if the category has several (all reviews and a 5-core). By
    /// default, the reader uses the file whose name matches the metadata.
    pub reviews: Option<String>,
    /// Whether metadata are read. Without metadata, items have no texts. Default true.
    pub metadata: bool,
}

impl Default for AmazonConfig {
    fn default() -> Self {
        Self { category: None, reviews: None, metadata: true }
    }
}

/// File names of one category, without `.gz`.
pub(crate) struct Files {
    /// Names of the review files: one file, or the parts of a published split.
    pub(crate) reviews: Vec<String>,
    pub(crate) meta: Option<String>,
}

/// Extensions of files of reviews.
const ENDINGS: [&str; 3] = [".jsonl", ".json", ".csv"];
/// Name parts that mark the parts of a split published as CSV.
const PARTS: [&str; 3] = [".train", ".valid", ".test"];

/// Returns whether a file is a table instead of JSON lines.
pub(crate) fn is_table(name: &str) -> bool {
    name.ends_with(".csv")
}

/// Returns the category in the name of a review file: the name without extension, `reviews_`,
/// `ratings_` and split part.
fn stem(name: &str) -> &str {
    let name = ENDINGS.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name);
    let name = name.strip_prefix("reviews_").or(name.strip_prefix("ratings_")).unwrap_or(name);
    PARTS.iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name)
}

/// Returns whether the file with the name `stem` belongs to a category: `stem` is the name of the
/// category, or this name followed by `.` or `_` and more text, such as `_5`.
fn is_of(stem: &str, category: &str) -> bool {
    let rest = stem.strip_prefix(category);
    rest.is_some_and(|rest| category.is_empty() || rest.is_empty() || rest.starts_with(['.', '_']))
}

impl Files {
    pub(crate) fn find(source: &Source, config: &AmazonConfig) -> Result<Self> {
        let mut names: Vec<&str> =
            source.file_names().map(|name| name.strip_suffix(".gz").unwrap_or(name)).collect();
        names.retain(|name| ENDINGS.iter().any(|ending| name.ends_with(ending)));
        names.sort_unstable();
        names.dedup();
        let (metas, mut reviews): (Vec<&str>, Vec<&str>) =
            names.into_iter().partition(|name| name.starts_with("meta_"));
        let named = config.reviews.as_deref().map(|name| name.strip_suffix(".gz").unwrap_or(name));
        if let Some(named) = named {
            if !source.has(named) {
                return Err(source.missing(named, &among("; there are", &reviews)));
            }
            reviews = vec![named];
        }
        let category = config.category.as_deref().or(named.map(stem)).unwrap_or_default();
        let meta = if config.metadata { Some(meta(source, &metas, category)?) } else { None };
        let reviews = match named {
            Some(named) => vec![named.to_owned()],
            None => choose(source, &reviews, category, meta)?,
        };
        Ok(Self { reviews, meta: meta.map(String::from) })
    }

    /// Returns the name of the data set.
    pub(crate) fn name(&self) -> &str {
        let first = self.reviews.first().map_or("amazon", String::as_str);
        let name = first.split('.').next().unwrap_or_default();
        if name.is_empty() { "amazon" } else { name }
    }
}

fn among(text: &str, names: &[&str]) -> String {
    if names.is_empty() { String::new() } else { format!("{text} {}", names.join(", ")) }
}

/// Finds the file of metadata of a category. `category` may be the name of its 5-core, such as
/// `Gift_Cards_5`.
fn meta<'n>(source: &Source, metas: &[&'n str], category: &str) -> Result<&'n str> {
    let of = |name: &str| {
        let name = name.strip_prefix("meta_").unwrap_or(name);
        ENDINGS.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name).to_owned()
    };
    let json = || metas.iter().copied().filter(|name| !is_table(name));
    let mut fitting: Vec<&str> = json().filter(|name| is_of(&of(name), category)).collect();
    if fitting.is_empty() {
        // The longest name counts, because the name of one category may be a prefix of another.
        fitting = json().filter(|name| is_of(category, &of(name))).collect();
        fitting.sort_by_key(|name| std::cmp::Reverse(name.len()));
        fitting.truncate(1);
    }
    if let Some(exact) = fitting.iter().find(|name| of(name) == category) {
        return Ok(exact);
    }
    match fitting.as_slice() {
        [one] => Ok(one),
        [] => {
            let hint = format!(
                "{}; or read no metadata, so that items have no texts (--no-metadata)",
                among("; there are", metas)
            );
            Err(source.missing("meta_*.json or meta_*.jsonl", &hint))
        }
        several => Err(Error::Config {
            field: "category",
            problem: format!(
                "{} has the metadata of several categories ({}); choose one, for example by \
                 --category NAME",
                source.path().display(),
                several.join(", ")
            ),
        }),
    }
}

/// Chooses the reviews that belong to the metadata. Among several files, it prefers the file of all
/// reviews to the 5-core, and JSON to CSV.
fn choose(
    source: &Source,
    names: &[&str],
    category: &str,
    meta: Option<&str>,
) -> Result<Vec<String>> {
    let of_meta = meta.map(|meta| stem(meta.strip_prefix("meta_").unwrap_or(meta)));
    let mut fitting: Vec<&str> =
        names.iter().copied().filter(|name| is_of(stem(name), category)).collect();
    if let Some(of_meta) = of_meta
        && fitting.iter().any(|name| is_of(stem(name), of_meta))
    {
        fitting.retain(|name| is_of(stem(name), of_meta));
    }
    let Some(first) = fitting.first() else {
        let hint = among("; there are", names);
        return Err(source.missing("reviews (*.json, *.jsonl or *.csv)", &hint));
    };
    if fitting.len() == 1 {
        return Ok(vec![(*first).to_owned()]);
    }
    let wanted = of_meta.unwrap_or(category);
    let is_part = |name: &str| {
        let name = name.strip_suffix(".csv").unwrap_or(name);
        PARTS.iter().any(|part| name.ends_with(part))
    };
    let rank = |name: &str| {
        let other = usize::from(stem(name) != wanted) + usize::from(stem(name).contains('.'));
        (is_part(name), other, is_table(name))
    };
    fitting.sort_by_key(|name| rank(name));
    if is_part(fitting[0]) && fitting.iter().all(|name| stem(name) == stem(fitting[0])) {
        return Ok(fitting.into_iter().map(String::from).collect());
    }
    let best = fitting[0];
    if of_meta.is_none() && category.is_empty() {
        return Err(Error::Config {
            field: "reviews",
            problem: format!(
                "{} has several files of reviews ({}); choose one, for example by --reviews FILE",
                source.path().display(),
                fitting.join(", ")
            ),
        });
    }
    if rank(best) == rank(fitting[1]) || !is_of(stem(best), wanted) {
        return Err(Error::Config {
            field: "reviews",
            problem: format!(
                "{} has several files of reviews ({}), and none has the name of the metadata; \
                 choose one, for example by --reviews FILE",
                source.path().display(),
                fitting.join(", ")
            ),
        });
    }
    tracing::info!("reviews: {best} of {}; --reviews FILE chooses another one", fitting.join(", "));
    Ok(vec![best.to_owned()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(names: &[&str], config: &AmazonConfig) -> Result<(Vec<String>, Option<String>)> {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            std::fs::write(folder.path().join(name), "{}").unwrap();
        }
        let files = Files::find(&Source::open(folder.path()).unwrap(), config)?;
        Ok((files.reviews, files.meta))
    }

    #[test]
    fn the_reviews_that_match_the_metadata_are_chosen() {
        let default = AmazonConfig::default();
        let one = |reviews: &str, meta: &str| (vec![reviews.to_owned()], Some(meta.to_owned()));
        let meta = "meta_Home.json";
        for (names, expected) in [
            (&["Home.json", "Home_5.json", meta][..], "Home.json"),
            (&["Home_5.json.gz", meta], "Home_5.json"),
            (&["Home.csv", "Home_5.json", meta], "Home.csv"),
            (&["Home.json", "Home.csv", meta], "Home.json"),
            (&["reviews_Home_5.json", meta], "reviews_Home_5.json"),
            (&["Home.json", "dataset_infos.json", meta], "Home.json"),
            (&["x.json", meta], "x.json"),
            (&["Home.json", "._Home.json", "._meta_Home.json", ".DS_Store", meta], "Home.json"),
        ] {
            assert_eq!(found(names, &default).unwrap(), one(expected, meta), "{names:?}");
        }
        let parts = ["Home.train.csv", "Home.valid.csv", "Home.test.csv", meta];
        assert_eq!(found(&parts, &default).unwrap().0.len(), 3);
        let named = AmazonConfig { reviews: Some("Home_5.json".into()), ..default.clone() };
        let both = ["Home.json", "Home_5.json", meta];
        assert_eq!(found(&both, &named).unwrap(), one("Home_5.json", meta));
        let category = AmazonConfig { category: Some("Home_5".into()), ..default.clone() };
        assert_eq!(found(&both, &category).unwrap(), one("Home_5.json", meta));
        let two = ["Home.json", "Home_and_Kitchen.json", meta, "meta_Home_and_Kitchen.json"];
        let home = AmazonConfig { category: Some("Home".into()), ..default.clone() };
        assert_eq!(found(&two, &home).unwrap(), one("Home.json", meta));
        let bare = AmazonConfig { metadata: false, ..default.clone() };
        assert_eq!(found(&["Home.csv"], &bare).unwrap(), (vec!["Home.csv".into()], None));
        for (names, config, part) in [
            (&two[..], &default, "--category"),
            (&["a.json", "b.json", meta], &default, "--reviews"),
            (&["a.json", "b.json"], &bare, "--reviews"),
            (&["Home.json"], &default, "--no-metadata"),
            (&[meta], &default, "reviews"),
            (&["Home.json", meta], &named, "Home.json"),
        ] {
            let error = found(names, config).unwrap_err().to_string();
            assert!(error.contains(part), "{names:?}: {error}");
        }
    }
}
