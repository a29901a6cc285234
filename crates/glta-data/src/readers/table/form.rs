use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;

/// The separator between two fields of a row.
///
/// It is written as `tab`, `comma`, `semicolon`, `bar`, `space`, `blanks`, `::` or one ASCII
/// character:
///
/// ```
/// use glta_data::readers::Separator;
///
/// assert_eq!("tab".parse::<Separator>()?, Separator::Byte(b'\t'));
/// assert_eq!(";".parse::<Separator>()?.to_string(), "semicolon");
/// # Ok::<(), glta_data::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Separator {
    /// One ASCII character. Fields may be quoted.
    Byte(u8),
    /// Two colons, the separator of the older MovieLens files.
    DoubleColon,
    /// Any sequence of spaces and tabs.
    Blanks,
}

const NAMES: [(&str, Separator); 7] = [
    ("tab", Separator::Byte(b'\t')),
    ("comma", Separator::Byte(b',')),
    ("semicolon", Separator::Byte(b';')),
    ("bar", Separator::Byte(b'|')),
    ("space", Separator::Byte(b' ')),
    ("blanks", Separator::Blanks),
    ("::", Separator::DoubleColon),
];

impl FromStr for Separator {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if let Some((_, separator)) = NAMES.iter().find(|(name, _)| *name == text) {
            return Ok(*separator);
        }
        match text.as_bytes() {
            [byte] if byte.is_ascii() && !matches!(byte, b'"' | b'\n' | b'\r') => {
                Ok(Self::Byte(*byte))
            }
            _ if text == "\\t" => Ok(Self::Byte(b'\t')),
            _ => {
                let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
                let problem = format!("`{text}` is neither {} nor one character", names.join(", "));
                Err(Error::Config { field: "separator", problem })
            }
        }
    }
}

impl fmt::Display for Separator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((name, _)) = NAMES.iter().find(|(_, separator)| separator == self) {
            return f.write_str(name);
        }
        match self {
            Self::Byte(byte) => write!(f, "{}", char::from(*byte)),
            _ => Ok(()),
        }
    }
}

impl TryFrom<String> for Separator {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Separator> for String {
    fn from(separator: Separator) -> Self {
        separator.to_string()
    }
}

/// The recognised or configured format of the rows of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rows {
    Separated {
        separator: Separator,
        quotes: bool,
    },
    /// One JSON object or Python dict per line.
    Objects,
}

impl Rows {
    /// Joins fields with the separator of the rows.
    pub(crate) fn join(self, fields: &[String]) -> String {
        match self {
            Self::Separated { separator: Separator::Byte(byte), .. } => {
                fields.join(char::from(byte).encode_utf8(&mut [0; 4]))
            }
            Self::Separated { separator: Separator::DoubleColon, .. } => fields.join("::"),
            _ => fields.join(" "),
        }
    }
}

impl fmt::Display for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Objects => f.write_str("JSON lines"),
            Self::Separated { separator, .. } => match separator {
                Separator::Byte(b'\t') => f.write_str("tab-separated"),
                Separator::Byte(b',') => f.write_str("comma-separated"),
                Separator::Byte(b';') => f.write_str("semicolon-separated"),
                Separator::Byte(b'|') => f.write_str("separated by `|`"),
                Separator::Byte(b' ') | Separator::Blanks => f.write_str("separated by blanks"),
                other => write!(f, "separated by `{other}`"),
            },
        }
    }
}
