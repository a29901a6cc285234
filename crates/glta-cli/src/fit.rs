//! `glta fit`: fits a recommender on tables.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use glta_align::{
    Config, Encoders, ItemEncoder, ItemVectors, LanguageModel, RunData, fit_for_serving,
};
use glta_data::readers::{Column, ItemsConfig, PairsConfig, pairs, tables};
use glta_data::{Dataset, SplitMethod, TextConfig};
use glta_eval::{Density, ExperimentConfig, Preset};

use crate::datasets::DataSource;
use crate::files::check_there;
use crate::flags::ExperimentFlags;
use crate::held_out::held_out;
use crate::interrupt::Unfinished;
use crate::output::outln;
use crate::progress::Reporter;
use crate::tables::TableFlags;
use crate::{Result, experiment, outcome, ranks};

/// Flags of `glta fit`.
#[derive(Debug, Clone, Args)]
pub struct FitArgs {
    /// Table of interactions: CSV, TSV, JSON lines or RecBole's .inter, plain or gzipped.
    #[arg(long, value_name = "FILE", help_heading = "Tables")]
    interactions: PathBuf,
    /// Table of items in the same formats.
    #[arg(long, value_name = "FILE", help_heading = "Tables")]
    items: Option<PathBuf>,
    /// Column of users, by name or by number (from 1).
    #[arg(long, value_name = "COLUMN", value_parser = column, help_heading = "Tables")]
    user: Option<Column>,
    /// Column of items, in both tables.
    #[arg(long, value_name = "COLUMN", value_parser = column, help_heading = "Tables")]
    item: Option<Column>,
    /// Column of times; settings are then chosen on the latest interactions.
    #[arg(long, value_name = "COLUMN", value_parser = column, help_heading = "Tables")]
    time: Option<Column>,
    /// Column of ratings.
    #[arg(long, value_name = "COLUMN", value_parser = column, help_heading = "Tables")]
    rating: Option<Column>,
    /// Minimum rating; interactions with a lower rating are omitted.
    #[arg(long, value_name = "RATING", requires = "rating", help_heading = "Tables")]
    min_rating: Option<f32>,
    /// Columns of --items from which the texts of items are composed [default: title, categories
    /// and description]
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',', help_heading = "Tables")]
    text: Vec<String>,
    /// Journal of `glta serve`, whose interactions and items are added to the tables; its deleted
    /// users are omitted.
    #[cfg(feature = "serve")]
    #[arg(long, value_name = "FILE", help_heading = "Tables")]
    journal: Option<PathBuf>,
    #[command(flatten)]
    table: TableFlags,
    /// Folder of a LLaMA checkpoint, or its id on the hub, owner/name or owner/name@revision; the
    /// model is used as an additional text encoder.
    #[arg(long, value_name = "DIR_OR_HUB_ID", help_heading = "Texts")]
    llm: Option<String>,
    /// Folder of a sentence-transformers model, such as all-MiniLM-L6-v2, which is used as an
    /// additional text encoder.
    #[arg(long, value_name = "DIR", help_heading = "Texts")]
    text_encoder: Option<PathBuf>,
    /// File of text vectors by raw item id, used as an additional encoder: NAME.npy with
    /// NAME.npy.ids (one raw id per line), or NAME.safetensors with the metadata entry ids.
    #[arg(long = "text-vectors", value_name = "FILE", help_heading = "Texts")]
    text_vectors: Vec<PathBuf>,
    /// Folder for the recommender, or with --measure for the tables.
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    out: PathBuf,
    /// Print and save a table of systems on held-out data instead of a recommender.
    #[arg(long, help_heading = "Output")]
    measure: bool,
    /// Seed of all random choices.
    #[arg(long, value_name = "N", default_value_t = 2024, help_heading = "Settings")]
    seed: u64,
    /// TOML file of settings, which replace the defaults.
    #[arg(long, value_name = "FILE", help_heading = "Settings")]
    config: Option<PathBuf>,
    /// Set one field of the configuration after --config is applied, such as
    /// linear.sources=[64,128]; the flag may be repeated.
    #[arg(long = "set", value_name = "PATH=VALUE", help_heading = "Settings")]
    set: Vec<String>,
    /// Print only the result.
    #[arg(long, help_heading = "Output")]
    quiet: bool,
}

fn column(text: &str) -> std::result::Result<Column, std::convert::Infallible> {
    text.parse()
}

/// Runs `glta fit`.
pub fn run(args: &FitArgs) -> ExitCode {
    outcome::exit(|| fit(args))
}

