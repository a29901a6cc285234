use serde::{Deserialize, Serialize};

use crate::{Error, Item, Result};

/// Settings for the text of an item, which is composed of its fields.
///
/// ```
/// use glta_data::{Item, TextConfig};
///
/// let item = Item {
///     genres: vec!["Action".into(), "Sci-Fi".into()],
///     ..Item::titled("2571", "Matrix, The (1999)")
/// };
/// let text = TextConfig::default().text(&item);
/// assert_eq!(text, "The Matrix (1999). Action, Sci-Fi");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TextConfig {
    /// Names of the fields, in order: `title`, `genres`, `description`, or the name of another text
    /// of the items. Empty fields are omitted. Default title, genres, description.
    pub fields: Vec<String>,
    /// Text between two fields. Default `". "`.
    pub separator: String,
    /// Maximum number of words of the text. Default 100.
    pub max_words: usize,
    /// Whether `Matrix, The (1999)` becomes `The Matrix (1999)`, the form that language models
    /// know. Default true.
    pub natural_titles: bool,
}

impl Default for TextConfig {
    fn default() -> Self {
        Self {
            fields: ["title", "genres", "description"].map(String::from).to_vec(),
            separator: ". ".into(),
            max_words: 100,
            natural_titles: true,
        }
    }
}

impl TextConfig {
    /// Checks that all settings are valid.
    ///
    /// # Errors
    /// Returns [`Error::Config`] if there is no field, a field is repeated, or the number of words
    /// is 0.
    pub fn validate(&self) -> Result<()> {
        let config = |field, problem: String| Err(Error::Config { field, problem });
        if self.fields.is_empty() {
            return config("fields", "needs at least one field, such as title".into());
        }
        for (n, field) in self.fields.iter().enumerate() {
            if self.fields[..n].contains(field) {
                return config("fields", format!("`{field}` occurs twice"));
            }
        }
        if self.max_words == 0 {
            return config("max_words", "must be at least 1".into());
        }
        Ok(())
    }

    /// Returns the text of an item. The text is empty if the item has none of the fields.
    pub fn text(&self, item: &Item) -> String {
        let mut text = String::new();
        for field in &self.fields {
            let part = match field.as_str() {
                "title" if self.natural_titles => natural_title(&item.title),
                "title" => item.title.clone(),
                "genres" => item.genres.join(", "),
                "description" => item.description.clone(),
                other => item.other.get(other).cloned().unwrap_or_default(),
            };
            let part = part.trim();
            if part.is_empty() {
                continue;
            }
            if !text.is_empty() {
                // After `Who?` the separator is a space, not a full stop and a space.
                let ended = text.ends_with(['.', '!', '?']);
                match self.separator.strip_prefix('.') {
                    Some(rest) if ended => text.push_str(rest),
                    _ => text.push_str(&self.separator),
                }
            }
            text.push_str(part);
        }
        let end = word_starts(&text).nth(self.max_words);
        if let Some(end) = end {
            text.truncate(text[..end].trim_end().len());
        }
        text
    }
}

/// Returns the byte positions at which words start.
fn word_starts(text: &str) -> impl Iterator<Item = usize> + '_ {
    let mut blank = true;
    text.char_indices()
        .filter(move |&(_, c)| {
            let starts = blank && !c.is_whitespace();
            blank = c.is_whitespace();
            starts
        })
        .map(|(at, _)| at)
}

/// Articles that film lists append to the title.
const ARTICLES: &[&str] = &[
    "The", "A", "An", "Le", "La", "Les", "L'", "Un", "Une", "El", "Los", "Las", "Il", "Lo", "I",
    "Gli", "Der", "Die", "Das", "Ein", "Eine", "De", "Het", "Det", "Den", "En", "O", "Os",
];

/// Moves a trailing article to the front: `Postino, Il (1994)` → `Il Postino (1994)`.
pub(crate) fn natural_title(title: &str) -> String {
    let main_end = title.find(" (").unwrap_or(title.len());
    let (main, rest) = title.split_at(main_end);
    let Some((name, article)) = main.rsplit_once(", ") else {
        return title.to_owned();
    };
    if !ARTICLES.contains(&article) {
        return title.to_owned();
    }
    let space = if article.ends_with('\'') { "" } else { " " };
    format!("{article}{space}{name}{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles() {
        for (raw, natural) in [
            ("Matrix, The (1999)", "The Matrix (1999)"),
            ("Postino, Il (The Postman) (1994)", "Il Postino (The Postman) (1994)"),
            ("Avventura, L' (1960)", "L'Avventura (1960)"),
            ("Good, the Bad and the Ugly, The", "The Good, the Bad and the Ugly"),
            ("Eat Drink Man Woman (1994)", "Eat Drink Man Woman (1994)"),
            ("I, Robot (2004)", "I, Robot (2004)"),
            ("Me, Myself & Irene", "Me, Myself & Irene"),
            ("", ""),
        ] {
            assert_eq!(natural_title(raw), natural);
        }
    }

    #[test]
    fn parts_words_and_ends() {
        let mut item = Item::titled("1", "Who?");
        item.description = "one  two\nthree four".into();
        item.other.insert("brand".into(), "Acme".into());
        let mut config = TextConfig {
            fields: ["title", "brand", "year", "description"].map(String::from).to_vec(),
            ..TextConfig::default()
        };
        assert_eq!(config.text(&item), "Who? Acme. one  two\nthree four");
        config.max_words = 4;
        assert_eq!(config.text(&item), "Who? Acme. one  two");
        config.max_words = 1;
        assert_eq!(config.text(&item), "Who?");
        config.separator = " | ".into();
        config.max_words = 3;
        assert_eq!(config.text(&item), "Who? | Acme");
        assert_eq!(config.text(&Item::new("2")), "");
    }

    #[test]
    fn bad_settings() {
        let default = TextConfig::default;
        assert!(default().validate().is_ok());
        for bad in [
            TextConfig { fields: vec![], ..default() },
            TextConfig { fields: vec!["title".into(), "title".into()], ..default() },
            TextConfig { max_words: 0, ..default() },
        ] {
            assert!(bad.validate().is_err());
        }
    }
}
