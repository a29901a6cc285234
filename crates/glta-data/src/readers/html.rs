//! Converts web text to plain text: decodes entities and removes markup.
//!
//! An HTML parser would treat every `<word` as an element, so it would drop `<Untitled>` or the end
//! of `5 <x`. Titles and descriptions of these data sets are plain text into which some shops put
//! HTML, some of it escaped twice. Crates that render HTML as text also add layout (wrapped lines,
//! link targets).

use std::borrow::Cow;

/// Returns plain text on one line. Tags become spaces, scripts and comments are removed, entities
/// are decoded (twice if they were escaped twice), and white space is collapsed.
///
/// Only names of HTML elements are tags, so `a < b` and `<Untitled>` do not change.
pub(crate) fn clean(text: &str) -> String {
    let mut text = Cow::Borrowed(text);
    for _ in 0..2 {
        let without_tags = strip_tags(&text);
        let decoded = html_escape::decode_html_entities(&without_tags).into_owned();
        if decoded == text {
            break;
        }
        text = Cow::Owned(decoded);
    }
    let text = strip_tags(&text);
    let mut plain = String::with_capacity(text.len());
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()) {
        if !word.is_empty() {
            if !plain.is_empty() {
                plain.push(' ');
            }
            plain.push_str(word);
        }
    }
    plain
}

fn strip_tags(text: &str) -> Cow<'_, str> {
    if !text.contains('<') {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        plain.push_str(&rest[..at]);
        rest = &rest[at..];
        match tag_end(rest) {
            Some(end) => {
                plain.push(' ');
                rest = &rest[end..];
            }
            None => {
                plain.push('<');
                rest = &rest[1..];
            }
        }
    }
    plain.push_str(rest);
    Cow::Owned(plain)
}

/// Returns the length of the tag, comment or script at the start of `text`.
fn tag_end(text: &str) -> Option<usize> {
    if text.starts_with("<!--") {
        return text.find("-->").map(|at| at + 3);
    }
    let inner = text[1..].strip_prefix('/').unwrap_or(&text[1..]);
    let name_len = inner.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(inner.len());
    let (name, after) = inner.split_at(name_len);
    let name = name.to_ascii_lowercase();
    if ELEMENTS.binary_search(&name.as_str()).is_err()
        || !after.starts_with(|c: char| c.is_whitespace() || c == '>' || c == '/')
    {
        return None;
    }
    if matches!(name.as_str(), "script" | "style") && !text.starts_with("</") {
        let lower = text.to_ascii_lowercase();
        let close = lower.find(&format!("</{name}"));
        return close.and_then(|at| Some(at + text[at..].find('>')? + 1));
    }
    text.find('>').map(|at| at + 1)
}

/// Names of HTML elements in alphabetical order, for binary search.
const ELEMENTS: &[&str] = &[
    "a",
    "abbr",
    "acronym",
    "address",
    "area",
    "article",
    "aside",
    "audio",
    "b",
    "base",
    "bdo",
    "big",
    "blockquote",
    "body",
    "br",
    "button",
    "canvas",
    "caption",
    "center",
    "cite",
    "code",
    "col",
    "colgroup",
    "dd",
    "del",
    "details",
    "dfn",
    "dir",
    "div",
    "dl",
    "dt",
    "em",
    "embed",
    "fieldset",
    "figcaption",
    "figure",
    "font",
    "footer",
    "form",
    "frame",
    "frameset",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "head",
    "header",
    "hr",
    "html",
    "i",
    "iframe",
    "img",
    "input",
    "ins",
    "kbd",
    "label",
    "legend",
    "li",
    "link",
    "main",
    "map",
    "mark",
    "meta",
    "nav",
    "noscript",
    "object",
    "ol",
    "optgroup",
    "option",
    "p",
    "param",
    "pre",
    "q",
    "s",
    "samp",
    "script",
    "section",
    "select",
    "small",
    "source",
    "span",
    "strike",
    "strong",
    "style",
    "sub",
    "summary",
    "sup",
    "svg",
    "table",
    "tbody",
    "td",
    "textarea",
    "tfoot",
    "th",
    "thead",
    "tr",
    "tt",
    "u",
    "ul",
    "var",
    "video",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cleans_web_text() {
        assert!(ELEMENTS.is_sorted());
        for (raw, plain) in [
            ("Salt &amp; Pepper", "Salt & Pepper"),
            (" Amazon  eGift\nCard ", "Amazon eGift Card"),
            ("a<br>b<BR/>c", "a b c"),
            ("<b>Bold</b> and <a href=\"x\">link</a>.", "Bold and link ."),
            ("&lt;p&gt;escaped&lt;/p&gt;", "escaped"),
            ("twice &amp;amp; escaped &amp;quot;x&amp;quot;", "twice & escaped \"x\""),
            ("I <3 you, 1 < 2 > 0", "I <3 you, 1 < 2 > 0"),
            ("<Untitled> and <unknown tag>", "<Untitled> and <unknown tag>"),
            ("x<script type='a'>var t = 1 < 2;</script>y", "x y"),
            ("x<!-- note > here -->y", "x y"),
            ("unclosed <b tag", "unclosed <b tag"),
            ("caf&eacute; &#233; &#xE9; &nbsp; AT&T", "café é é AT&T"),
            ("", ""),
        ] {
            assert_eq!(clean(raw), plain, "{raw}");
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_returns_one_line(text in "[<>/!a-z&;#é \n-]{0,40}") {
            let plain = clean(&text);
            prop_assert!(!plain.contains(['\n', '\t']) && !plain.contains("  "));
        }
    }
}
