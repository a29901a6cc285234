/// Returns up to three known names nearest to an unknown one, by Levenshtein distance. Names that
/// differ in more than half of their letters are omitted.
///
/// ```
/// use glta_core::near_names;
///
/// let near = near_names("producd_id", ["customer_id", "product_id", "name"]);
/// assert_eq!(near, ["product_id"]);
/// ```
pub fn near_names<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let most = unknown.chars().count().div_ceil(2);
    let mut near: Vec<(usize, &str)> = known
        .into_iter()
        // The difference in length is a lower bound of the distance, and cheaper to compute.
        .filter(|name| name.len().abs_diff(unknown.len()) <= 4 * most)
        .map(|name| (strsim::levenshtein(name, unknown), name))
        .filter(|&(distance, _)| distance <= most)
        .collect();
    near.sort_unstable();
    near.truncate(3);
    near.into_iter().map(|(_, name)| name).collect()
}
