//! Generates files in the formats and sizes of published data sets, and measures reading them.
//!
//! ```text
//! cargo run --release -p glta-data --example data_files -- make ml-32m target/ml-32m
//! cargo run --release -p glta-data --example data_files -- read ml-32m target/ml-32m
//! ```
//!
//! Layouts are `ml-32m` (32 million ratings, 87,585 movies, 200,948 users), `amazon-2023` (10
//! million reviews of 500,000 items, with metadata), `goodreads` (10 million interactions with a
//! million books) and `shop` (5 million orders of 100,000 products by 250,000 customers, as tables
//! for `glta fit`). The last argument of `make` is a factor of all counts, such as 0.25. The files
//! have 0.9, 4.4, 5.2 and 0.2 GB with the factor 1. `read` reads, filters and splits, and prints
//! rows per second and peak memory.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Parser, Subcommand, ValueEnum};
use cpu_time::ProcessTime;
use glta_data::readers::{self, AmazonConfig, GoodreadsConfig, ItemsConfig, PairsConfig};
use glta_data::{Dataset, Split, SplitConfig};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Generate files in the formats and sizes of published data sets, or measure reading them.
#[derive(Parser)]
#[command(name = "data_files", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write the files
    Make {
        layout: Kind,
        folder: PathBuf,
        /// Factor of all counts
        #[arg(default_value_t = 1.0)]
        scale: f64,
    },
    /// Read, filter and split them
    Read { layout: Kind, folder: PathBuf },
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Kind {
    /// 32 million ratings of 87,585 movies by 200,948 users
    #[value(name = "ml-32m")]
    Ml32m,
    /// 10 million reviews of 500,000 items, with metadata
    #[value(name = "amazon-2023")]
    Amazon2023,
    /// 10 million interactions with a million books
    Goodreads,
    /// 5 million orders of 100,000 products, in CSV
    Shop,
}

fn main() {
    match Cli::parse().command {
        Command::Make { layout, folder, scale } => make(layout, &folder, scale),
        Command::Read { layout, folder } => read(layout, &folder),
    }
}

fn make(layout: Kind, folder: &Path, scale: f64) {
    fs::create_dir_all(folder).unwrap();
    let scaled = |count: u64| (count as f64 * scale) as u64;
    let file =
        |name: &str| BufWriter::with_capacity(1 << 20, File::create(folder.join(name)).unwrap());
    match layout {
        Kind::Ml32m => {
            let (users, items) = (scaled(200_948), scaled(87_585));
            ratings(file("ratings.csv"), scaled(32_000_000), users, items);
            movies(file("movies.csv"), items);
        }
        Kind::Amazon2023 => {
            let (rows, items) = (scaled(10_000_000), scaled(500_000));
            reviews(file("Category.jsonl"), rows, rows / 2, items);
            products(file("meta_Category.jsonl"), items);
        }
        Kind::Goodreads => {
            let (rows, items) = (scaled(10_000_000), scaled(1_000_000));
            shelves(file("goodreads_interactions_dedup.json"), rows, rows / 20, items);
            books(file("goodreads_books.json"), items);
        }
        Kind::Shop => {
            let (rows, items) = (scaled(5_000_000), scaled(100_000));
            orders(file("orders.csv"), rows, scaled(250_000), items);
            goods(file("products.csv"), items);
        }
    }
}

/// Random users and items, few of which have most rows.
struct Draws(ChaCha8Rng);

impl Draws {
    fn new() -> Self {
        Self(ChaCha8Rng::seed_from_u64(1))
    }

    fn skewed(&mut self, count: u64) -> u64 {
        (count as f64 * self.0.random::<f64>().powi(2)) as u64
    }

    /// One that is not in `seen`, unless most are.
    fn new_one(&mut self, count: u64, seen: &mut HashSet<u64>) -> u64 {
        loop {
            let drawn = self.skewed(count);
            if seen.insert(drawn) || 2 * seen.len() as u64 > count {
                return drawn;
            }
        }
    }

    /// Words with about `length` characters in total.
    fn words(&mut self, length: usize) -> String {
        const WORDS: [&str; 12] = [
            "good",
            "the",
            "and",
            "<br />",
            "quality",
            "it's",
            "\\\"great\\\"",
            "of",
            "&amp;",
            "with",
            "price",
            "caf\u{e9}",
        ];
        let mut text = String::with_capacity(length + 12);
        while text.len() < length {
            text += WORDS[self.0.random_range(0..WORDS.len())];
            text.push(' ');
        }
        text
    }
}

/// An id of `digits` letters and digits for a number.
fn id(number: u64, digits: usize, letters: &[u8]) -> String {
    let mut hash = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // The number itself keeps ids distinct.
    let mut left = number;
    let mut text = vec![0; digits];
    for (n, digit) in text.iter_mut().enumerate() {
        let from = if n < digits / 2 { &mut hash } else { &mut left };
        *digit = letters[(*from % letters.len() as u64) as usize];
        *from /= letters.len() as u64;
    }
    String::from_utf8(text).unwrap()
}

