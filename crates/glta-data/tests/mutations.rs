//! Ten thousand damaged files of every format: no reader panics, hangs, or allocates more than a
//! multiple of the size of its input.
#![cfg(feature = "readers")]
#![allow(clippy::unwrap_used)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use glta_data::readers::{self, AmazonConfig, GoodreadsConfig, ItemsConfig, PairsConfig};
use glta_data::{Dataset, Result, Split, SplitConfig};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use common::{CSV, DAT, ML_100K, gzip};

/// The system's allocator, which also counts the allocated bytes.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator with the same arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller upholds the contract of `GlobalAlloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller upholds the contract of `GlobalAlloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Number of bytes that a reader may allocate for any input: buffers, and the first tables of ids.
const FIXED: usize = 4 << 20;
/// Maximum number of allocated bytes per byte of input, in addition to [`FIXED`].
const MULTIPLE: usize = 200;

const MUTATIONS: usize = 10_000;

type Read = fn(&Path) -> Result<Dataset>;

/// The files of a format and the reader for them.
struct Case {
    name: &'static str,
    files: Vec<(&'static str, Vec<u8>)>,
    read: Read,
}

fn table(path: &Path) -> Result<Dataset> {
    let data = readers::pairs(path.join("t"), &PairsConfig::default())?;
    let split = Split::new(&data, &SplitConfig::default())?;
    assert_eq!(split.train.len() + split.valid.len() + split.test.len(), data.interactions().len());
    Ok(data)
}

fn cases() -> Vec<Case> {
    let files = |files: &[(&'static str, &[u8])]| {
        files.iter().map(|(name, bytes)| (*name, bytes.to_vec())).collect()
    };
    let one =
        |name, text: &str| Case { name, files: vec![("t", text.as_bytes().to_vec())], read: table };
    let movielens: Read = |path| readers::movielens(path);
    let amazon: Read = |path| readers::amazon(path, &AmazonConfig::default());
    let meta_2018: &[u8] = br#"{"asin": "B1", "title": "A &amp; B", "description": ["x", "<b>y</b>"], "category": ["C"]}
{"asin": "B2", "title": "", "description": [], "feature": ["f"], "brand": "X"}
"#;
    let mut cases = vec![
        Case { name: "ml-100k", files: files(ML_100K), read: movielens },
        Case { name: "ml-1m", files: files(DAT), read: movielens },
        Case { name: "ml-25m", files: files(CSV), read: movielens },
        Case {
            name: "amazon 2014",
            files: files(&[
                ("reviews_H.json", b"{'reviewerID': 'A', 'asin': 'B1', 'overall': 5.0, 'unixReviewTime': 7}\n{u'reviewerID': u'B', 'asin': 'B2', 'overall': 1.0, 'x': [1, (2, None)]}\n"),
                ("meta_H.json", b"{'asin': 'B1', 'title': 'it\\'s', 'categories': [['A', 'B']]}\n{'asin': 'B2'}\n"),
            ]),
            read: amazon,
        },
        Case {
            name: "amazon 2018",
            files: files(&[
                ("H.json", b"{\"reviewerID\": \"A\", \"asin\": \"B1\", \"overall\": 5.0, \"unixReviewTime\": 7}\n{\"reviewerID\": \"B\", \"asin\": \"B2\"}\n"),
                ("meta_H.json", meta_2018),
            ]),
            read: amazon,
        },
        Case {
            name: "amazon 2023",
            files: files(&[
                ("H.jsonl", b"{\"user_id\": \"A\", \"parent_asin\": \"B1\", \"rating\": 5.0, \"timestamp\": 1588687728923}\n"),
                ("meta_H.jsonl", b"{\"parent_asin\": \"B1\", \"title\": \"T\", \"features\": [\"f\"], \"details\": {\"a\": \"b\"}}\n"),
            ]),
            read: amazon,
        },
        Case {
            name: "amazon csv",
            files: files(&[
                ("H.csv", b"user_id,parent_asin,rating,timestamp\nA,B1,5.0,1588687728923\nB,B2,1.0,1588687728924\n"),
                ("meta_H.json", meta_2018),
            ]),
            read: amazon,
        },
        Case {
            name: "minionerec",
            files: files(&[
                ("H.item.json", b"{\"0\": {\"title\": \"A\", \"description\": \"['x', 'y']\"}, \"1\": {\"title\": \"B\"}}"),
                ("valid.csv", b"user_id,history_item_id,item_id\nA,\"[0, 1]\",1\nB,[],0\n"),
            ]),
            read: amazon,
        },
        Case {
            name: "goodreads",
            files: files(&[
                ("goodreads_books.json", b"{\"book_id\": \"1\", \"title\": \"A\", \"popular_shelves\": [{\"count\": \"3\", \"name\": \"x\"}]}\n{\"book_id\": 2}\n"),
                ("goodreads_interactions.json", b"{\"user_id\": \"a\", \"book_id\": \"1\", \"is_read\": true, \"rating\": 4, \"date_added\": \"Fri Apr 19 08:15:15 -0700 2013\"}\n{\"user_id\": \"b\", \"book_id\": \"2\", \"is_read\": false}\n"),
                ("goodreads_book_genres_initial.json", b"{\"book_id\": \"1\", \"genres\": {\"fiction\": 3}}\n"),
            ]),
            read: |path| readers::goodreads(path, &GoodreadsConfig::default()),
        },
        Case {
            name: "goodreads as CSV",
            files: files(&[
                ("goodreads_books.json", b"{\"book_id\": \"1\", \"title\": \"A\"}\n{\"book_id\": 2}\n"),
                ("goodreads_interactions.csv", b"user_id,book_id,is_read,rating,is_reviewed\n0,1,1,5,0\n1,0,0,0,0\n"),
                ("book_id_map.csv", b"book_id_csv,book_id\n0,1\n1,2\n"),
                ("user_id_map.csv", b"user_id_csv,user_id\n0,8842281e\n1,72fb0d00\n"),
            ]),
            read: |path| readers::goodreads(path, &GoodreadsConfig::default()),
        },
        Case {
            name: "ihp",
            files: files(&[
                ("user_history_train.json", b"{\"1\": [5, 6], \"0\": [5]}"),
                ("user_history_test.json", b"{\"0\": [6], \"2\": []}"),
            ]),
            read: |path| Ok(readers::ihp(path)?.0),
        },
        Case {
            name: "split lists",
            files: files(&[("train", b"0 1 2 3\n1 4 5\n2\n"), ("test", b"0 4\n1 1 2\n")]),
            read: |path| {
                let config = PairsConfig::default();
                let split = readers::split_pairs("s", path.join("train"), path.join("test"), &config);
                Ok(split?.0)
            },
        },
        Case {
            name: "tables",
            files: files(&[
                ("orders", b"customer_id;product_id;date\nann;1;2024-01-31\nbob;2;2024-02-01 10:00:00\n"),
                ("products", b"product_id,name,category\n1,\"Tea, \"\"green\"\"\nleaf\",Drinks|Hot\n2,Milk,\n"),
            ]),
            read: |path| {
                let (pairs, items) = (PairsConfig::default(), ItemsConfig::default());
                readers::tables(path.join("orders"), path.join("products"), &pairs, &items)
            },
        },
        one("lists", "0 1 2 3\n1 4 5\n2\n3 1 2 5 9\n"),
        one("lists with commas", "0,1,2,3\n1,4,5\n2\n3,1,2,5,9\n"),
        one("u.data", "1\t2\t3\t881250949\n1\t3\t4\t881250950\n2\t2\t1\t881250951\n"),
        one("header", "user_id,item_id,rating,timestamp\na,x,4.5,2020-01-01\nb,y,3,2020-01-02\n"),
        one("quoted", "\"user\",\"item\"\n\"a, b\",\"x \"\"y\"\"\"\n\"c\nd\",\"z\"\n"),
        one("semicolons", "user;item;rating\na;x;4,5\nb;y;3,0\n"),
        one("recbole", "user_id:token\titem_id:token\ttimestamp:float\n1\t2\t8.8e8\n3\t4\t8.9e8\n"),
        one("double colons", "1::2::3.5::100\n1::3::4::200\n2::2::1::300\n"),
        one("comments", "# by hand\n% again\nann tea\nbob milk\n# end\nbob tea\n"),
        one("json lines", "{\"user\": \"a\", \"item\": 1, \"time\": 5}\n{\"user\": \"b\", \"item\": 2, \"x\": [1, {\"y\": null}]}\n"),
        Case {
            name: "UTF-16",
            files: vec![(
                "t",
                "\u{feff}user,item\na,x\nb,\u{1f375}\n".encode_utf16().flat_map(u16::to_le_bytes).collect(),
            )],
            read: table,
        },
        one("write.table", "\"user\" \"item\"\n\"1\" \"a\" \"x\"\n\"2\" \"b\" \"y\"\n"),
    ];
    let gzipped: Vec<_> = CSV.iter().map(|(name, bytes)| (*name, gzip(bytes))).collect();
    cases.push(Case { name: "gzip", files: gzipped, read: movielens });
    cases
}

/// Damages bytes or lines, or changes their order.
fn mutate(bytes: &mut Vec<u8>, rng: &mut ChaCha8Rng) {
    const TOKENS: [&[u8]; 24] = [
        b"\"",
        b"'",
        b",",
        b"\t",
        b";",
        b"::",
        b"\n",
        b"\r",
        b"\r\n",
        b"{",
        b"}",
        b"[",
        b"]",
        b"\\",
        b"nan",
        b"null",
        b"-1",
        b"1e999",
        b"99999999999999999999",
        b"4194303",
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
        b"#",
    ];
    for _ in 0..rng.random_range(1..6) {
        let at = rng.random_range(0..=bytes.len());
        let to = rng.random_range(at..=bytes.len().min(at + 20));
        match rng.random_range(0..7) {
            0 if at < bytes.len() => bytes[at] = rng.random(),
            1 => drop(bytes.drain(at..to)),
            2 => {
                let token = TOKENS.choose(rng).copied().unwrap_or_default();
                bytes.splice(at..at, token.iter().copied());
            }
            3 => {
                let part = bytes[at..to].to_vec();
                let elsewhere = rng.random_range(0..=bytes.len());
                bytes.splice(elsewhere..elsewhere, part);
            }
            4 => bytes.truncate(at),
            5 => {
                let token = TOKENS.choose(rng).copied().unwrap_or_default();
                let many = token.repeat(rng.random_range(1..500));
                bytes.splice(at..at, many);
            }
            _ => {
                let mut lines: Vec<Vec<u8>> =
                    bytes.split_inclusive(|&b| b == b'\n').map(<[u8]>::to_vec).collect();
                if let Some(line) = lines.choose(rng).cloned() {
                    let place = rng.random_range(0..=lines.len());
                    lines.insert(place, line);
                }
                *bytes = lines.concat();
            }
        }
    }
}

#[test]
fn damaged_files_are_read_or_rejected() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let cases = cases();
    let folders: Vec<tempfile::TempDir> =
        cases.iter().map(|_| tempfile::tempdir().unwrap()).collect();
    for (case, folder) in cases.iter().zip(&folders) {
        for (name, bytes) in &case.files {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        (case.read)(folder.path()).unwrap_or_else(|e| panic!("{}: {e}", case.name));
    }
    let (mut read, mut refused) = (0, 0);
    for n in 0..MUTATIONS {
        let (case, folder) = (&cases[n % cases.len()], &folders[n % cases.len()]);
        let (name, bytes) = case.files.choose(&mut rng).unwrap();
        let mut damaged = bytes.clone();
        mutate(&mut damaged, &mut rng);
        fs::write(folder.path().join(name), &damaged).unwrap();
        let size: usize =
            case.files.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() + damaged.len();
        let before = NOW.load(Ordering::Relaxed);
        PEAK.store(before, Ordering::Relaxed);
        match (case.read)(folder.path()) {
            Ok(data) => {
                read += 1;
                let items = data.items().iter().map(|item| &item.raw_id);
                for id in data.users().iter().chain(items) {
                    assert!(!id.trim().is_empty(), "{}, mutation {n}: an empty id", case.name);
                }
            }
            Err(error) => {
                refused += 1;
                assert!(!error.to_string().is_empty());
            }
        }
        let peak = PEAK.load(Ordering::Relaxed) - before;
        let most = FIXED + MULTIPLE * size;
        assert!(peak < most, "{}, mutation {n}: {peak} bytes for {size}", case.name);
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    // The test is only useful if both outcomes are frequent.
    assert!(read > MUTATIONS / 10 && refused > MUTATIONS / 10, "{read} read, {refused} refused");
}
