//! Queries to a recommender on the command line: `glta recommend`, `glta similar` and `glta
//! explain`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use glta_align::{ListOptions, Person, Recommendation, Recommender, Similarity};
use serde_json::json;

use crate::files::check_there;
use crate::output::outln;
use crate::{Result, outcome};

/// Flags for the recommender and the format of the answer.
#[derive(Debug, Clone, Args)]
struct ModelArgs {
    /// Folder of a recommender: the --out of `glta fit`, or a run of an experiment, such as
    /// seed-2024/glta in its --out.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Print one JSON object per line.
    #[arg(long, help_heading = "Output")]
    json: bool,
}

/// Flags for the length and the items of a list.
#[derive(Debug, Clone, Args)]
struct OptionArgs {
    /// Number of items in the list.
    #[arg(short, long, default_value_t = 10, help_heading = "List")]
    k: usize,
    /// Raw ids of items that must not be in the list.
    #[arg(long, value_name = "ITEMS", value_delimiter = ',', help_heading = "List")]
    exclude: Vec<String>,
    /// Raw ids of the only items that may be in the list.
    #[arg(long, value_name = "ITEMS", value_delimiter = ',', help_heading = "List")]
    among: Vec<String>,
    /// Field and value that the items must have, such as category=Tea; if several values of one
    /// field are given, one of them is enough.
    #[arg(long, value_name = "FIELD=VALUE", value_parser = filter, help_heading = "List")]
    filter: Vec<(String, String)>,
}

/// Flags of `glta recommend`.
#[derive(Debug, Clone, Args)]
pub struct RecommendArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Raw ids of known users, for whom lists are printed in this order.
    #[arg(long, value_name = "USERS", value_delimiter = ',', help_heading = "Person")]
    user: Vec<String>,
    /// Raw ids of the items that a user has; the user need not be known.
    #[arg(
        long,
        value_name = "ITEMS",
        value_delimiter = ',',
        conflicts_with = "user",
        help_heading = "Person"
    )]
    items: Option<Vec<String>>,
    #[command(flatten)]
    options: OptionArgs,
    /// Allow items that the user already has, for products that are bought again.
    #[arg(long, help_heading = "List")]
    allow_known: bool,
}

/// Flags of `glta similar`.
#[derive(Debug, Clone, Args)]
pub struct SimilarArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Raw id of the item for which similar items are listed.
    #[arg(long, value_name = "ITEM")]
    item: String,
    /// Kind of similarity.
    #[arg(long, value_enum, default_value = "text")]
    by: By,
    #[command(flatten)]
    options: OptionArgs,
}

/// Flags of `glta explain`.
#[derive(Debug, Clone, Args)]
pub struct ExplainArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Raw id of the item whose score is explained.
    #[arg(long, value_name = "ITEM")]
    item: String,
    /// Raw id of a known user.
    #[arg(long, value_name = "USER", help_heading = "Person")]
    user: Option<String>,
    /// Raw ids of the items that a user has; the user need not be known.
    #[arg(
        long,
        value_name = "ITEMS",
        value_delimiter = ',',
        conflicts_with = "user",
        help_heading = "Person"
    )]
    items: Option<Vec<String>>,
    /// Maximum number of the user's items to print.
    #[arg(short, long, default_value_t = 10, help_heading = "Output")]
    k: usize,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum By {
    /// Similarity of the texts.
    Text,
    /// Similarity by common users.
    People,
}

fn filter(text: &str) -> std::result::Result<(String, String), String> {
    let (field, value) = text.split_once('=').ok_or("expected FIELD=VALUE")?;
    Ok((field.to_owned(), value.to_owned()))
}

/// Runs `glta recommend`.
pub fn recommend(args: &RecommendArgs) -> ExitCode {
    outcome::exit(|| {
        let recommender = open(&args.model.model)?;
        let mut options = args.options.resolve(&recommender)?;
        options.allow_known = args.allow_known;
        if args.user.is_empty() {
            let items = ids(&recommender, args.items.as_deref().unwrap_or_default())?;
            let people = [Person::Items(&items)];
            let list = recommender.recommend_with(&people, args.options.k, &options)?;
            return show(&args.model, &list.concat(), None);
        }
        for raw in &args.user {
            let user = user(&recommender, raw)?;
            let people = [Person::User(user)];
            let list = recommender.recommend_with(&people, args.options.k, &options)?;
            show(&args.model, &list.concat(), Some(raw))?;
        }
        Ok(())
    })
}

/// Runs `glta similar`.
pub fn similar(args: &SimilarArgs) -> ExitCode {
    outcome::exit(|| {
        let recommender = open(&args.model.model)?;
        let options = args.options.resolve(&recommender)?;
        let by = match args.by {
            By::Text => Similarity::Text,
            By::People => Similarity::CoInteractions,
        };
        let item = item(&recommender, &args.item)?;
        let list = recommender.similar_items(item, args.options.k, by, &options)?;
        show(&args.model, &list, None)
    })
}