const BASE_32: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const HEX: &[u8] = b"0123456789abcdef";

/// Users in order, as in the files of GroupLens, with similar numbers of ratings.
fn ratings(mut file: impl Write, rows: u64, users: u64, items: u64) {
    let mut draws = Draws::new();
    writeln!(file, "userId,movieId,rating,timestamp").unwrap();
    let (mut last, mut seen) = (0, HashSet::new());
    for row in 0..rows {
        let user = row * users / rows + 1;
        if user != last {
            (last, seen) = (user, HashSet::new());
        }
        // Ids have gaps: the largest is about three times their number.
        let item = draws.new_one(items, &mut seen) * 3 + 1;
        let rating = f64::from(draws.0.random_range(1..=10)) / 2.0;
        let time = draws.0.random_range(900_000_000u32..1_700_000_000);
        writeln!(file, "{user},{item},{rating:.1},{time}").unwrap();
    }
    file.flush().unwrap();
}

fn movies(mut file: impl Write, items: u64) {
    writeln!(file, "movieId,title,genres").unwrap();
    for item in 0..items {
        writeln!(file, "{},\"Film, The {item} (1999)\",Action|Drama", item * 3 + 1).unwrap();
    }
    file.flush().unwrap();
}

fn reviews(mut file: impl Write, rows: u64, users: u64, items: u64) {
    let mut draws = Draws::new();
    for _ in 0..rows {
        let (user, item) = (draws.skewed(users), draws.skewed(items));
        let stars = draws.0.random_range(1..=5);
        let time = draws.0.random_range(1_300_000_000_000u64..1_690_000_000_000);
        let length = draws.0.random_range(5..250);
        let text = draws.words(length);
        let (user, item) = (id(user, 27, BASE_32), id(item, 9, BASE_32));
        writeln!(
            file,
            "{{\"rating\": {stars}.0, \"title\": \"Five Stars\", \"text\": \"{text}\", \"images\": [], \
             \"asin\": \"B{item}\", \"parent_asin\": \"B{item}\", \"user_id\": \"A{user}\", \
             \"timestamp\": {time}, \"helpful_vote\": 0, \"verified_purchase\": true}}"
        )
        .unwrap();
    }
    file.flush().unwrap();
}

fn products(mut file: impl Write, items: u64) {
    let mut draws = Draws::new();
    for item in 0..items {
        let (features, description) = (draws.words(300), draws.words(400));
        let item = id(item, 9, BASE_32);
        writeln!(
            file,
            "{{\"main_category\": \"Grocery\", \"title\": \"Product {item}, 12 oz\", \
             \"average_rating\": 4.5, \"rating_number\": 12, \"features\": [\"{features}\"], \
             \"description\": [\"{description}\"], \"price\": null, \"images\": [], \"videos\": [], \
             \"store\": \"Acme\", \"categories\": [\"Grocery\", \"Snacks\"], \"details\": {{\"Brand\": \
             \"Acme\"}}, \"parent_asin\": \"B{item}\", \"bought_together\": null}}"
        )
        .unwrap();
    }
    file.flush().unwrap();
}

fn shelves(mut file: impl Write, rows: u64, users: u64, items: u64) {
    let mut draws = Draws::new();
    let (mut last, mut seen) = (0, HashSet::new());
    for row in 0..rows {
        let user = row * users / rows;
        if user != last {
            (last, seen) = (user, HashSet::new());
        }
        let user = id(user, 32, HEX);
        let book = draws.new_one(items, &mut seen) * 25 + 1;
        let read = draws.0.random_range(0..2) == 1;
        let rating = if read { draws.0.random_range(0..=5) } else { 0 };
        let review = id(row, 32, HEX);
        let (day, hour) = (draws.0.random_range(10..29), draws.0.random_range(10..24));
        let date = format!("Fri Apr {day} {hour}:15:15 -0700 2013");
        writeln!(
            file,
            "{{\"user_id\": \"{user}\", \"book_id\": \"{book}\", \"review_id\": \"{review}\", \
             \"is_read\": {read}, \"rating\": {rating}, \"review_text_incomplete\": \"\", \
             \"date_added\": \"{date}\", \"date_updated\": \"{date}\", \"read_at\": \"\", \
             \"started_at\": \"\"}}"
        )
        .unwrap();
    }
    file.flush().unwrap();
}

