use std::collections::HashMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::catalogue::Catalogue;
use super::input::{Input, Source};
use super::lines::{expected, for_each_line, utf8_or_latin1};
use super::pairs::{Checks, read_with};
use super::pairs_config::{PairsConfig, PairsLayout};
use super::table::{Column, Separator, Table, TableConfig};
use crate::dataset::Collector;
use crate::{Dataset, Error, Item, Result};

/// Reads any generation of MovieLens from a folder or from the zip archive of GroupLens. Every file
/// may be gzipped.
///
/// | generation | interactions | items |
/// |---|---|---|
/// | 100K | `u.data` | `u.item`, `u.genre` |
/// | 1M, 10M | `ratings.dat`, or `pairs.dat` (`UserID::MovieID`) in its absence | `movies.dat` |
/// | latest-small, 20M, 25M, 32M | `ratings.csv` | `movies.csv` |
///
/// Users and items are numbered in the order of their first rating. Movies without ratings are
/// omitted. Items have `title` and `genres`. If the folder has a `dbpedia_abstracts.json` (movie id
/// → text), they also have a text `abstract`. ISO-8859-1 titles of the older files are decoded.
///
/// # Errors
/// Returns an error if the path is neither a folder nor a complete zip archive, if there is no file
/// of ratings or of items, if a file is empty or its gzip data are truncated, or if a line does not
/// have the form of the generation.
pub fn movielens(path: impl AsRef<Path>) -> Result<Dataset> {
    movielens_with(path, &MovieLensConfig::default())
}

/// Reads MovieLens like [`movielens`], with a choice among the files of a folder.
///
/// # Errors
/// Returns the errors of [`movielens`].
pub fn movielens_with(path: impl AsRef<Path>, config: &MovieLensConfig) -> Result<Dataset> {
    let source = Source::open(path.as_ref())?;
    let there: Vec<&str> = RATINGS.into_iter().filter(|file| source.has(file)).collect();
    let file = match &config.ratings {
        Some(named) => named.strip_suffix(".gz").unwrap_or(named),
        None => {
            let Some(first) = there.first() else {
                return Err(Error::MissingFile {
                    folder: source.path().to_owned(),
                    expected: "ratings of MovieLens".into(),
                    hint: ": looked for u.data (100K), ratings.dat or pairs.dat (1M, 10M) and \
                           ratings.csv (latest-small, 20M, 25M, 32M), plain or .gz; \
                           the archives are at https://grouplens.org/datasets/movielens/"
                        .into(),
                });
            };
            if there.len() > 1 {
                tracing::info!(
                    "ratings: {first} of {}; --ratings FILE chooses another one",
                    there.join(", ")
                );
            }
            first
        }
    };
    match file {
        "u.data" => movielens_100k(&source),
        "ratings.dat" => movielens_dat(&source, file, 4),
        "pairs.dat" => movielens_dat(&source, file, 2),
        "ratings.csv" => movielens_csv(&source),
        other => Err(Error::Config {
            field: "ratings",
            problem: format!("`{other}` is not one of {}", RATINGS.join(", ")),
        }),
    }
}

/// Names of the files of ratings of all generations, in order of preference.
const RATINGS: [&str; 4] = ["u.data", "ratings.dat", "pairs.dat", "ratings.csv"];

/// Settings that select the file of ratings in a MovieLens folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MovieLensConfig {
    /// Name of the file of ratings, if a folder has those of several generations: `u.data`,
    /// `ratings.dat`, `pairs.dat` or `ratings.csv`. By default, the reader uses the first of these
    /// files that exists.
    pub ratings: Option<String>,
}

/// Returns the row format of a generation: `user, item, rating, time`, or only the first two
/// columns.
fn rows(separator: Separator, columns: usize) -> PairsConfig {
    let column = |number| Some(Column::Number(number)).filter(|_| number <= columns);
    PairsConfig {
        table: TableConfig { header: Some(false), separator: Some(separator), quotes: Some(false) },
        user: column(1),
        item: column(2),
        rating: column(3),
        time: column(4),
        ..PairsConfig::of(PairsLayout::Pairs)
    }
}

fn ratings(source: &Source, file: &str, config: &PairsConfig) -> Result<Collector> {
    let rated = config.rating.is_some();
    let mut collector = Collector::new(rated, rated);
    let checks = Checks { integers: true, ..Checks::default() };
    source.read(file, |input| read_with(input, config, &mut collector, checks))?;
    Ok(collector)
}

