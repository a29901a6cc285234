//! Splits a text into terms.

/// Returns the words of a text in lower case, and the pairs of consecutive words.
pub(super) fn terms(text: &str, max_words: usize) -> Vec<String> {
    let lower = text.to_lowercase();
    let words: Vec<&str> = lower
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .take(max_words)
        .collect();
    let pairs = words.windows(2).map(|pair| format!("{} {}", pair[0], pair[1]));
    words.iter().map(|word| (*word).to_owned()).chain(pairs).collect()
}

#[cfg(test)]
mod tests {
    use super::terms;

    #[test]
    fn words_and_pairs() {
        assert_eq!(terms("Green—TEA, 50g!", 80), ["green", "tea", "50g", "green tea", "tea 50g"]);
        assert_eq!(terms("ein süßer Tee", 2), ["ein", "süßer", "ein süßer"]);
        assert_eq!(terms("茶 ・ 机", 9), ["茶", "机", "茶 机"]);
        assert!(terms(" .,! ", 9).is_empty());
    }
}
