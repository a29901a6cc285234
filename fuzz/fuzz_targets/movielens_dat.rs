//! Arbitrary bytes as the files of MovieLens 1M and 10M.
#![no_main]

mod folder;

use glta_data::readers::movielens;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    folder::with_files(data, &["ratings.dat", "movies.dat", "dbpedia_abstracts.json"], |path| {
        let _ = movielens(path);
    });
});
