//! Arbitrary bytes as reviews and metadata of Amazon: JSON lines or Python dicts.
#![no_main]

mod folder;

use glta_data::readers::{AmazonConfig, amazon};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    folder::with_files(data, &["Home.json", "meta_Home.json"], |path| {
        let _ = amazon(path, &AmazonConfig::default());
    });
});
