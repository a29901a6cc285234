//! Runs an experiment and prints its tables.

use std::sync::Arc;
use std::time::Instant;

use glta_align::{ItemRecord, LanguageModel, Recommender, RunData, finish_for_serving};
use glta_comm::Communicator;
use glta_eval::{Error, Event, Experiment, ExperimentConfig, Record, comparison_table};

use crate::Result;
use crate::datasets::DataSource;
use crate::flags::ExperimentFlags;
use crate::held_out::held_out;
use crate::interrupt::Unfinished;
use crate::output::{errln, outln};
use crate::progress::Reporter;
use crate::ranks::{self, Ranks};

/// Runs all systems on a data set and prints the tables. All ranks call this function, but only
/// rank 0 writes files and prints.
///
/// # Errors
/// Returns an error if the flags are invalid or the experiment fails.
pub fn run(ranks: &Ranks, source: &DataSource, flags: &ExperimentFlags) -> Result<Record> {
    let config = flags.resolve(source.density, source.adapt)?;
    run_configured(ranks, source, flags, config, |_| Ok(()))
}

/// Runs an experiment like [`run`], with a complete configuration. If the experiment uses a
/// language model, `before` is called with the model before the systems run.
///
/// # Errors
/// Returns an error if the experiment or `before` fails.
pub fn run_configured(
    ranks: &Ranks,
    source: &DataSource,
    flags: &ExperimentFlags,
    config: ExperimentConfig,
    before: impl FnOnce(&LanguageModel) -> Result<()>,
) -> Result<Record> {
    let start = Instant::now();
    if ranks.is_root() {
        outln!("{}", source.dataset.stats());
    }
    let experiment = Experiment::new(&source.dataset, &flags.out, config.clone());
    let experiment = experiment.resume(flags.resume);
    if flags.stats {
        return Ok(experiment.on(Arc::<glta_comm::Metered>::clone(ranks)).describe()?);
    }
    experiment.check_folder()?;
    let mut reporter = Reporter::new(flags.quiet || !ranks.is_root());
    let language = if experiment.uses_language(flags.text_encoder.is_some()) {
        Some(flags.language_model(&config.glta.llm, ranks, &mut reporter)?)
    } else {
        None
    };
    if let Some(language) = &language {
        before(language)?;
    }
    let record = with_texts(experiment, language.clone(), flags, ranks)?
        .run_with(&mut |event: &Event<'_>| reporter.experiment(event))
        .inspect_err(|error| {
            if matches!(error, Error::Cancelled) && ranks.is_root() {
                let how = if flags.resume { "" } else { " with --resume" };
                errln!("finished rows are kept; run the same command{how} to continue");
            }
        });
    reporter.finish();
    let record = record?;
    if !ranks.is_root() {
        return Ok(record);
    }
    // All files are written before the first line is printed.
    let shown =
        |metric: &&(&str, &str)| config.protocol.metrics.iter().any(|m| m.to_string() == metric.0);
    let plots = [("N@10", "ndcg.svg"), ("P@10", "precision.svg")];
    let plots = plots.iter().filter(shown).map(|(metric, file)| record.plot(metric, file));
    let plots = plots.collect::<std::result::Result<Vec<_>, _>>()?;
    print(&record)?;
    outln!("\nwritten to {}", record.path().display());
    for plot in plots {
        outln!("       and {}", plot.display());
    }
    show(&record, flags, language.as_ref())?;
    if flags.finish {
        finish(source, flags, &config, language.as_ref())?;
    }
    if let Some(line) = ranks::traffic(ranks, start) {
        outln!("\n{line}");
    }
    Ok(record)
}

/// Fits the main model of each seed on all interactions.
fn finish(
    source: &DataSource,
    flags: &ExperimentFlags,
    config: &ExperimentConfig,
    language: Option<&LanguageModel>,
) -> Result<()> {
    for seed in &config.run.seeds {
        let folder = flags.out.join(format!("seed-{seed}"));
        let (run, ready) = (folder.join("glta"), folder.join("serving"));
        if ready.join("history.json").exists() {
            outln!(
                "\nfitted on all data and ready to serve, by an earlier run: {}",
                ready.display()
            );
            continue;
        }
        if !run.join("history.json").exists() {
            let run = run.display();
            return Err(format!("--finish: there is no run of the main model in {run}").into());
        }
        let split = held_out(&source.dataset, *seed)?;
        let data = RunData::new(&source.dataset, &split, &config.protocol.texts)?;
        let mut reporter = Reporter::new(flags.quiet);
        let working = Unfinished::new(".serving-", &folder)?;
        let report = &mut |event: &glta_align::Event| reporter.event(event);
        let ended = finish_for_serving(&run, working.path(), data, language, report);
        reporter.finish();
        let people = ended?.0.users().len();
        working.finish(&ready)?;
        let ready = ready.display();
        outln!("\nfitted on all data of {people} users and ready to serve: {ready}");
    }
    Ok(())
}

/// Adds the ranks and the text encoders to an experiment.
fn with_texts<'a>(
    experiment: Experiment<'a>,
    language: Option<LanguageModel>,
    flags: &ExperimentFlags,
    ranks: &Ranks,
) -> Result<Experiment<'a>> {
    let mut experiment = match language {
        None => experiment.on(Arc::<glta_comm::Metered>::clone(ranks)),
        Some(language) => {
            let comm = ranks::between(ranks, language.llama.device())?;
            experiment.on(comm).language(language)
        }
    };
    if let Some(dir) = &flags.text_encoder {
        experiment = experiment.text_encoder(text_encoder(dir)?);
    }
    Ok(experiment)
}

