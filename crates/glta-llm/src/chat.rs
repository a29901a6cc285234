//! Reads and renders chat templates of checkpoints.

use std::path::{Path, PathBuf};

use fancy_regex::Regex;
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error as TemplateError, ErrorKind, Value as TemplateValue};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde_json::Value;

use crate::damage::recognise;
use crate::error::{Error, Result};
use crate::json::{Fields, read_object_if_any};

/// Number of interpreter steps after which rendering is stopped.
const FUEL: u64 = 1_000_000;

/// The chat template of a checkpoint: a Jinja template that turns messages into the text format of
/// the model's training. `minijinja` renders the template as transformers does.
///
/// A template can use the messages, `add_generation_prompt` (true), the named special tokens,
/// `enable_thinking` (false) and `raise_exception`. The current date is not available, so that a
/// prompt is the same on every day.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    source: String,
    path: PathBuf,
    /// Named special tokens, such as `bos_token`, with their texts.
    tokens: Vec<(String, String)>,
}

impl ChatTemplate {
    /// Reads `chat_template.jinja` of a checkpoint's folder, or else `chat_template` of
    /// `tokenizer_config.json`. Of several templates, the one named `default` is used. Returns
    /// `None` if the checkpoint contains no template.
    ///
    /// # Errors
    /// Returns an error for a malformed file, or a file that is not text.
    pub fn load(dir: impl AsRef<Path>) -> Result<Option<Self>> {
        let dir = dir.as_ref();
        let config_path = dir.join("tokenizer_config.json");
        let config = read_object_if_any(&config_path)?.unwrap_or_default();
        let f = Fields { path: &config_path, object: &config };
        let text = |value: &Value| match value {
            Value::String(text) => Some(text.clone()),
            Value::Object(token) => Some(token.get("content")?.as_str()?.to_owned()),
            _ => None,
        };
        let tokens = config
            .iter()
            .filter(|(key, _)| key.ends_with("_token"))
            .filter_map(|(key, value)| Some((key.clone(), text(value)?)))
            .collect();
        let file = dir.join("chat_template.jinja");
        let (source, path) = match std::fs::read(&file) {
            Ok(bytes) => {
                // A template may begin like a web page or a server's message, but not like a Git
                // LFS pointer.
                let pointer = recognise(&bytes).filter(|what| what.contains("Git LFS"));
                let text = String::from_utf8(bytes).map_err(|e| e.to_string());
                let text = pointer.map_or(text, Err);
                (text.map_err(|problem| problem_of(&file, problem))?, file)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => match named(&f)? {
                Some(source) => (source.to_owned(), config_path),
                None => return Ok(None),
            },
            Err(error) => return Err(Error::io(&file)(error)),
        };
        Ok(Some(Self { source, path, tokens }))
    }

    /// Returns the path of the file that contains the template.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Renders a conversation of `(role, content)` pairs, up to the position where the model's
    /// answer begins.
    ///
    /// ```
    /// use glta_llm::ChatTemplate;
    ///
    /// let dir = tempfile::tempdir()?;
    /// std::fs::write(
    ///     dir.path().join("chat_template.jinja"),
    ///     "{% for m in messages %}<{{ m['role'] }}>{{ m['content'].strip() }}{% endfor %}",
    /// )?;
    /// let chat = ChatTemplate::load(dir.path())?.ok_or("no template")?;
    /// assert_eq!(chat.render(&[("user", " hi ")])?, "<user>hi");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Returns an error for a malformed template, messages that the template rejects, or rendering
    /// that does not terminate.
    pub fn render(&self, messages: &[(&str, &str)]) -> Result<String> {
        self.rendered(messages).map_err(|error| {
            let mut problem = error.to_string();
            // The template's own message is more helpful than the position.
            if let (ErrorKind::InvalidOperation, Some(detail)) = (error.kind(), error.detail()) {
                problem = detail.to_owned();
            }
            problem_of(&self.path, problem)
        })
    }

    fn rendered(&self, messages: &[(&str, &str)]) -> std::result::Result<String, TemplateError> {
        let mut environment = Environment::new();
        environment
            .set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(unknown_method_callback);
        environment.add_function("raise_exception", |message: String| {
            Err::<String, _>(TemplateError::new(ErrorKind::InvalidOperation, message))
        });
        let message = |&(role, content): &(&str, &str)| {
            TemplateValue::from_pairs([("role", role), ("content", content)])
        };
        let messages: Vec<TemplateValue> = messages.iter().map(message).collect();
        let named = self.tokens.iter();
        let mut context: Vec<(&str, TemplateValue)> =
            named.map(|(name, token)| (name.as_str(), TemplateValue::from(token))).collect();
        context.extend([
            ("messages", TemplateValue::from(messages)),
            ("add_generation_prompt", TemplateValue::from(true)),
            ("enable_thinking", TemplateValue::from(false)),
        ]);
        let context = TemplateValue::from_pairs(context);
        environment.render_str(&without_generation_marks(&self.source), context)
    }
}

/// Returns the template in `tokenizer_config.json`.
fn named<'a>(f: &Fields<'a>) -> Result<Option<&'a str>> {
    let invalid = || f.invalid("chat_template", "a template or a list of named ones");
    match f.get("chat_template") {
        None => Ok(None),
        Some(Value::String(source)) => Ok(Some(source)),
        Some(Value::Array(all)) => {
            let default =
                all.iter().find(|t| t.get("name").and_then(Value::as_str) == Some("default"));
            let template = default.or(all.first()).ok_or_else(invalid)?;
            template.get("template").and_then(Value::as_str).map(Some).ok_or_else(invalid)
        }
        Some(_) => Err(invalid()),
    }
}