fn books(mut file: impl Write, items: u64) {
    let mut draws = Draws::new();
    for item in 0..items {
        let (book, description) = (item * 25 + 1, draws.words(700));
        let names = ["to-read", "history", "owned", "non-fiction", "favorites", "war"];
        let shelves =
            names.map(|name| format!("{{\"count\": \"12\", \"name\": \"{name}\"}}")).join(", ");
        writeln!(
            file,
            "{{\"isbn\": \"\", \"text_reviews_count\": \"7\", \"series\": [], \"country_code\": \"US\", \
             \"language_code\": \"eng\", \"popular_shelves\": [{shelves}], \"asin\": \"\", \
             \"is_ebook\": \"false\", \"average_rating\": \"4.03\", \"kindle_asin\": \"\", \
             \"similar_books\": [\"1\", \"2\", \"3\"], \"description\": \"{description}\", \
             \"authors\": [{{\"author_id\": \"1\", \"role\": \"\"}}], \"num_pages\": \"200\", \
             \"book_id\": \"{book}\", \"ratings_count\": \"90\", \"work_id\": \"{book}\", \
             \"title\": \"Book {item}\", \"title_without_series\": \"Book {item}\"}}"
        )
        .unwrap();
    }
    file.flush().unwrap();
}

/// Kinds of products in a shop; a product's kind is its number modulo their number.
const THINGS: [&str; 20] = [
    "tea", "coffee", "mug", "table", "chair", "lamp", "book", "game", "guitar", "drum", "racket",
    "ball", "bike", "helmet", "tent", "boot", "coat", "scarf", "soap", "candle",
];

/// Customers like two kinds of products each; a tenth of their orders is of any kind.
fn orders(mut file: impl Write, rows: u64, customers: u64, items: u64) {
    let mut draws = Draws::new();
    let kinds = THINGS.len() as u64;
    writeln!(file, "order_id,customer_id,product_id,quantity,ordered_at").unwrap();
    for row in 0..rows {
        let customer = draws.skewed(customers);
        let kind = match draws.0.random_range(0..10) {
            0 => draws.0.random_range(0..kinds),
            1..6 => customer % kinds,
            _ => customer / kinds % kinds,
        };
        let product = (draws.skewed(items.div_ceil(kinds)) * kinds + kind).min(items - 1);
        let quantity = draws.0.random_range(1..4);
        let (month, day) = (draws.0.random_range(1..13), draws.0.random_range(1..29));
        let (hour, minute) = (draws.0.random_range(0..24), draws.0.random_range(0..60));
        writeln!(
            file,
            "{row},C{customer:06},P-{product:06},{quantity},2025-{month:02}-{day:02} \
             {hour:02}:{minute:02}:00"
        )
        .unwrap();
    }
    file.flush().unwrap();
}

fn goods(mut file: impl Write, items: u64) {
    const KINDS: [&str; 10] =
        ["green", "black", "oak", "round", "small", "old", "new", "red", "light", "heavy"];
    let mut draws = Draws::new();
    writeln!(file, "product_id,name,category,price,description").unwrap();
    for item in 0..items {
        let thing = THINGS[(item % THINGS.len() as u64) as usize];
        let words: Vec<&str> =
            (0..12).map(|_| KINDS[draws.0.random_range(0..KINDS.len())]).collect();
        let price = draws.0.random_range(100..10_000);
        writeln!(
            file,
            "P-{item:06},\"{} {thing}, no. {item}\",{thing},{}.{:02},\"A {} {thing}, {}\"",
            words[0],
            price / 100,
            price % 100,
            words[1],
            words[2..].join(" ")
        )
        .unwrap();
    }
    file.flush().unwrap();
}

fn read(layout: Kind, folder: &Path) {
    let (started, cpu) = (Instant::now(), ProcessTime::now());
    let data = match layout {
        Kind::Ml32m => readers::movielens(folder),
        Kind::Amazon2023 => readers::amazon(folder, &AmazonConfig::default()),
        Kind::Goodreads => readers::goodreads(folder, &GoodreadsConfig::default()),
        Kind::Shop => readers::tables(
            folder.join("orders.csv"),
            folder.join("products.csv"),
            &PairsConfig::default(),
            &ItemsConfig::default(),
        ),
    };
    let data = data.unwrap();
    let rows: u64 = data.report().files.iter().map(|file| file.rows).sum();
    let interactions = data.report().files[0].rows;
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), cpu.elapsed().as_secs_f64());
    println!("{}", data.stats());
    println!(
        "{rows} rows in {seconds:.1} s, {cpu:.1} s of CPU: {:.2} million a second",
        rows as f64 / seconds / 1e6
    );
    show_peak("read", interactions);
    let started = Instant::now();
    let core: Dataset = if layout == Kind::Ml32m { data } else { data.k_core(5, 5) };
    let split = Split::new(&core, &SplitConfig::default()).unwrap();
    println!(
        "{}; filtered and split into {}, {} and {} in {:.1} s",
        core.stats(),
        split.train.len(),
        split.valid.len(),
        split.test.len(),
        started.elapsed().as_secs_f64()
    );
    show_peak("filtered and split", interactions);
}

/// The peak resident memory of the process, if the system reports it.
fn show_peak(done: &str, interactions: u64) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    if let Some(kilobytes) = kilobytes {
        println!(
            "{done}: at most {} MB, {} bytes for each row of interactions",
            kilobytes / 1024,
            kilobytes * 1024 / interactions.max(1)
        );
    }
}
