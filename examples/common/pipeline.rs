//! From a data set to the table: baselines tuned on validation data, GLTA, and
//! a recommender in the output folder.

mod contrastive;
pub mod variants;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use glta::align::{Config, Event, LanguageModel, Recommender, RunData};
use glta::comm::Communicator;
use glta::data::{Dataset, Interactions, Split, SplitConfig, TextConfig};
use glta::graph::{LightGcn, LightGcnConfig, NodeEmbeddings};
use glta::linear::{
    Ease, EaseConfig, EaseText, Popularity, TextKnn, TextKnnConfig, WhitenConfig, whiten,
};
use glta::metrics::{EvaluationConfig, Metric, Scorer, evaluate};
use ndarray::Array2;

use super::Result;
use super::args::PipelineArgs;
use super::compare;
use super::interrupt;
use super::plot;
use super::progress::Reporter;
use super::ranks::{self, Ranks};
use super::report::{LlmRecord, Protocol, Record, Row};
use variants::Inputs;

/// What an example says about its data set.
pub struct Task {
    pub dataset: Dataset,
    pub split: SplitConfig,
    pub texts: TextConfig,
    /// L2 weights that are tried for EASE and for LightGCN, on validation data.
    pub ease_l2: Vec<f64>,
    pub lightgcn_l2: Vec<f32>,
    /// Epochs of the contrastive models, where they are to be fewer than theirs.
    pub contrastive_epochs: Option<usize>,
}

/// Runs every system of the task and leaves `metrics.json` and, per seed, one
/// folder for each GLTA run. All ranks run it; rank 0 writes and speaks.
pub fn run(ranks: &Ranks, task: &Task, args: &PipelineArgs, config: Config) -> Result<Record> {
    let start = Instant::now();
    std::fs::create_dir_all(&args.out).map_err(|e| format!("{}: {e}", args.out.display()))?;
    let path = args.out.join("metrics.json");
    let mut record = Record {
        dataset: task.dataset.stats(),
        protocol: Protocol {
            split: "random per user".into(),
            test_ratio: task.split.test_ratio,
            valid_ratio: task.split.valid_ratio,
            cold_ratio: args.cold,
            seeds: args.seeds.clone(),
            masked: "train+valid".into(),
        },
        llm: None,
        config: None,
        rows: Vec::new(),
    };
    if ranks.is_root() {
        println!("{}", record.dataset);
    }
    let old = Record::load(&path)?;
    // Rank 0 writes no row before all have read.
    ranks.barrier()?;
    if args.stats {
        if old.is_none() && ranks.is_root() {
            record.save(&path)?;
        }
        return Ok(record);
    }
    match (&old, args.resume) {
        (Some(_), false) => {
            return Err(format!(
                "{} already holds a run; pass --resume to go on with it, or choose another --out",
                args.out.display()
            )
            .into());
        }
        (Some(old), true) => {
            let ratio = old.protocol.cold_ratio;
            if old.config.as_ref().is_some_and(|old| *old != config) || ratio != args.cold {
                return Err(format!(
                    "{} was run with another configuration; choose another --out",
                    args.out.display()
                )
                .into());
            }
            if old.dataset != record.dataset {
                return Err(format!(
                    "{} was run on other data ({}); choose another --out",
                    args.out.display(),
                    old.dataset
                )
                .into());
            }
            record.rows.clone_from(&old.rows);
        }
        (None, _) => {}
    }
    let mut reporter = Reporter::new(args.quiet || !ranks.is_root());
    let language = args.language_model(&config.llm, ranks, &mut reporter)?;
    let llama = language.llama.config();
    record.llm = Some(LlmRecord {
        name: language.name.clone(),
        layers: llama.num_hidden_layers,
        bits: llama.quantization.as_ref().map(|q| q.bits),
        group_size: llama
            .quantization
            .as_ref()
            .map(|q| q.group_size.map_or(-1, |size| i32::try_from(size).unwrap_or(i32::MAX))),
    });
    if let Some(other) = old.as_ref().and_then(|old| old.llm.as_ref())
        && Some(other) != record.llm.as_ref()
    {
        return Err(format!(
            "{} was run with another language model ({}, {} layers); choose another --out",
            args.out.display(),
            other.name,
            other.layers
        )
        .into());
    }
    record.config = Some(config.clone());

    let mut session = Session {
        ranks,
        comm: ranks::between(ranks, language.llama.device())?,
        task,
        args,
        language,
        record,
        path,
        reporter,
        vectors: None,
        encoded: None,
    };
    let mut shown = None;
    for &seed in &args.seeds {
        let recommender = session.seed(seed, &config).inspect_err(|_| {
            if interrupt::asked() && ranks.is_root() {
                let how = if args.resume { "" } else { " with --resume" };
                eprintln!("what was done is kept: the same command{how} goes on");
            }
        })?;
        shown.get_or_insert(recommender);
    }
    session.reporter.finish();
    if !ranks.is_root() {
        return Ok(session.record);
    }
    println!("\n{}\n\n{}", session.record.table(), session.record.buckets());
    println!("\n{}", session.record.activity());
    let comparisons = compare::comparisons(&session.record, &args.out)?;
    println!("\n{}", compare::table(&comparisons));
    if args.cold > 0.0 {
        println!("\n{}", session.record.cold());
    }
    println!("\nwritten to {}", session.path.display());
    for (metric, file) in [("N@10", "ndcg.svg"), ("P@10", "precision.svg")] {
        let bar = |system: &str| {
            let value = session.record.value(system, metric)?;
            Some((system.to_owned(), value.mean, value.deviation))
        };
        let bars: Vec<plot::Bar> = session.record.systems().into_iter().filter_map(bar).collect();
        let title = format!("{}: test {metric}", session.record.dataset.name);
        plot::bars(&args.out.join(file), &title, metric, &bars)?;
        println!("       and {}", args.out.join(file).display());
    }
    if let Some(recommender) = shown {
        show(&recommender)?;
    }
    if let Some(line) = ranks::traffic(ranks, start) {
        println!("\n{line}");
    }
    Ok(session.record)
}