/// Removes the `generation` tags around the assistant's messages. The tags print nothing, and only
/// transformers supports them.
fn without_generation_marks(source: &str) -> String {
    match Regex::new(r"\{%-?\s*(?:end)?generation\s*-?%\}") {
        Ok(marks) => marks.replace_all(source, "").into_owned(),
        Err(_) => source.to_owned(),
    }
}

fn problem_of(path: &Path, problem: impl Into<String>) -> Error {
    Error::Chat { path: path.to_owned(), problem: problem.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(source: &str) -> ChatTemplate {
        let tokens = vec![("bos_token".to_owned(), "<s>".to_owned())];
        ChatTemplate { source: source.into(), path: "chat_template.jinja".into(), tokens }
    }

    #[test]
    fn templates_run_as_in_transformers() {
        let source = "
{%- if messages[0]['role'] == 'system' %}
    {%- set loop_messages = messages[1:] %}
    {%- set system = messages[0]['content'] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('roles must alternate') }}
    {%- endif %}
    {%- if message['role'] == 'user' %}
        {%- if loop.first and system is defined %}
            {{- ' [INST] ' + system + '\\n\\n' + message['content'].strip() + ' [/INST]' }}
        {%- else %}
            {{- ' [INST] ' + message['content'] + ' [/INST]' }}
        {%- endif %}
    {%- else %}
        {% generation %}{{- ' ' + message.content | trim + eos_token|default('') }}{% endgeneration %}
    {%- endif %}
{%- endfor %}
";
        let chat = template(source);
        let messages = [("system", "be brief"), ("user", " hi {USER}\n"), ("assistant", " yes ")];
        let text = chat.render(&messages[..2]).unwrap();
        assert_eq!(text, "<s> [INST] be brief\n\nhi {USER} [/INST]");
        let text = chat.render(&messages[1..]).unwrap();
        assert!(text.ends_with("[/INST] yes") || text.contains("[/INST]"), "{text:?}");
        let error = chat.render(&[("assistant", "hi")]).unwrap_err().to_string();
        assert!(error.contains("roles must alternate") && error.contains("chat_template.jinja"));
    }

    #[test]
    fn broken_and_endless_templates_are_errors() {
        let error = template("{% for %}").render(&[]).unwrap_err().to_string();
        assert!(error.contains("chat_template.jinja"), "{error}");
        let endless =
            "{% for a in range(10000) %}{% for b in range(10000) %}x{% endfor %}{% endfor %}";
        assert!(template(endless).render(&[]).is_err());
        assert!(template("{{ messages[0].role.nothing() }}").render(&[("user", "a")]).is_err());
    }

    #[test]
    fn the_file_comes_before_the_settings() {
        let dir = tempfile::tempdir().unwrap();
        assert!(ChatTemplate::load(dir.path()).unwrap().is_none());
        let settings = dir.path().join("tokenizer_config.json");
        let render = || {
            let chat = ChatTemplate::load(dir.path()).unwrap().unwrap();
            chat.render(&[("user", "hi")]).unwrap()
        };
        std::fs::write(&settings, r#"{"chat_template": "a{{ bos_token }}", "bos_token": "<s>"}"#)
            .unwrap();
        assert_eq!(render(), "a<s>");
        let several = r#"{"chat_template": [{"name": "tool_use", "template": "t"},
                          {"name": "default", "template": "d"}]}"#;
        std::fs::write(&settings, several).unwrap();
        assert_eq!(render(), "d");
        std::fs::write(dir.path().join("chat_template.jinja"), "file\n").unwrap();
        assert_eq!(render(), "file");
        std::fs::write(&settings, r#"{"chat_template": 5}"#).unwrap();
        std::fs::remove_file(dir.path().join("chat_template.jinja")).unwrap();
        let error = ChatTemplate::load(dir.path()).unwrap_err().to_string();
        assert!(error.contains("tokenizer_config.json") && error.contains("chat_template"));
    }
}
