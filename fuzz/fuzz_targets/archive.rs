//! Arbitrary bytes as a zip archive of MovieLens.
#![no_main]

mod folder;

use glta_data::readers::movielens;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    folder::with_files(data, &["ml.zip"], |path| {
        let _ = movielens(path.join("ml.zip"));
    });
});
