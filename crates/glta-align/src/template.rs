//! Templates of the prompts, with placeholders for texts and soft tokens. They have the form of the
//! checkpoint's chat template. Checkpoints without a chat template use ChatML or the paper's
//! LLaMA-2 form.

use std::path::Path;

use glta_llm::ChatTemplate;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The prompts of the method for one family of language models.
///
/// Placeholders are in braces. The paper fixes their order (thesis, chapter 4), and loading a file
/// checks the order. All other text can be changed.
///
/// ```
/// use glta_align::Templates;
///
/// let mut templates = Templates::llama2()?;
/// templates.separator = " | ".into();
/// templates.validate()?;
/// templates.user = "a prompt without placeholders".into();
/// assert!(templates.validate().is_err());
/// # Ok::<(), glta_align::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Templates {
    /// Prompt of item-text alignment, with the placeholders `{DESCRIPTIONS}` and `{ITEMS}`.
    pub item: String,
    /// Prompt of user-item alignment, with the placeholders `{USER}`, `{ITEMS}`, `{PROFILE}` and
    /// `{PREDICTION}`.
    pub user: String,
    /// Instruction to write a user's tags, with the placeholders `{K}` (number of words) and
    /// `{DESCRIPTIONS}`.
    pub profile: String,
    /// Instruction to predict a user's interests, with the placeholders `{K}` (number of words) and
    /// `{DESCRIPTIONS}`.
    pub prediction: String,
    /// Text between two descriptions.
    pub separator: String,
}

/// The content that replaces a placeholder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fill<'a> {
    /// Text of the prompt.
    Text(&'a str),
    /// Number of soft tokens, taken in order.
    Soft(usize),
    /// Texts, each followed by a soft token, and the separator between them.
    Marked(&'a [&'a str], &'a str),
}

/// A part of a rendered prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Span {
    /// Text for the tokenizer.
    Text(String),
    /// Consecutive soft tokens.
    Soft(usize),
}

const ITEM: &[&str] = &["DESCRIPTIONS", "ITEMS"];
const USER: &[&str] = &["USER", "ITEMS", "PROFILE", "PREDICTION"];
const WRITE: &[&str] = &["K", "DESCRIPTIONS"];

impl Templates {
    /// Returns the templates in the LLaMA-2 chat form `[INST] <<SYS>> … <</SYS>> … [/INST]`, which
    /// is the paper's.
    ///
    /// # Errors
    /// Never fails, because the file in the crate is valid.
    pub fn llama2() -> Result<Self> {
        Self::parse(include_str!("../templates/llama2.toml"), "templates/llama2.toml")
    }

    /// Returns the templates in the ChatML form `<|im_start|>role … <|im_end|>`.
    ///
    /// # Errors
    /// Never fails, because the file in the crate is valid.
    pub fn chatml() -> Result<Self> {
        Self::parse(include_str!("../templates/chatml.toml"), "templates/chatml.toml")
    }

    /// Renders the prompts with a checkpoint's chat template. If the template does not support
    /// system messages, the system message precedes the user message.
    ///
    /// ```
    /// use glta_align::Templates;
    /// use glta_llm::ChatTemplate;
    ///
    /// let dir = tempfile::tempdir()?;
    /// let source = "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}[answer]";
    /// std::fs::write(dir.path().join("chat_template.jinja"), source)?;
    /// let chat = ChatTemplate::load(dir.path())?.ok_or("no template")?;
    /// let templates = Templates::from_chat(&chat)?;
    /// assert!(templates.profile.starts_with("[system] You describe"));
    /// assert!(templates.profile.ends_with("Items: {DESCRIPTIONS}[answer]"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Returns an error if the template cannot be rendered or changes the placeholders.
    pub fn from_chat(chat: &ChatTemplate) -> Result<Self> {
        let words = Self::chatml()?;
        let form = |prompt: &str| -> Result<String> {
            let (system, user) = messages(prompt);
            let rendered = match chat.render(&[("system", system), ("user", user)]) {
                Ok(rendered) if rendered.contains(system.trim()) => rendered,
                _ => chat.render(&[("user", &format!("{system}\n\n{user}"))])?,
            };
            Ok(rendered)
        };
        let user = form(&words.user)?;
        // Lines may be omitted, so a line with a placeholder must not contain tags of the chat
        // template.
        let last = "Potential interest: {PREDICTION}";
        let own_line = user.lines().any(|line| line.trim() == last);
        let user = if own_line {
            user
        } else {
            form(&words.user.replace(last, &format!("{last}\nSelected items:")))?
        };
        let templates = Self {
            item: form(&words.item)?,
            user,
            profile: form(&words.profile)?,
            prediction: form(&words.prediction)?,
            separator: words.separator,
        };
        templates.check(&chat.path().display().to_string())?;
        Ok(templates)
    }