/// Number of interactions per item from which data count as dense.
const DENSE: f64 = 100.0;

/// Number of items above which only two values of `linear.l2` and two of `linear.text` are tried,
/// because each fit takes 0.1 ms per item or more. Sparse data choose these values most often.
const LARGE: usize = 20_000;

fn fit(args: &FitArgs) -> Result<()> {
    let dataset = args.read()?;
    outln!("{}", dataset.stats());
    let density = match dataset.interactions().len() as f64 / dataset.n_items().max(1) as f64 {
        many if many >= DENSE => Density::Dense,
        _ => Density::Sparse,
    };
    let flags = args.experiment_flags();
    let mut config = flags.resolve(density, |config| {
        if args.llm.is_none() {
            config.glta.item_text.encoders = vec![ItemEncoder::TfIdf];
        }
        if dataset.n_items() > LARGE {
            let linear = &mut config.glta.linear;
            (linear.l2, linear.text) = (vec![30.0, 100.0], vec![3.0, 10.0]);
        }
    })?;
    if dataset.n_items() > LARGE {
        let (linear, items) = (&config.glta.linear, dataset.n_items());
        outln!(
            "{items} items: the linear model is tried with l2 {:?} and text {:?}; --set linear.l2=… \
             and --set linear.text=… try other values",
            linear.l2,
            linear.text
        );
    }
    config.protocol.texts = args.texts(&dataset)?;
    if args.measure {
        return args.measured(dataset, density, &flags, config);
    }
    let empty = || std::fs::read_dir(&args.out).is_ok_and(|mut all| all.next().is_none());
    if args.out.exists() && !empty() {
        let out = args.out.display();
        return Err(format!("--out {out}: it is not an empty folder; choose another one").into());
    }
    let split = held_out(&dataset, args.seed)?;
    let data = RunData::new(&dataset, &split, &config.protocol.texts)?;
    let mut run = Config { seed: args.seed, ..config.glta.clone() };
    let mut reporter = Reporter::new(args.quiet);
    let vectors = args.vectors(&data, &mut run, &mut reporter)?;
    // The working folder is moved to `--out` when the recommender is complete.
    let parent = args.out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(|e| format!("{}: {e}", parent.display()))?;
    let working = Unfinished::new(".fit-", parent)?;
    let report = &mut |event: &glta_align::Event| reporter.event(event);
    let (recommender, report) = fit_for_serving(working.path(), data, run, &vectors, report)?;
    reporter.finish();
    let people = recommender.users().len();
    drop(recommender);
    working.finish(&args.out)?;
    if let Some(linear) = &report.linear {
        let valid = linear.validation.map_or("none".into(), |v| format!("{v:.4}"));
        outln!(
            "linear model: {}, l2 {}, text {}, neighbours {}, popularity {}\n\
             N@10 of the held-out part: {valid}",
            linear.form,
            linear.l2,
            linear.text,
            linear.neighbours,
            linear.popularity
        );
        if let Some(problem) = &linear.left_out {
            outln!("the dense form was not tried: {problem}");
        }
    }
    let encoders: Vec<&str> = vectors.iter().map(ItemVectors::name).collect();
    let encoders = if encoders.is_empty() { "none".into() } else { encoders.join(", ") };
    outln!("text encoders: {encoders}");
    outln!("fitted on all data of {people} users; ready to serve: {}", args.out.display());
    Ok(())
}

impl FitArgs {
    fn read(&self) -> Result<Dataset> {
        check_there("--interactions", &self.interactions)?;
        let others = [("--items", &self.items), ("--text-encoder", &self.text_encoder)];
        let others = others.into_iter().filter_map(|(flag, path)| Some((flag, path.as_ref()?)));
        let vectors = self.text_vectors.iter().map(|path| ("--text-vectors", path));
        others.chain(vectors).try_for_each(|(flag, path)| check_there(flag, path))?;
        let config = self.table.config()?;
        let config = PairsConfig {
            user: self.user.clone().or(config.user),
            item: self.item.clone().or(config.item),
            time: self.time.clone().or(config.time),
            rating: self.rating.clone().or(config.rating),
            ..config
        };
        let dataset = match &self.items {
            None => pairs(&self.interactions, &config)?,
            Some(items) => {
                let named = match &self.item {
                    Some(Column::Name(name)) => Some(Column::Name(name.clone())),
                    _ => None,
                };
                let items_config = ItemsConfig { id: named, ..ItemsConfig::default() };
                tables(&self.interactions, items, &config, &items_config)?
            }
        };
        let dataset = match self.min_rating {
            None => dataset,
            Some(rating) => dataset.min_rating(rating)?,
        };
        #[cfg(feature = "serve")]
        if let Some(journal) = &self.journal {
            return crate::journal::with_journal(&dataset, journal);
        }
        Ok(dataset)
    }

