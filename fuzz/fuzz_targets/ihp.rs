//! Arbitrary bytes as the split of IHP.
#![no_main]

mod folder;

use glta_data::readers::ihp;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    folder::with_files(data, &["user_history_train.json", "user_history_test.json"], |path| {
        let _ = ihp(path);
    });
});
