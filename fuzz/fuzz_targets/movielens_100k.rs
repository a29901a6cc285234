//! Arbitrary bytes as the files of MovieLens 100K.
#![no_main]

mod folder;

use glta_data::readers::movielens;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    folder::with_files(data, &["u.data", "u.genre", "u.item"], |path| {
        let _ = movielens(path);
    });
});
