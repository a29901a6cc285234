//! Arbitrary bytes as a table of interactions and a table of items.
#![no_main]

mod folder;

use glta_data::readers::{ItemsConfig, PairsConfig, tables};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    folder::with_files(data, &["orders", "items"], |path| {
        let _ = tables(
            path.join("orders"),
            path.join("items"),
            &PairsConfig::default(),
            &ItemsConfig::default(),
        );
    });
});