/// Runs `glta explain`.
pub fn explain(args: &ExplainArgs) -> ExitCode {
    outcome::exit(|| {
        let recommender = open(&args.model.model)?;
        let target = item(&recommender, &args.item)?;
        let items = ids(&recommender, args.items.as_deref().unwrap_or_default())?;
        let person = match &args.user {
            Some(raw) => Person::User(user(&recommender, raw)?),
            None => Person::Items(&items),
        };
        let why = recommender.explain(person, target)?;
        let record = |item: u32| &recommender.items()[item as usize];
        if args.model.json {
            let parts = why.items.iter().take(args.k);
            let parts: Vec<_> = parts
                .map(|&(item, part)| json!({"item": record(item).raw_id, "part": part}))
                .collect();
            let line = json!({
                "item": args.item, "score": why.score, "popularity": why.popularity,
                "items": parts, "prompt_path_adds": recommender.has_prompt(),
            });
            outln!("{line}");
            return Ok(());
        }
        outln!("{} {}: score {:.3}, of which", args.item, record(target).title, why.score);
        for &(item, part) in why.items.iter().take(args.k) {
            outln!("{part:9.3}  {} {}", record(item).raw_id, record(item).title);
        }
        outln!("{:9.3}  popularity", why.popularity);
        if recommender.has_prompt() {
            outln!(
                "The prompt path also contributes to scores; this is the score of the linear \
                model."
            );
        }
        Ok(())
    })
}

impl OptionArgs {
    fn resolve(&self, recommender: &Recommender) -> Result<ListOptions> {
        let mut options = ListOptions::default().exclude(ids(recommender, &self.exclude)?);
        if !self.among.is_empty() {
            options = options.among(ids(recommender, &self.among)?);
        }
        for (field, value) in &self.filter {
            options = options.filter(field, value);
        }
        Ok(options)
    }
}

fn open(dir: &Path) -> Result<Recommender> {
    check_there("--model", dir)?;
    if !dir.join("config.toml").exists() {
        let inside: Vec<String> = runs_below(dir, 2);
        let hint = match inside.first() {
            Some(run) => format!("; there is a recommender in {run}"),
            None => String::new(),
        };
        return Err(format!("--model {}: there is no recommender{hint}", dir.display()).into());
    }
    Ok(Recommender::open(dir).map_err(|e| format!("--model {}: {e}", dir.display()))?)
}

/// Returns the folders of finished runs below a folder, down to `depth` levels.
fn runs_below(dir: &Path, depth: usize) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut folders: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    folders.sort();
    let mut found = Vec::new();
    for folder in folders.into_iter().filter(|path| path.is_dir()) {
        if folder.join("history.json").exists() {
            found.push(folder.display().to_string());
        } else if depth > 1 {
            found.extend(runs_below(&folder, depth - 1));
        }
    }
    found
}

fn user(recommender: &Recommender, raw: &str) -> Result<u32> {
    let near = || near(raw, recommender.users().iter().map(String::as_str));
    Ok(recommender.user(raw).ok_or_else(|| format!("unknown user `{raw}`{}", near()))?)
}

fn item(recommender: &Recommender, raw: &str) -> Result<u32> {
    let near = || near(raw, recommender.items().iter().map(|item| item.raw_id.as_str()));
    Ok(recommender.item(raw).ok_or_else(|| format!("unknown item `{raw}`{}", near()))?)
}

fn ids(recommender: &Recommender, raw: &[String]) -> Result<Vec<u32>> {
    raw.iter().map(|raw| item(recommender, raw)).collect()
}

/// Describes up to three known ids that are similar to an unknown one, for an error message.
fn near<'a>(raw: &str, known: impl Iterator<Item = &'a str>) -> String {
    let near = glta_core::near_names(raw, known);
    if near.is_empty() { String::new() } else { format!("; similar ids are {}", near.join(", ")) }
}

fn show(args: &ModelArgs, list: &[Recommendation<'_>], user: Option<&str>) -> Result<()> {
    if let (Some(user), false) = (user, args.json) {
        outln!("{user}");
    }
    for (nth, best) in list.iter().enumerate() {
        let (id, title) = (&best.record.raw_id, &best.record.title);
        if args.json {
            let mut line = json!({"item": id, "title": title, "score": best.score});
            if let (Some(user), Some(fields)) = (user, line.as_object_mut()) {
                fields.insert("user".into(), user.into());
            }
            outln!("{line}");
        } else {
            outln!("{:3}. {:8.3}  {id}  {title}", nth + 1, best.score);
        }
    }
    Ok(())
}
