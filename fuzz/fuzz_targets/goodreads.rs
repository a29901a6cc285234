//! Arbitrary bytes as books, interactions and genres of Goodreads.
#![no_main]

mod folder;

use glta_data::readers::{GoodreadsConfig, goodreads};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    folder::with_files(
        data,
        &[
            "goodreads_books.json",
            "goodreads_interactions.json",
            "goodreads_book_genres_initial.json",
        ],
        |path| {
            let _ = goodreads(path, &GoodreadsConfig::default());
            let genre =
                GoodreadsConfig { genre: Some("history".into()), ..GoodreadsConfig::default() };
            let _ = goodreads(path, &genre);
        },
    );
});
