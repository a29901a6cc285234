//! Files of LightGCN-PyTorch.

use std::error::Error;
use std::path::Path;

/// Reads LightGCN's lists: one user and the user's items per line.
pub(crate) fn pairs(
    path: impl AsRef<Path>,
) -> Result<Vec<(u32, u32)>, Box<dyn Error + Send + Sync>> {
    let mut pairs = Vec::new();
    for line in std::fs::read_to_string(path)?.lines() {
        let mut ids = line.split_ascii_whitespace().map(str::parse::<u32>);
        if let Some(user) = ids.next() {
            let user = user?;
            for item in ids {
                pairs.push((user, item?));
            }
        }
    }
    Ok(pairs)
}
