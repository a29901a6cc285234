//! A folder whose files are parts of the fuzzer's bytes, separated by `0xfe`.

use std::cell::LazyCell;
use std::path::Path;

use tempfile::TempDir;

thread_local! {
    static DIR: LazyCell<TempDir> = LazyCell::new(|| tempfile::tempdir().expect("a folder"));
}

/// Calls `read` with a folder of these files. A file without a part does not exist.
pub(crate) fn with_files(data: &[u8], names: &[&str], read: impl FnOnce(&Path)) {
    let mut parts = data.splitn(names.len(), |&byte| byte == 0xfe);
    DIR.with(|dir| {
        for name in names {
            let path = dir.path().join(name);
            match parts.next() {
                Some(bytes) => std::fs::write(path, bytes).expect("a write"),
                None => drop(std::fs::remove_file(path)),
            }
        }
        read(dir.path());
    });
}
