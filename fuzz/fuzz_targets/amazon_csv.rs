//! Arbitrary bytes as ratings and metadata of Amazon.
#![no_main]

mod folder;

use glta_data::readers::{AmazonConfig, amazon};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    folder::with_files(data, &["Home.csv", "meta_Home.json"], |path| {
        let _ = amazon(path, &AmazonConfig::default());
    });
});