    /// Loads a template file in TOML.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, or if placeholders are missing, unknown or in
    /// the wrong order.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        Self::parse(&text, &path.display().to_string())
    }

    fn parse(text: &str, file: &str) -> Result<Self> {
        let invalid = |problem: String| Error::Template { file: file.to_owned(), problem };
        let templates: Self = toml::from_str(text).map_err(|e| invalid(e.to_string()))?;
        templates.check(file)?;
        Ok(templates)
    }

    /// Checks that each prompt has the required placeholders in the required order.
    ///
    /// # Errors
    /// Returns [`Error::Template`] if placeholders are missing, unknown or in the wrong order.
    pub fn validate(&self) -> Result<()> {
        self.check("of the language model")
    }

    fn check(&self, file: &str) -> Result<()> {
        let invalid = |problem: String| Error::Template { file: file.to_owned(), problem };
        for (name, prompt, expected) in [
            ("item", &self.item, ITEM),
            ("user", &self.user, USER),
            ("profile", &self.profile, WRITE),
            ("prediction", &self.prediction, WRITE),
        ] {
            let found: Vec<String> = pieces(prompt)
                .filter_map(|piece| match piece {
                    Piece::Placeholder(name) => Some(name.to_owned()),
                    Piece::Literal(_) => None,
                })
                .collect();
            if found != expected {
                return Err(invalid(format!(
                    "prompt `{name}` must have the placeholders {} in this order, but has {}",
                    braces(expected),
                    braces(&found),
                )));
            }
        }
        Ok(())
    }

    /// Fills the placeholders of one of the four prompts. A line is omitted if `fill` returns
    /// `None` for its placeholder.
    pub(crate) fn render<'a>(prompt: &str, fill: impl Fn(&str) -> Option<Fill<'a>>) -> Vec<Span> {
        fn text(spans: &mut Vec<Span>, text: &str) {
            match spans.last_mut() {
                Some(Span::Text(last)) => last.push_str(text),
                _ => spans.push(Span::Text(text.to_owned())),
            }
        }
        let mut spans = Vec::new();
        for line in prompt.split_inclusive('\n') {
            let filled: Option<Vec<(Piece<'_>, Option<Fill<'a>>)>> = pieces(line)
                .map(|piece| match piece {
                    Piece::Literal(_) => Some((piece, None)),
                    Piece::Placeholder(name) => fill(name).map(|fill| (piece, Some(fill))),
                })
                .collect();
            for (piece, fill) in filled.into_iter().flatten() {
                match (piece, fill) {
                    (_, Some(Fill::Soft(n))) => spans.push(Span::Soft(n)),
                    (_, Some(Fill::Text(t))) | (Piece::Literal(t), None) => text(&mut spans, t),
                    (_, Some(Fill::Marked(texts, separator))) => {
                        for (n, t) in texts.iter().enumerate() {
                            text(&mut spans, if n == 0 { "" } else { separator });
                            text(&mut spans, t);
                            spans.push(Span::Soft(1));
                        }
                    }
                    (Piece::Placeholder(_), None) => {}
                }
            }
        }
        spans
    }

    /// Returns the prompt of item-text alignment with the item tokens before the descriptions. The
    /// lines of the two placeholders are exchanged, or only the placeholders if they are on the
    /// same line.
    pub(crate) fn items_first(&self) -> String {
        let (first, second) = ("{DESCRIPTIONS}", "{ITEMS}");
        let lines: Vec<&str> = self.item.split('\n').collect();
        let line = |name| lines.iter().position(|line| line.contains(name)).unwrap_or_default();
        let (a, b) = (line(first), line(second));
        if a == b {
            let between = "{BETWEEN}";
            let swapped = self.item.replace(first, between).replace(second, first);
            return swapped.replace(between, second);
        }
        let mut lines = lines.clone();
        lines.swap(a, b);
        lines.join("\n")
    }

    /// Returns the text of a prompt before its first placeholder, which is the same for all users.
    pub(crate) fn static_prefix(prompt: &str) -> &str {
        let end = pieces(prompt)
            .next()
            .map(|piece| match piece {
                Piece::Literal(text) => text.len(),
                Piece::Placeholder(_) => 0,
            })
            .unwrap_or(0);
        &prompt[..end]
    }
}

/// Returns the system message and the user message of a prompt in the ChatML form.
fn messages(prompt: &str) -> (&str, &str) {
    let part = |role: &str| {
        let start = prompt.split_once(&format!("<|im_start|>{role}\n"));
        start.and_then(|(_, rest)| rest.split_once("<|im_end|>")).map_or("", |(text, _)| text)
    };
    (part("system"), part("user"))
}

