//! Real data sets give exactly the published counts.
#![cfg(feature = "readers")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use glta_data::readers::{AmazonConfig, Column, GoodreadsConfig, PairsConfig};
use glta_data::{Dataset, Item, Split, SplitConfig, SplitMethod, TextConfig, readers};

#[path = "support/real_data.rs"]
mod real_data;

use real_data::real_data;

fn counts(data: &Dataset) -> (usize, usize, usize) {
    (data.n_users(), data.n_items(), data.interactions().len())
}

fn split_counts(data: &Dataset) -> (usize, usize, usize) {
    let split = Split::new(data, &SplitConfig::default()).unwrap();
    (split.train.len(), split.valid.len(), split.test.len())
}

#[test]
#[ignore = "needs GLTA_DATA"]
fn ml_100k() {
    let path = real_data("data/ml-100k");
    let data = readers::movielens(path).unwrap();
    assert_eq!(data.name(), "ml-100k");
    assert_eq!(counts(&data), (943, 1682, 100_000));
    assert_eq!(split_counts(&data), (71_981, 8_019, 20_000));
    let toy_story = &data.items()[data.item_ids()["1"] as usize];
    assert_eq!(toy_story.title, "Toy Story (1995)");
    assert_eq!(toy_story.genres, ["Animation", "Children's", "Comedy"]);
    let accented = &data.items()[data.item_ids()["543"] as usize];
    assert_eq!(accented.title, "Misérables, Les (1995)");
    assert_eq!(TextConfig::default().text(accented), "Les Misérables (1995). Drama, Musical");
    assert!(data.items().iter().all(|item| !item.title.is_empty()));
    // The first line of u.data: user 196, item 242, rating 3, time 881250949.
    assert_eq!(data.users()[0], "196");
    let at = data.interactions().items(0).binary_search(&0).unwrap();
    assert_eq!(data.ratings().unwrap()[at], 3.0);
    assert_eq!(data.timestamps().unwrap()[at], 881_250_949);

    let temporal = SplitConfig { method: SplitMethod::Temporal, ..SplitConfig::default() };
    let split = Split::new(&data, &temporal).unwrap();
    assert_eq!(split.test.len(), 20_000);
    let liked = data.min_rating(4.0).unwrap();
    assert_eq!(liked.interactions().len(), 55_375);
}

#[test]
#[ignore = "needs GLTA_DATA"]
fn ml_1m_pairs() {
    let path = real_data("data/ml-1m");
    let data = readers::movielens(path).unwrap();
    assert_eq!(data.name(), "ml-1m");
    assert_eq!(counts(&data), (6_040, 3_706, 1_000_209));
    assert_eq!(
        data.stats().to_string(),
        "ml-1m: 6040 users, 3706 items, 1000209 interactions, density 4.468 %"
    );
    assert!(data.ratings().is_none());
    assert!(data.items().iter().all(|item| !item.title.is_empty()));
    let abstracts = |item: &&Item| item.other.contains_key("abstract");
    assert_eq!(data.items().iter().filter(abstracts).count(), 3_228);
}

fn parts(split: &Split) -> (usize, usize, usize) {
    (split.train.len(), split.valid.len(), split.test.len())
}

#[test]
#[ignore = "needs GLTA_DATA"]
fn gowalla() {
    let path = real_data("data/gowalla");
    let config = PairsConfig::default();
    let (train, test) = (path.join("train.txt.gz"), path.join("test.txt.gz"));
    let (data, split) = readers::split_pairs("gowalla", train, test, &config).unwrap();
    assert_eq!(counts(&data), (29_858, 40_981, 810_128 + 217_242));
    assert_eq!(parts(&split), (810_128, 0, 217_242));
}

#[test]
#[ignore = "needs GLTA_DATA"]
fn lastfm() {
    let path = real_data("data/lastfm");
    let (train, test) = (path.join("data1.txt"), path.join("test1.txt"));
    let config = PairsConfig { rating: Some(Column::Number(3)), ..PairsConfig::default() };
    let (data, split) = readers::split_pairs("lastfm", train, test, &config).unwrap();
    assert_eq!(counts(&data), (1_880, 4_489, 42_135 + 10_533));
    assert_eq!(parts(&split), (42_135, 0, 10_533));
    // Line ends are CRLF, and the last column is still a number.
    assert!(data.ratings().is_some());
    let tested = (0..1_880).filter(|&u| !split.test.items(u).is_empty());
    assert_eq!(tested.count(), 1_858);
}

