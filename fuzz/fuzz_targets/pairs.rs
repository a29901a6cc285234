//! Arbitrary bytes as a table of interactions, and as the two files of a published split.
#![no_main]

mod folder;

use glta_data::readers::{PairsConfig, pairs, split_pairs};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    folder::with_files(data, &["train", "test"], |path| {
        let config = PairsConfig::default();
        let _ = pairs(path.join("train"), &config);
        let _ = split_pairs("split", path.join("train"), path.join("test"), &config);
    });
});