fn movielens_100k(source: &Source) -> Result<Dataset> {
    let mut genres: Vec<String> = Vec::new();
    source.read("u.genre", |input| {
        for_each_line(input, |_, line| {
            let text = utf8_or_latin1(line);
            match text.rsplit_once('|') {
                Some((name, index)) if index.trim() == genres.len().to_string() => {
                    genres.push(name.to_owned());
                    Ok(())
                }
                _ => {
                    let form = format!("`genre|{}`", genres.len());
                    Err(expected(&form, line))
                }
            }
        })
    })?;
    let collector = ratings(source, "u.data", &rows(Separator::Byte(b'\t'), 4))?;
    let mut catalogue = Catalogue::new(collector);
    let form = format!("`id|title|release|video release|URL|` and {} genre flags", genres.len());
    source.read("u.item", |input| {
        for_each_line(input, |_, line| {
            let text = utf8_or_latin1(line);
            let fields: Vec<&str> = text.split('|').collect();
            if fields.len() != 5 + genres.len() {
                return Err(expected(&form, line));
            }
            let named = fields[5..]
                .iter()
                .zip(&genres)
                .filter(|(flag, name)| **flag == "1" && *name != "unknown");
            Ok(catalogue.add(fields[0], || Item {
                genres: named.map(|(_, name)| name.clone()).collect(),
                ..Item::titled(fields[0], fields[1].trim())
            })?)
        })
    })?;
    catalogue.finish("ml-100k")
}

fn movielens_dat(source: &Source, file: &str, columns: usize) -> Result<Dataset> {
    let collector = ratings(source, file, &rows(Separator::DoubleColon, columns))?;
    let mut catalogue = Catalogue::new(collector);
    source.read("movies.dat", |input| {
        for_each_line(input, |_, line| {
            let text = utf8_or_latin1(line);
            let mut fields = text.split("::");
            let (Some(id), Some(title), Some(genres), None) =
                (fields.next(), fields.next(), fields.next(), fields.next())
            else {
                return Err(expected("`MovieID::Title (Year)::Genre|Genre`", line));
            };
            Ok(catalogue.add(id, || movie(id, title, genres))?)
        })
    })?;
    add_abstracts(source, &mut catalogue)?;
    let stem = source.stem();
    catalogue.finish(if stem.starts_with("ml-") { stem } else { "ml-1m".into() })
}

fn movielens_csv(source: &Source) -> Result<Dataset> {
    let named = |name: &str| Some(Column::Name(name.into()));
    let config = PairsConfig {
        table: TableConfig { header: Some(true), ..TableConfig::default() },
        user: named("userId"),
        item: named("movieId"),
        rating: named("rating"),
        time: named("timestamp"),
        ..PairsConfig::of(PairsLayout::Pairs)
    };
    let collector = ratings(source, "ratings.csv", &config)?;
    let mut catalogue = Catalogue::new(collector);
    source.read("movies.csv", |input| read_movies_csv(input, &mut catalogue))?;
    add_abstracts(source, &mut catalogue)?;
    catalogue.finish(source.stem())
}

fn read_movies_csv(input: Input<'_>, catalogue: &mut Catalogue) -> Result<()> {
    let config = TableConfig { header: Some(true), ..TableConfig::default() };
    let mut table = Table::new(input, &config)?;
    let column = |name: &str| table.column(&Column::Name(name.into()));
    let (id, title, genres) = (column("movieId")?, column("title")?, column("genres")?);
    while let Some(row) = table.next_row()? {
        let raw = row.text(id)?;
        let (title, genres) = (row.text(title)?, row.text(genres)?);
        catalogue.add(raw, || movie(raw, title, genres)).map_err(|e| row.fault(e))?;
    }
    catalogue.read(table.report("movies"));
    Ok(())
}

fn movie(id: &str, title: &str, genres: &str) -> Item {
    Item {
        genres: genres
            .split('|')
            .map(str::trim)
            .filter(|genre| !genre.is_empty() && *genre != "(no genres listed)")
            .map(String::from)
            .collect(),
        ..Item::titled(id, title.trim())
    }
}

/// Adds the abstracts of films from a JSON object that maps movie ids to texts.
fn add_abstracts(source: &Source, catalogue: &mut Catalogue) -> Result<()> {
    const FILE: &str = "dbpedia_abstracts.json";
    if !source.has(FILE) {
        return Ok(());
    }
    let abstracts: HashMap<String, String> = source.read(FILE, super::json::whole)?;
    for (id, text) in abstracts {
        catalogue.update(&id, |item| {
            item.other.insert("abstract".into(), text);
        });
    }
    Ok(())
}
