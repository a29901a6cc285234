//! Arbitrary bytes as the CSV edition of Goodreads' interactions, with its maps of ids.
#![no_main]

mod folder;

use glta_data::readers::{GoodreadsConfig, goodreads};
use libfuzzer_sys::fuzz_target;

const FILES: [&str; 4] =
    ["goodreads_interactions.csv", "book_id_map.csv", "user_id_map.csv", "goodreads_books.json"];

fuzz_target!(|data: &[u8]| {
    folder::with_files(data, &FILES, |path| {
        let _ = goodreads(path, &GoodreadsConfig::default());
    });
});
