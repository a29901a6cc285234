use std::fmt;
use std::str::FromStr;

use glta_core::near_names;
use serde::{Deserialize, Serialize};

/// A column of a table, by its name or its number.
///
/// ```
/// use glta_data::readers::Column;
///
/// assert_eq!("customer_id".parse(), Ok(Column::Name("customer_id".into())));
/// assert_eq!("2".parse(), Ok(Column::Number(2)));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Column {
    /// Number of the column, from 1.
    Number(usize),
    /// Name of the column in the header. The type after a colon, as in RecBole's `user_id:token`,
    /// is optional.
    Name(String),
}

impl FromStr for Column {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        Ok(text.parse().map_or_else(|_| Self::Name(text.to_owned()), Self::Number))
    }
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl Column {
    /// Returns the index of the column in a table of `width` columns. `names` are the fields of the
    /// header, and empty without a header.
    pub(crate) fn index(
        &self,
        names: &[String],
        width: usize,
    ) -> std::result::Result<usize, String> {
        Err(match self {
            Self::Number(number) if (1..=width).contains(number) => return Ok(number - 1),
            Self::Number(number) => {
                format!("there is no column {number}; the table has {width} columns")
            }
            Self::Name(name) => {
                if let Some(at) = names.iter().position(|other| other == name) {
                    return Ok(at);
                }
                let bare = bare_name(name);
                let mut alike = (0..names.len()).filter(|&n| bare_name(&names[n]) == bare);
                match (alike.next(), alike.next()) {
                    (Some(at), None) => return Ok(at),
                    (Some(_), Some(_)) => format!("several columns match `{name}`"),
                    (None, _) if names.is_empty() => format!(
                        "there is no header with a column `{name}`; name columns by number, 1 to \
                         {width}, or state that there is a header"
                    ),
                    (None, _) => {
                        let near = near_names(name, names.iter().map(String::as_str));
                        let near = if near.is_empty() {
                            String::new()
                        } else {
                            format!(" (near names are {})", near.join(", "))
                        };
                        let all = names.join(", ");
                        format!("the header has no column `{name}`{near}; it has {all}")
                    }
                }
            }
        })
    }
}

/// Known column names of one kind, such as users or ratings, in order of preference.
pub(crate) type Known = &'static [&'static str];

pub(crate) const USER: Known = &[
    "userid",
    "user",
    "reviewerid",
    "customerid",
    "customer",
    "uid",
    "visitorid",
    "memberid",
    "accountid",
    "clientid",
    "personid",
    "viewerid",
    "buyerid",
    "profileid",
    "sessionid",
    "session",
    "username",
    "userhash",
    "reviewer",
    "member",
    "client",
    "visitor",
    "person",
];
pub(crate) const ITEM: Known = &[
    "itemid",
    "item",
    "parentasin",
    "asin",
    "movieid",
    "movie",
    "filmid",
    "productid",
    "product",
    "bookid",
    "book",
    "isbn",
    "articleid",
    "article",
    "trackid",
    "songid",
    "artistid",
    "artist",
    "businessid",
    "gmapid",
    "videoid",
    "newsid",
    "gameid",
    "appid",
    "recipeid",
    "courseid",
    "contentid",
    "animeid",
    "venueid",
    "locationid",
    "poiid",
    "listingid",
    "sku",
    "stockcode",
    "iid",
];
pub(crate) const RATING: Known =
    &["rating", "overall", "stars", "starrating", "score", "ratings", "bookrating", "userrating"];
pub(crate) const TIME: Known = &[
    "timestamp",
    "unixreviewtime",
    "time",
    "datetime",
    "eventtime",
    "createdat",
    "date",
    "ts",
    "invoicedate",
    "orderdate",
    "purchasedate",
    "ratedat",
    "orderedat",
    "purchasedat",
    "boughtat",
    "viewedat",
    "reviewdate",
    "reviewtime",
    "ordertime",
    "purchasetime",
    "eventdate",
];
pub(crate) const TITLE: Known = &[
    "title",
    "itemtitle",
    "movietitle",
    "booktitle",
    "producttitle",
    "name",
    "itemname",
    "productname",
    "movietitle",
    "prodname",
];
pub(crate) const GENRES: Known = &["genres", "genre", "categories", "category", "class"];
pub(crate) const DESCRIPTION: Known =
    &["description", "desc", "itemdescription", "detaildesc", "abstract", "overview", "summary"];

/// Returns the column whose name is the first of the `known` names that occurs.
pub(crate) fn find(known: Known, names: &[String]) -> Option<usize> {
    let bare: Vec<String> = names.iter().map(|name| bare_name(name)).collect();
    known.iter().find_map(|known| bare.iter().position(|name| name == known))
}

/// Returns the letters and digits of a name in lower case, without RecBole's type.
fn bare_name(name: &str) -> String {
    let name = typed(name).map_or(name, |(name, _)| name);
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// Splits the name and the type of a RecBole column, such as `user_id:token`.
pub(crate) fn typed(column: &str) -> Option<(&str, &str)> {
    let (name, kind) = column.rsplit_once(':')?;
    let known = ["token", "token_seq", "float", "float_seq"].contains(&kind);
    (known && !name.is_empty()).then_some((name, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &str) -> Vec<String> {
        list.split(',').map(String::from).collect()
    }

    #[test]
    fn columns_are_found_by_name_and_number() {
        let header = names("User ID,item_id:token,User,x,X");
        let index = |column: &str| column.parse::<Column>().unwrap().index(&header, 5);
        assert_eq!(index("user_id").unwrap(), 0);
        assert_eq!(index("User").unwrap(), 2);
        assert_eq!(index("item_id").unwrap(), 1);
        assert_eq!(index("X").unwrap(), 4);
        assert_eq!(index("5").unwrap(), 4);
        for (column, part) in
            [("6", "has 5 columns"), ("0", "no column 0"), ("y", "User ID, item_id")]
        {
            let error = index(column).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        let error = Column::Name("u".into()).index(&[], 2).unwrap_err();
        assert!(error.contains("no header"), "{error}");
    }

    #[test]
    fn the_preferred_name_is_chosen() {
        let header = names(",session_id,userId,asin,parent_asin");
        assert_eq!(find(USER, &header), Some(2));
        assert_eq!(find(ITEM, &header), Some(4));
        assert_eq!(find(TIME, &header), None);
    }
}
