//! Any bytes as `tokenizer.json` and, after a zero byte, `tokenizer_config.json`; what loads must
//! encode and decode, and a chat template render.
#![no_main]

use glta_llm::{ChatTemplate, Tokenizer};
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
        let mut parts = data.splitn(2, |&byte| byte == 0);
        for name in ["tokenizer.json", "tokenizer_config.json"] {
            let path = dir.path().join(name);
            match parts.next() {
                Some(bytes) => std::fs::write(path, bytes).expect("a write"),
                None => drop(std::fs::remove_file(path)),
            }
        }
        if let Ok(Some(chat)) = ChatTemplate::load(dir.path()) {
            let _ = chat.render(&[("system", "s"), ("user", " u ")]);
        }
        let Ok(tokenizer) = Tokenizer::load(dir.path()) else {
            return;
        };
        if let Ok(ids) = tokenizer.encode("Héllo wörld 12\n\n  ab", true) {
            let _ = tokenizer.decode_continuation(&ids, &[0, 1, 2]);
        }
        let _ = tokenizer.encode_continuation("Héllo <s>");
        let _ = tokenizer.decode(&[0, 1, 2, 255, u32::MAX]);
    });
});
