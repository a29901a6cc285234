//! Arbitrary bytes as `tokenizer.json`. A tokenizer that loads must encode and decode.
#![no_main]

use glta_llm::Tokenizer;
use libfuzzer_sys::fuzz_target;
use std::cell::LazyCell;
use tempfile::TempDir;

thread_local! {
    static DIR: LazyCell<TempDir> = LazyCell::new(|| {
        // The fuzzer's panic hook also aborts on panics that are converted to errors.
        std::panic::set_hook(Box::new(|_| ()));
        tempfile::tempdir().expect("a folder")
    });
}

fuzz_target!(|data: &[u8]| {
    DIR.with(|dir| {
        std::fs::write(dir.path().join("tokenizer.json"), data).expect("a write");
        let Ok(tokenizer) = Tokenizer::load(dir.path()) else {
            return;
        };
        if let Ok(ids) = tokenizer.encode("Héllo wörld 12\n\n  ab", true) {
            let _ = tokenizer.decode(&ids);
        }
        let _ = tokenizer.decode(&[0, 1, 2, 255, u32::MAX]);
    });
});