#[test]
#[ignore = "needs GLTA_DATA"]
fn goodreads_history_ihp() {
    let path = real_data("data/goodreads-history-ihp");
    let (data, split) = readers::ihp(path).unwrap();
    assert_eq!(counts(&data), (10_000, 56_952, 189_188 + 77_630));
    assert_eq!(parts(&split), (189_188, 0, 77_630));
    let trained = split.train.item_degrees();
    assert_eq!(trained.iter().filter(|&&d| d > 0).count(), 45_046);
}

#[test]
#[ignore = "needs GLTA_DATA"]
fn goodreads_once() {
    let path = real_data("data/goodreads-once");
    let data = readers::goodreads(path, &GoodreadsConfig::default()).unwrap();
    assert_eq!(data.name(), "goodreads-once");
    assert_eq!(counts(&data), (18_441, 14_933, 143_877));
    let told = |item: &&Item| !item.title.is_empty() && !item.description.is_empty();
    assert_eq!(data.items().iter().filter(told).count(), 14_933);
    let three = data.clone().k_core(3, 3);
    assert_eq!(counts(&three), (17_673, 10_281, 135_778));
    let five = data.k_core(5, 5);
    assert_eq!(counts(&five), (15_840, 6_629, 116_615));
    assert_eq!(split_counts(&five), (77_000, 15_840, 23_775));
}

#[test]
#[ignore = "needs GLTA_DATA"]
fn goodreads_raw_sample() {
    let path = real_data("data/goodreads-raw-sample");
    let data = readers::goodreads(&path, &GoodreadsConfig::default()).unwrap();
    assert_eq!(counts(&data), (1, 1, 1));
    let book = &data.items()[0];
    assert_eq!(book.raw_id, "402128");
    assert!(!book.title.is_empty() && !book.description.contains('\n'));
    assert!(book.other["shelves"].contains("poetry"), "{book:?}");
    assert!(data.ratings().is_some() && data.timestamps().is_some());
    let of_genre = |genre: &str| {
        let config = GoodreadsConfig { genre: Some(genre.into()), ..GoodreadsConfig::default() };
        readers::goodreads(&path, &config)
    };
    assert_eq!(counts(&of_genre("poetry").unwrap()), (1, 1, 1));
    assert!(of_genre("cookery").is_err());
}

#[test]
#[ignore = "needs GLTA_DATA"]
fn amazon_2018_gift_cards() {
    let path = real_data("data/amazon-2018-gift-cards");
    let data = readers::amazon(path, &AmazonConfig::default()).unwrap();
    assert_eq!(counts(&data), (458, 148, 2_965));
    let texts = |text: fn(&Item) -> &str| {
        let items = data.items().iter();
        items.filter(|item| !text(item).is_empty()).count()
    };
    assert_eq!(texts(|item| &item.title), 148);
    assert_eq!(texts(|item| &item.description), 145);
    for item in data.items() {
        let all = format!("{} {} {:?}", item.title, item.description, item.other);
        for remains in ["&amp;", "&quot;", "<br", "</", "\\n"] {
            assert!(!all.contains(remains), "{remains} in {all}");
        }
        assert_eq!(item.title.trim(), item.title);
    }
    assert!(data.timestamps().is_some());
}

#[test]
#[ignore = "needs GLTA_DATA"]
fn amazon_2018_industrial() {
    let path = real_data("data/amazon-2018-industrial");
    let data = readers::amazon(&path, &AmazonConfig::default()).unwrap();
    assert_eq!(data.name(), "Industrial_and_Scientific");
    assert_eq!(counts(&data), (3_285, 3_541, 21_664));
    assert_eq!(split_counts(&data), (14_179, 3_246, 4_239));
    assert!(data.items().iter().all(|item| !item.title.is_empty()));
    assert!(data.items().iter().all(|item| !item.description.starts_with('[')));

    // Without the derived file: from the published histories.
    let folder = tempfile::tempdir().unwrap();
    for file in ["Industrial_and_Scientific.item.json.gz", "valid.csv.gz", "test.csv.gz"] {
        std::fs::copy(path.join(file), folder.path().join(file)).unwrap();
    }
    let published = readers::amazon(folder.path(), &AmazonConfig::default()).unwrap();
    assert_eq!(counts(&published), counts(&data));
}
