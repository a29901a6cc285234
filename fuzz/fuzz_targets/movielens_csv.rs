//! Arbitrary bytes as the files of the later MovieLens sets.
#![no_main]

mod folder;

use glta_data::readers::movielens;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    folder::with_files(data, &["ratings.csv", "movies.csv"], |path| {
        let _ = movielens(path);
    });
});