#[cfg(feature = "text-encoder")]
pub(crate) fn text_encoder(dir: &std::path::Path) -> Result<Box<dyn glta_core::TextEncoder>> {
    Ok(Box::new(glta_llm::SentenceEncoder::load(dir)?))
}

#[cfg(not(feature = "text-encoder"))]
pub(crate) fn text_encoder(_: &std::path::Path) -> Result<Box<dyn glta_core::TextEncoder>> {
    Err("--text-encoder: this program was built without the feature `text-encoder`".into())
}

/// Prints the tables of a record.
pub(crate) fn print(record: &Record) -> Result<()> {
    outln!("\n{}\n\n{}", record.table(), record.by_degree());
    outln!("\n{}", record.by_activity());
    if let Some(main) = record.main_system() {
        let comparisons = record.comparisons(main)?;
        if !comparisons.is_empty() {
            outln!("\n{}", comparison_table(&comparisons));
        }
    }
    if record.rows.iter().any(|row| !row.cold.is_empty()) {
        outln!("\n{}", record.cold());
    }
    for skipped in &record.skipped {
        outln!("\nnot run: {}, because {}", skipped.system, skipped.reason);
    }
    Ok(())
}

/// Prints ten recommendations for one user, and some of the user's items. The user is the one with
/// the most items among those with at most ten.
fn show(record: &Record, flags: &ExperimentFlags, language: Option<&LanguageModel>) -> Result<()> {
    let seed = record.protocol.seeds.first().copied().unwrap_or_default();
    let dir = flags.out.join(format!("seed-{seed}")).join("glta");
    if !dir.join("history.json").exists() {
        return Ok(());
    }
    let recommender = match language {
        Some(language) => Recommender::open_with(&dir, language)?,
        None => match Recommender::open(&dir) {
            // The experiment was resumed and needed no language model.
            Err(glta_align::Error::NoLlm) => return Ok(()),
            opened => opened?,
        },
    };
    let mut shown = (0, 0);
    for user in 0..recommender.users().len() as u32 {
        let has = recommender.history(user)?.len();
        if has <= 10 && has > shown.1 {
            shown = (user, has);
        }
    }
    let user = shown.0;
    let items = recommender.items();
    outln!(
        "\nsome items of user {} of {}:",
        recommender.users()[user as usize],
        record.dataset.name
    );
    for &item in recommender.history(user)?.iter().take(10) {
        outln!("     {}", clip(shown_as(&items[item as usize]), 74));
    }
    outln!("recommendations:");
    for (n, recommendation) in recommender.recommend(user, 10)?.iter().enumerate() {
        let text = clip(shown_as(recommendation.record), 64);
        outln!("{:3}. {text}  ({:.2})", n + 1, recommendation.score);
    }
    Ok(())
}

/// Returns the text of an item, or its raw id if it has none.
fn shown_as(item: &ItemRecord) -> &str {
    if item.text.trim().is_empty() { &item.raw_id } else { &item.text }
}

/// Returns the first `width` characters of a text, followed by an ellipsis if the text is longer.
fn clip(text: &str, width: usize) -> String {
    match text.char_indices().nth(width) {
        Some((end, _)) => format!("{}…", text[..end].trim_end()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::clip;

    #[test]
    fn texts_are_clipped_at_characters() {
        assert_eq!(clip("tea", 5), "tea");
        assert_eq!(clip("grün tee", 4), "grün…");
        assert_eq!(clip("tea for two", 4), "tea…");
    }
}