struct Session<'a> {
    ranks: &'a Ranks,
    /// The same ranks, as alignment uses them.
    comm: Arc<dyn Communicator>,
    task: &'a Task,
    args: &'a PipelineArgs,
    language: LanguageModel,
    record: Record,
    path: PathBuf,
    reporter: Reporter,
    /// Of all items' texts, once they were needed.
    vectors: Option<Array2<f32>>,
    /// The same by the sentence encoder.
    encoded: Option<Array2<f32>>,
}

impl Session<'_> {
    /// All systems under one seed; returns GLTA.
    fn seed(&mut self, seed: u64, config: &Config) -> Result<Recommender> {
        let split_config =
            SplitConfig { seed, cold_ratio: self.args.cold, ..self.task.split.clone() };
        let split = Split::new(&self.task.dataset, &split_config)?;
        if self.record.row("Popularity", seed).is_none() {
            let started = Instant::now();
            let popularity = Popularity::fit(&split.train);
            let seconds = started.elapsed().as_secs_f64();
            self.add("Popularity", seed, &split, &popularity, seconds, String::new())?;
        }
        if ["EASE", "text-kNN", "EASE + text"].iter().any(|s| self.record.row(s, seed).is_none()) {
            let ease = self.ease(seed, &split)?;
            self.texts(seed, &split, ease.as_ref(), config)?;
        }
        let nodes = self.lightgcn(seed, &split, &config.graph)?;
        // Profiles that GLTA is to write serve RLMRec too, which then waits for them.
        let profiles = config.texts.profile;
        if self.args.contrastive && !profiles {
            self.contrastive(seed, &split, config)?;
        }
        let data = RunData::new(&self.task.dataset, &split, &self.task.texts)?;
        let config = Config { seed, ..config.clone() };
        let folder = self.args.out.join(format!("seed-{seed}"));
        let inputs = Inputs { data: &data, split: &split, nodes: &nodes, folder };
        let main = self.glta(&config, &inputs)?;
        if self.args.contrastive && profiles {
            self.contrastive(seed, &split, &config)?;
        }
        if self.args.controls {
            self.controls(&config, &inputs)?;
        }
        if self.args.ablations {
            self.ablations(&config, &inputs)?;
        }
        Ok(main)
    }

    /// EASE under the l2 that is best on validation data, with it; `None` where there are too
    /// many items for it.
    fn ease(&mut self, seed: u64, split: &Split) -> Result<Option<(f64, Ease)>> {
        let (items, most) = (split.train.n_items(), EaseConfig::default().max_items);
        if items > most {
            self.reporter.say(&format!("no EASE: {items} items are more than {most}"));
            return Ok(None);
        }
        let started = Instant::now();
        let mut best: Option<(f64, f64, Ease)> = None;
        let grid = self.task.ease_l2.clone();
        for (n, &l2) in grid.iter().enumerate() {
            if self.reporter.advance("EASE", n as u64, grid.len() as u64, "settings").is_break() {
                return Err("stopped".into());
            }
            let ease = Ease::fit(&split.train, &EaseConfig { l2, ..EaseConfig::default() })?;
            let valid = validation(&ease, split)?;
            if best.as_ref().is_none_or(|(v, _, _)| valid > *v) {
                best = Some((valid, l2, ease));
            }
        }
        let (_, l2, ease) = best.ok_or("EASE needs at least one l2")?;
        let seconds = started.elapsed().as_secs_f64() / grid.len() as f64;
        if self.record.row("EASE", seed).is_none() {
            self.add("EASE", seed, split, &ease, seconds, format!("l2 {l2}"))?;
        }
        Ok(Some((l2, ease)))
    }

    /// What text does without a graph, and beside EASE: vectors from the frozen
    /// language model, everything chosen on validation data, with new items among
    /// them where the linear model is chosen so.
    fn texts(
        &mut self,
        seed: u64,
        split: &Split,
        ease: Option<&(f64, Ease)>,
        config: &Config,
    ) -> Result<()> {
        let started = Instant::now();
        let vectors = self.text_vectors(config)?;
        let read = started.elapsed().as_secs_f64();

        let started = Instant::now();
        let new_items = config.linear.new_items;
        let grown = (new_items > 0.0).then(|| split.with_new_items(new_items, seed)).transpose()?;
        let tuned_on = grown.as_ref().unwrap_or(split);
        let mut best: Option<(f64, f64, i32, TextKnn)> = None;
        for strength in [0.5, 1.0] {
            let config = WhitenConfig { strength, ..WhitenConfig::default() };
            let whitened = whiten(vectors.view(), &config)?;
            for power in [1, 3] {
                let config = TextKnnConfig { power };
                let knn = TextKnn::new(whitened.clone(), &tuned_on.train, &config)?;
                let valid = validation(&knn, tuned_on)?;
                if best.as_ref().is_none_or(|(v, ..)| valid > *v) {
                    best = Some((valid, strength, power, knn));
                }
            }
        }
        let (_, strength, power, tuned) = best.ok_or("text-kNN needs a setting")?;
        let knn = match &grown {
            Some(_) => {
                let config = WhitenConfig { strength, ..WhitenConfig::default() };
                let whitened = whiten(vectors.view(), &config)?;
                TextKnn::new(whitened, &split.train, &TextKnnConfig { power })?
            }
            None => tuned.clone(),
        };
        let seconds = read + started.elapsed().as_secs_f64() / 4.0;
        let layers = self.language.llama.config().num_hidden_layers;
        let layers = config.item_text.vectors.layers.min(layers);
        let of = format!("{layers} layers, whitening {strength}, cosine^{power}");
        if self.record.row("text-kNN", seed).is_none() {
            self.add("text-kNN", seed, split, &knn, seconds, of.clone())?;
        }
        if let Some((l2, ease)) = ease.filter(|_| self.record.row("EASE + text", seed).is_none()) {
            let started = Instant::now();
            let settings = EaseConfig { l2: *l2, ..EaseConfig::default() };
            let fitted = grown.as_ref().map(|s| Ease::fit(&s.train, &settings)).transpose()?;
            let tuned_ease = fitted.as_ref().unwrap_or(ease);
            let weights = [0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0];
            let mut best: Option<(f64, f32)> = None;
            for weight in weights {
                let valid = validation(&EaseText::new(tuned_ease, &tuned, weight)?, tuned_on)?;
                if best.is_none_or(|(v, _)| valid > v) {
                    best = Some((valid, weight));
                }
            }
            let (_, weight) = best.ok_or("EASE + text needs a weight")?;
            let both = EaseText::new(ease, &knn, weight)?;
            // What it takes beyond EASE and text-kNN.
            let seconds = started.elapsed().as_secs_f64() / weights.len() as f64;
            let settings = format!("weight {weight}, {of}");
            self.add("EASE + text", seed, split, &both, seconds, settings)?;
        }
        Ok(())
    }

    /// Vectors of all items' texts from the frozen language model, read once.
    fn text_vectors(&mut self, config: &Config) -> Result<Array2<f32>> {
        if let Some(vectors) = &self.vectors {
            return Ok(vectors.clone());
        }
        let texts = self.task.dataset.texts(&self.task.texts)?;
        let reporter = &mut self.reporter;
        let config = &config.item_text.vectors;
        let count = &mut |event: &Event| reporter.event(event);
        let vectors = self.language.text_vectors_on(&**self.ranks, &texts, config, count)?;
        self.vectors = Some(vectors.clone());
        Ok(vectors)
    }

    /// LightGCN under the l2 that is best on validation data; its embeddings are
    /// kept in the output folder and serve every GLTA run of the seed.
    fn lightgcn(
        &mut self,
        seed: u64,
        split: &Split,
        config: &LightGcnConfig,
    ) -> Result<NodeEmbeddings> {
        let dir = self.args.out.join(format!("seed-{seed}"));
        std::fs::create_dir_all(&dir)?;
        let path = dir.join("lightgcn.safetensors");
        if self.record.row("LightGCN", seed).is_some() {
            return Ok(NodeEmbeddings::load(&path)?);
        }
        let mut best: Option<(f64, f32, NodeEmbeddings, Row)> = None;
        let grid = self.task.lightgcn_l2.clone();
        for (n, &l2) in grid.iter().enumerate() {
            let config = LightGcnConfig { l2, seed, ..config.clone() };
            let epochs = config.epochs as u64;
            let started = Instant::now();
            let reporter = &mut self.reporter;
            let work = format!("LightGCN {}/{}", n + 1, grid.len());
            let model = LightGcn::new(config)?;
            let valid = Some(&split.valid);
            let trained =
                model.train_on(&**self.ranks, None, &split.train, valid, &mut |epoch| {
                    let note = match epoch.validation {
                        Some(v) => format!("valid N@10 {v:.4}"),
                        None => format!("loss {:.4}", epoch.loss),
                    };
                    reporter.advance(&work, epoch.epoch as u64, epochs, &note)
                })?;
            let seconds = started.elapsed().as_secs_f64();
            let valid = trained.best_validation().unwrap_or(f64::NEG_INFINITY);
            self.reporter.say(&format!("LightGCN, l2 {l2}: valid N@10 {valid:.4}"));
            if best.as_ref().is_none_or(|(v, ..)| valid > *v) {
                let row = Row {
                    train_seconds: seconds,
                    epochs: trained.history.len(),
                    seconds_per_epoch: seconds / trained.history.len().max(1) as f64,
                    ..Row::default()
                };
                best = Some((valid, l2, trained.embeddings, row));
            }
        }
        let (_, l2, nodes, timing) = best.ok_or("LightGCN needs at least one l2")?;
        if self.ranks.is_root() {
            nodes.save(&path)?;
        }
        let mut row = measure("LightGCN", seed, &nodes.scorer(), split)?;
        row.settings = format!("l2 {l2}, best of {}", grid.len());
        row.train_seconds = timing.train_seconds;
        row.epochs = timing.epochs;
        row.seconds_per_epoch = timing.seconds_per_epoch;
        self.push(row)?;
        Ok(nodes)
    }

    fn add(
        &mut self,
        system: &str,
        seed: u64,
        split: &Split,
        scorer: &dyn Scorer,
        seconds: f64,
        settings: String,
    ) -> Result<()> {
        let mut row = measure(system, seed, scorer, split)?;
        row.train_seconds = seconds;
        row.settings = settings;
        self.push(row)
    }

    fn push(&mut self, row: Row) -> Result<()> {
        let ndcg = row.metrics.get("N@10").copied().unwrap_or_default();
        self.reporter.say(&format!("{}, seed {}: test N@10 {ndcg:.4}", row.system, row.seed));
        if self.ranks.is_root() {
            row.save_users(&self.args.out)?;
        }
        self.record.rows.push(row);
        if self.ranks.is_root() {
            self.record.save(&self.path)?;
        }
        Ok(())
    }
}