    /// Returns the fields of an item's text. The usual names of the columns of titles, categories
    /// and descriptions select the fields `title`, `genres` and `description`, because the reader
    /// has renamed these columns.
    fn texts(&self, dataset: &Dataset) -> Result<TextConfig> {
        if self.text.is_empty() {
            return Ok(TextConfig::default());
        }
        let has = |name: &str| dataset.items().iter().any(|item| item.other.contains_key(name));
        let mut fields: Vec<String> = Vec::new();
        for column in &self.text {
            let lower = column.to_lowercase();
            let field = match lower.as_str() {
                _ if has(column) => column.as_str(),
                "title" | "name" => "title",
                "genre" | "genres" | "category" | "categories" => "genres",
                "description" | "desc" | "text" => "description",
                _ => column.as_str(),
            };
            if !fields.iter().any(|known| known == field) {
                fields.push(field.to_owned());
            }
        }
        Ok(TextConfig { fields, ..TextConfig::default() })
    }

    fn experiment_flags(&self) -> ExperimentFlags {
        let default = ExperimentFlags::default();
        ExperimentFlags {
            llm: self.llm.clone().unwrap_or(default.llm.clone()),
            out: self.out.clone(),
            seeds: vec![self.seed],
            preset: "default".into(),
            config: self.config.clone(),
            set: self.set.clone(),
            text_encoder: self.text_encoder.clone(),
            text_vectors: self.text_vectors.clone(),
            quiet: self.quiet,
            ..default
        }
    }

    fn measured(
        &self,
        dataset: Dataset,
        density: Density,
        flags: &ExperimentFlags,
        mut config: ExperimentConfig,
    ) -> Result<()> {
        debug_assert_eq!(config.preset, Preset::Default);
        if dataset.timestamps().is_some() && !self.set.iter().any(|s| s.contains("protocol.split"))
        {
            config.protocol.split = SplitMethod::Temporal;
        }
        let source = DataSource { dataset, density, adapt: |_| {} };
        experiment::run_configured(&ranks::start()?, &source, flags, config, |_| Ok(()))?;
        Ok(())
    }

    /// Computes the vectors of the item texts with all available encoders, and removes the
    /// unavailable encoders from `config`.
    fn vectors(
        &self,
        data: &RunData,
        config: &mut Config,
        reporter: &mut Reporter,
    ) -> Result<Vec<ItemVectors>> {
        let texts: Vec<String> = data.items.iter().map(|item| item.text.clone()).collect();
        let mut vectors = Vec::new();
        let mut encoders: Vec<ItemEncoder> = config.item_encoders().collect();
        if texts.iter().filter(|text| !text.trim().is_empty()).count() < 2 {
            tracing::warn!("fewer than two items have a text, so texts are left out");
            encoders.clear();
        }
        let language = if encoders.contains(&ItemEncoder::LanguageModel) {
            Some(self.language(config, reporter)?)
        } else {
            None
        };
        let sentence = match (&self.text_encoder, encoders.contains(&ItemEncoder::Sentence)) {
            (Some(dir), true) => Some(experiment::text_encoder(dir)?),
            (None, true) => {
                return Err(
                    "item_text.encoders contains `sentence`, so --text-encoder is needed".into()
                );
            }
            (_, false) => None,
        };
        let (language, sentence) = (language.as_ref(), sentence.as_deref());
        let available = Encoders { language, sentence, ..Encoders::default() };
        let mut kept = Vec::new();
        for encoder in encoders {
            let report = &mut |event: &glta_align::Event| reporter.event(event);
            if let Some(read) = available.encode(encoder, &texts, &config.item_text, report)? {
                vectors.push(read);
                kept.push(encoder);
            }
        }
        config.item_text.encoders = kept;
        for path in &config.item_text.files {
            let ids = data.items.iter().map(|item| item.raw_id.as_str());
            vectors.push(ItemVectors::file(path, ids)?);
        }
        Ok(vectors)
    }

    fn language(&self, config: &Config, reporter: &mut Reporter) -> Result<LanguageModel> {
        let options = glta_llm::LlamaOptions {
            layers: Some(config.item_text.language_model.depth()),
            ..config.llm.clone()
        };
        self.experiment_flags().language_model(&options, &ranks::start()?, reporter)
    }
}
