//! Searches the catalogue by id, title and fields.

use glta_align::ItemRecord;
use memchr::memmem::Finder;

/// Separator of the parts of a line, a character that cannot be typed.
const PART: char = '\0';

/// A search index with one line per item in lower case: id, title, fields, text.
#[derive(Debug, Default)]
pub(crate) struct Search {
    lines: Vec<Box<str>>,
}

impl Search {
    pub(crate) fn new(items: &[ItemRecord]) -> Self {
        Self { lines: items.iter().map(line).collect() }
    }

    /// Adds the items that are not in the index yet.
    pub(crate) fn follow(&mut self, items: &[ItemRecord]) {
        let known = self.lines.len().min(items.len());
        self.lines.extend(items[known..].iter().map(line));
    }

    /// Replaces the line of an item in the index.
    pub(crate) fn replace(&mut self, item: u32, record: &ItemRecord) {
        if let Some(known) = self.lines.get_mut(item as usize) {
            *known = line(record);
        }
    }

    /// Returns the first `most` items that contain all words of `text`, ignoring case and order,
    /// and the total number of such items. An item whose id equals the text comes first, then items
    /// whose title begins with the text, items whose title contains the words, and all other items,
    /// each in the order of the catalogue.
    pub(crate) fn find(&self, text: &str, most: usize) -> (Vec<u32>, usize) {
        let text = text.trim().to_lowercase();
        if text.is_empty() {
            return ((0..self.lines.len().min(most) as u32).collect(), self.lines.len());
        }
        let words: Vec<Finder<'_>> = text.split_whitespace().map(Finder::new).collect();
        let mut found: [Vec<u32>; 4] = Default::default();
        let mut all = 0;
        for (line, item) in self.lines.iter().zip(0..) {
            if words.iter().any(|word| word.find(line.as_bytes()).is_none()) {
                continue;
            }
            all += 1;
            let mut parts = line.splitn(3, PART);
            let (id, title) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
            let rank = if id == text {
                0
            } else if title.starts_with(&text) {
                1
            } else if words.iter().all(|word| word.find(title.as_bytes()).is_some()) {
                2
            } else {
                3
            };
            if found[rank].len() < most {
                found[rank].push(item);
            }
        }
        let mut best = found.concat();
        best.truncate(most);
        (best, all)
    }
}

fn line(item: &ItemRecord) -> Box<str> {
    let mut line = format!("{}{PART}{}", item.raw_id, item.title);
    for value in item.fields.values().flatten().chain([&item.text]) {
        line.push(PART);
        line.push_str(value);
    }
    line.to_lowercase().into()
}

/// Returns the first `most` of `ids` that contain `text`, ignoring case. An exact match comes
/// first.
pub(crate) fn find_ids<'a>(
    ids: impl Iterator<Item = &'a str>,
    text: &str,
    most: usize,
) -> Vec<String> {
    let text = text.trim().to_lowercase();
    let mut found: Vec<String> = Vec::new();
    for id in ids {
        let lower = id.to_lowercase();
        if lower == text {
            found.insert(0, id.to_owned());
            found.truncate(most);
        } else if found.len() < most && lower.contains(&text) {
            found.push(id.to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(id: &str, title: &str, category: &str) -> ItemRecord {
        let mut item = ItemRecord::bare(id);
        item.title = title.into();
        item.text = format!("{title}. {category}");
        item.fields.insert("genres".into(), vec![category.into()]);
        item
    }

    #[test]
    fn words_are_found_in_any_case_and_order_and_the_best_place_first() {
        let mut items = vec![
            item("a1", "Mug for tea", "Kitchen"),
            item("b2", "Earl Grey", "Tea"),
            item("tea", "Box", "Kitchen"),
            item("c3", "Tea with bergamot", "Tea"),
        ];
        let mut search = Search::new(&items);
        assert_eq!(search.find("TEA", 9), (vec![2, 3, 0, 1], 4));
        assert_eq!(search.find("bergamot tea", 9), (vec![3], 1));
        assert_eq!(search.find("tea", 2), (vec![2, 3], 4));
        assert_eq!(search.find(" ", 2), (vec![0, 1], 4));
        assert_eq!(search.find("plectrum", 9), (vec![], 0));
        items.push(item("d4", "Plectrum", "Music"));
        search.follow(&items);
        assert_eq!(search.find("plectrum", 9), (vec![4], 1));
        search.replace(4, &item("d4", "Guitar", "Music"));
        assert_eq!(search.find("plectrum", 9).1, 0);
        assert_eq!(search.find("music", 9).1, 1);
    }

    #[test]
    fn ids_are_found_in_any_case_and_the_same_id_comes_first() {
        let ids = ["C01", "c0178", "x", "C0"];
        assert_eq!(find_ids(ids.into_iter(), "c0", 2), ["C0", "C01"]);
        assert_eq!(find_ids(ids.into_iter(), "C0178", 9), ["c0178"]);
        assert_eq!(find_ids(ids.into_iter(), "", 2), ["C01", "c0178"]);
    }
}
