//! Arbitrary bytes as the files of MiniOneRec.
#![no_main]

mod folder;

use glta_data::readers::{AmazonConfig, amazon};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    folder::with_files(data, &["Home.item.json", "train.csv", "interactions.tsv"], |path| {
        let _ = amazon(path, &AmazonConfig::default());
    });
});
