//! Any bytes as `config.json` and, after a zero byte each, `quantize_config.json` and
//! `generation_config.json`.
#![no_main]

use glta_llm::LlamaConfig;
use libfuzzer_sys::fuzz_target;
use std::cell::LazyCell;
use tempfile::TempDir;

thread_local! {
    static DIR: LazyCell<TempDir> = LazyCell::new(|| tempfile::tempdir().expect("a folder"));
}

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(3, |&byte| byte == 0);
    DIR.with(|dir| {
        for name in ["config.json", "quantize_config.json", "generation_config.json"] {
            let path = dir.path().join(name);
            match parts.next() {
                Some(bytes) => std::fs::write(path, bytes).expect("a write"),
                None => drop(std::fs::remove_file(path)),
            }
        }
        if let Ok(config) = LlamaConfig::from_dir(dir.path()) {
            config.validate().expect("what was read is valid");
        }
    });
});
