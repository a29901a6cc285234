//! Paths of real data sets and checkpoints, for tests that are ignored without them.

use std::path::PathBuf;

/// Returns the path of `name` in the folder that `GLTA_DATA` names.
pub(crate) fn real_data(name: &str) -> PathBuf {
    let folder = std::env::var_os("GLTA_DATA")
        .expect("GLTA_DATA must name the folder that has `data` and `models`");
    let path = PathBuf::from(folder).join(name);
    assert!(path.exists(), "{}: no such file or folder", path.display());
    path
}