#[derive(Debug, Clone, Copy)]
enum Piece<'a> {
    Literal(&'a str),
    Placeholder(&'a str),
}

/// Splits a text at each `{NAME}`. Other braces are plain text.
fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let next = placeholder(rest);
        Some(match next {
            Some((0, name)) => {
                rest = &rest[name.len() + 2..];
                Piece::Placeholder(name)
            }
            other => {
                let at = other.map_or(rest.len(), |(at, _)| at);
                let (literal, tail) = rest.split_at(at);
                rest = tail;
                Piece::Literal(literal)
            }
        })
    })
}

fn placeholder(text: &str) -> Option<(usize, &str)> {
    text.match_indices('{').find_map(|(at, _)| {
        let name = &text[at + 1..at + text[at..].find('}')?];
        let named = !name.is_empty() && name.bytes().all(|b| b.is_ascii_uppercase());
        named.then_some((at, name))
    })
}

fn braces(names: &[impl AsRef<str>]) -> String {
    names.iter().map(|n| format!("{{{}}}", n.as_ref())).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_templates_are_valid() {
        Templates::llama2().unwrap();
        Templates::chatml().unwrap();
    }

    fn chat(source: &str) -> Result<Templates> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("chat_template.jinja"), source).unwrap();
        Templates::from_chat(&ChatTemplate::load(dir.path()).unwrap().unwrap())
    }

    #[test]
    fn the_own_form_of_a_chatml_model_is_the_one_that_ships() {
        let source = "{% for m in messages %}{{'<|im_start|>' + m['role'] + '\\n' + m['content'] + \
                      '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}\
                      {{ '<|im_start|>assistant\\n' }}{% endif %}";
        assert_eq!(chat(source).unwrap(), Templates::chatml().unwrap());
    }

    #[test]
    fn forms_without_system_messages_or_that_trim_keep_lines_apart() {
        let source = "{% for m in messages %}{% if m.role == 'system' %}\
                      {{ raise_exception('no system role') }}{% endif %}\
                      [INST] {{ m.content | trim }} [/INST]{% endfor %}";
        let templates = chat(source).unwrap();
        assert!(templates.user.starts_with("[INST] You recommend items."));
        assert!(templates.user.ends_with("{PREDICTION}\nSelected items: [/INST]"));
        assert!(templates.item.ends_with("{ITEMS} [/INST]"));
        // A chat template that ignores system messages still gets their text.
        let silent = "{% for m in messages if m.role == 'user' %}U: {{ m.content }}A:{% endfor %}";
        assert!(chat(silent).unwrap().item.starts_with("U: You match products"));
        let message = chat("{{ messages[0].content | lower }}").unwrap_err().to_string();
        assert!(message.contains("chat_template.jinja"), "{message}");
        assert!(chat("{% broken").is_err());
    }

    #[test]
    fn renders_and_drops_empty_lines() {
        let prompt = "Hello {not one}\nUser: {USER}\nItems: {ITEMS}\nTags: {PROFILE}\nend";
        let spans = Templates::render(prompt, |name| match name {
            "USER" => Some(Fill::Soft(1)),
            "PROFILE" => Some(Fill::Text("dark {USER}, slow")),
            _ => None,
        });
        assert_eq!(
            spans,
            [
                Span::Text("Hello {not one}\nUser: ".into()),
                Span::Soft(1),
                Span::Text("\nTags: dark {USER}, slow\nend".into()),
            ]
        );
        assert_eq!(Templates::static_prefix(prompt), "Hello {not one}\nUser: ");
    }

    #[test]
    fn texts_have_soft_tokens_and_items_can_come_first() {
        let spans =
            Templates::render("a {DESCRIPTIONS}\nb", |_| Some(Fill::Marked(&["one", "two"], "; ")));
        let text = |text: &str| Span::Text(text.into());
        let soft = Span::Soft(1);
        assert_eq!(spans, [text("a one"), soft.clone(), text("; two"), soft, text("\nb")]);

        let mut templates = Templates::llama2().unwrap();
        templates.item = "match\nTexts: {DESCRIPTIONS}\nTokens: {ITEMS}\nend".into();
        assert_eq!(templates.items_first(), "match\nTokens: {ITEMS}\nTexts: {DESCRIPTIONS}\nend");
        templates.item = "{DESCRIPTIONS} and {ITEMS}".into();
        assert_eq!(templates.items_first(), "{ITEMS} and {DESCRIPTIONS}");
    }

    #[test]
    fn wrong_placeholders_are_named() {
        let text = include_str!("../templates/llama2.toml").replace("{ITEMS}", "{THINGS}");
        let message = Templates::parse(&text, "my.toml").unwrap_err().to_string();
        assert!(message.contains("my.toml") && message.contains("{THINGS}"), "{message}");
        let text = include_str!("../templates/llama2.toml").replace("separator", "seperator");
        let message = Templates::parse(&text, "my.toml").unwrap_err().to_string();
        assert!(message.contains("seperator"), "{message}");
    }
}