/// N@10 on the validation items, training items left out.
fn validation(scorer: &dyn Scorer, split: &Split) -> Result<f64> {
    let config = EvaluationConfig { ks: vec![10], ..EvaluationConfig::default() };
    let report = evaluate(scorer, &split.valid, &[&split.train], &config)?;
    Ok(report.get(Metric::Ndcg, 10).unwrap_or_default())
}

fn measure(system: &str, seed: u64, scorer: &dyn Scorer, split: &Split) -> Result<Row> {
    let masked = [&split.train, &split.valid];
    let test = evaluate(scorer, &split.test, &masked, &EvaluationConfig::default())?;
    let mut row = Row::new(system, seed, &test, Some(validation(scorer, split)?), split)?;
    if !split.cold_items.is_empty() {
        let candidates = Some(split.cold_items.clone());
        let config = EvaluationConfig { candidates, ..EvaluationConfig::default() };
        row.add_cold(split, &test, &evaluate(scorer, &cold_test(split), &masked, &config)?)?;
    }
    Ok(row)
}

/// The test interactions with cold items.
fn cold_test(split: &Split) -> Interactions {
    split.test.filter(|_, item| split.cold_items.binary_search(&item).is_ok())
}

/// Ten recommendations for the user with the most items up to ten, beside some of
/// what that user has.
fn show(recommender: &Recommender) -> Result<()> {
    let mut shown = (0, 0);
    for user in 0..recommender.users().len() as u32 {
        let has = recommender.history(user)?.len();
        if has <= 10 && has > shown.1 {
            shown = (user, has);
        }
    }
    let user = shown.0;
    let items = recommender.items();
    println!("\nuser {} has, among others:", recommender.users()[user as usize]);
    for &item in recommender.history(user)?.iter().take(10) {
        println!("     {}", clip(&items[item as usize].text, 92));
    }
    println!("and is recommended:");
    for (n, recommendation) in recommender.recommend(user, 10)?.iter().enumerate() {
        let text = clip(&recommendation.record.text, 80);
        println!("{:3}. {text}  ({:.2})", n + 1, recommendation.score);
    }
    Ok(())
}

/// The first `width` characters, for a line on a screen.
fn clip(text: &str, width: usize) -> String {
    match text.char_indices().nth(width) {
        Some((end, _)) => format!("{}…", text[..end].trim_end()),
        None => text.to_owned(),
    }
}
