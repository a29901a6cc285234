//! GLTA's own rows: the method, the linear item model alone, its controls, and
//! the paper's ablations.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use glta::align::{Backbone, Config, Event, Recommender, Run, RunData};
use glta::comm::Communicator;
use glta::data::{Interactions, Split};
use glta::gllm::Decoder;
use glta::graph::NodeEmbeddings;
use glta::linear::whiten;
use glta::metrics::{EvaluationConfig, evaluate_rankings};

use super::{Session, cold_test};
use crate::common::Result;
use crate::common::report::Row;

/// The row that the ablations are compared with.
pub const COMPLETE: &str = "GLTA complete";

/// The row of the linear item model alone.
const LINEAR: &str = "Linear";

/// What every GLTA run of a seed is given.
pub(super) struct Inputs<'a> {
    pub(super) data: &'a RunData,
    pub(super) split: &'a Split,
    pub(super) nodes: &'a NodeEmbeddings,
    /// One folder a run below it.
    pub(super) folder: PathBuf,
}

/// A row's name, its folder, and what differs.
struct Variant {
    system: &'static str,
    folder: &'static str,
    config: Config,
}

/// One part less each (figure 3, table 3), and the autoregressive form (figure 4).
fn ablations(config: &Config) -> Vec<Variant> {
    let complete = config.complete();
    let without = |system, folder, change: fn(&mut Config)| {
        let mut config = complete.clone();
        change(&mut config);
        Variant { system, folder, config }
    };
    vec![
        without(COMPLETE, "complete", |_| ()),
        without("GLTA w/o IA", "without-ia", |c| c.item_stage.enabled = false),
        without("GLTA w/o UA", "without-ua", |c| {
            c.model.user_id_text = true;
            c.model.slot_user_token = false;
        }),
        without("GLTA w/o PF", "without-pf", |c| c.texts.profile = false),
        without("GLTA w/o PD", "without-pd", |c| c.texts.prediction = false),
        without("GLTA w/o both", "without-both", |c| {
            c.texts.profile = false;
            c.texts.prediction = false;
        }),
        without("GLTA AR", "ar", |c| {
            c.model.autoregressive = true;
            c.user_stage.loss = glta::align::TargetLoss::SampledSlots;
        }),
    ]
}

fn writes_texts(config: &Config) -> bool {
    config.texts.profile || config.texts.prediction
}

impl Session<'_> {
    /// The linear item model alone, the same model without a language model, and
    /// with a random one.
    pub(super) fn controls(&mut self, config: &Config, inputs: &Inputs<'_>) -> Result<()> {
        if config.model.linear && inputs.data.items.len() <= config.linear.max_items {
            let mut linear = config.clone();
            linear.item_stage.enabled = false;
            linear.user_stage.train.epochs = 0;
            linear.model.mix = vec![0.0];
            let variant = Variant { system: LINEAR, folder: "linear", config: linear };
            self.variant(&variant, None, inputs)?;
        }
        let mut none = Config { backbone: Backbone::None, ..config.clone() };
        // Only the slot's input can carry the user then.
        none.model.slot_user_token = true;
        let variant = Variant { system: "GLTA no LLM", folder: "glta-no-llm", config: none };
        self.variant(&variant, None, inputs)?;
        // The same texts in the prompt, so that only the weights differ.
        let written = writes_texts(config);
        let random = Config { backbone: Backbone::RandomLlm, ..config.clone() };
        let variant =
            Variant { system: "GLTA random LLM", folder: "glta-random-llm", config: random };
        self.variant(&variant, written.then_some("glta"), inputs)?;
        Ok(())
    }

    /// GLTA itself.
    pub(super) fn glta(&mut self, config: &Config, inputs: &Inputs<'_>) -> Result<Recommender> {
        let config = config.clone();
        self.variant(&Variant { system: "GLTA", folder: "glta", config }, None, inputs)
    }

    /// The paper's ablations and decoders.
    pub(super) fn ablations(&mut self, config: &Config, inputs: &Inputs<'_>) -> Result<()> {
        for variant in ablations(config) {
            let first = variant.system == COMPLETE;
            let taken = (!first).then_some("complete");
            let recommender = self.variant(&variant, taken, inputs)?;
            if first {
                // Decoders read the same trained model.
                self.decoder("GLTA FL", &recommender, Decoder::FirstLogit, inputs)?;
                self.decoder("GLTA MeanSlots", &recommender, Decoder::MeanSlots, inputs)?;
            }
        }
        Ok(())
    }

    /// Trains (or goes on with, or loads) a run and adds its row. `taken` is the folder
    /// of the run whose texts are used, and, with the same language model, what it
    /// aligned in stage 2.
    fn variant(
        &mut self,
        Variant { system, folder, config }: &Variant,
        taken: Option<&str>,
        inputs: &Inputs<'_>,
    ) -> Result<Recommender> {
        self.reporter.say(&format!("{system}, seed {}", config.seed));
        let started = Instant::now();
        // Whether this run is new was decided by metrics.json.
        let dir = inputs.folder.join(folder);
        let open =
            if self.comm.root_says(Run::exists(&dir))? { Run::resume_on } else { Run::create_on };
        let run = open(Arc::clone(&self.comm), dir, inputs.data.clone(), config.clone())?;
        run.set_nodes(inputs.nodes)?;
        if config.backbone == Backbone::Llm && config.reads_item_texts() {
            let vectors = whiten(self.text_vectors(config)?.view(), &config.item_text.whiten)?;
            run.set_text_vectors(vectors.view())?;
        }
        if *system == LINEAR {
            // Fitted once, for GLTA.
            run.copy_linear(inputs.folder.join("glta"))?;
        }
        if let Some(from) = taken.map(|from| inputs.folder.join(from)) {
            if writes_texts(config) {
                run.copy_texts(&from)?;
            }
            if config.backbone == Backbone::Llm && config.item_stage.enabled {
                run.copy_item_stage(&from)?;
            }
        }
        let reporter = &mut self.reporter;
        let (recommender, report) =
            run.fit_with(Some(&self.language), &mut |event: &Event| reporter.event(event))?;
        let seconds = started.elapsed().as_secs_f64();
        if self.record.row(system, config.seed).is_some() {
            return Ok(recommender);
        }
        let mut row = self.ranked(system, &recommender, report.validation(), inputs)?;
        row.train_seconds = seconds;
        row.epochs = report.user_stage.map_or(0, |stage| stage.losses.len());
        row.seconds_per_epoch = seconds / row.epochs.max(1) as f64;
        let mut settings = Vec::new();
        if let Some(accuracy) = report.item_stage.and_then(|s| s.best()) {
            let chance = 1.0 / config.item_stage.items as f64;
            settings.push(format!("item-text accuracy {accuracy:.3} (chance {chance:.3})"));
        }
        if let Some(linear) = report.linear {
            settings.push(format!(
                "linear model{} l2 {}, text {}, neighbours {}, popularity {}",
                if linear.new_items { " for new items," } else { "" },
                linear.l2,
                linear.text,
                linear.neighbours,
                linear.popularity
            ));
            let alone = linear.validation.unwrap_or(f64::NAN);
            let mix = report.mix.map_or(1.0, |mix| mix.factor);
            settings.push(format!("valid N@10 of the linear model {alone:.4}, correction x {mix}"));
        }
        row.settings = settings.join("; ");
        self.push(row)?;
        Ok(recommender)
    }

    /// The row of a trained model under another decoder.
    fn decoder(
        &mut self,
        system: &str,
        recommender: &Recommender,
        decoder: Decoder,
        inputs: &Inputs<'_>,
    ) -> Result<()> {
        if self.record.row(system, recommender.config().seed).is_some() {
            return Ok(());
        }
        let recommender = recommender.with_decoder(decoder);
        let valid = recommender.validation(&*self.comm)?;
        let row = self.ranked(system, &recommender, valid, inputs)?;
        self.push(row)
    }

    fn ranked(
        &self,
        system: &str,
        recommender: &Recommender,
        valid: Option<f64>,
        inputs: &Inputs<'_>,
    ) -> Result<Row> {
        let split = inputs.split;
        let lists = self.rankings(recommender, &split.test, None)?;
        let test = evaluate_rankings(&lists, &split.test, &EvaluationConfig::default().ks)?;
        let mut row = Row::new(system, recommender.config().seed, &test, valid, split)?;
        if !split.cold_items.is_empty() {
            let truth = cold_test(split);
            let lists = self.rankings(recommender, &truth, Some(&split.cold_items))?;
            row.add_cold(split, &test, &evaluate_rankings(&lists, &truth, &[20])?)?;
        }
        Ok(row)
    }

    /// Top-20 lists of all users with test items, from `among` or all items; each rank
    /// makes some of them.
    fn rankings(
        &self,
        recommender: &Recommender,
        test: &Interactions,
        among: Option<&[u32]>,
    ) -> Result<Vec<(u32, Vec<u32>)>> {
        let users: Vec<u32> =
            (0..test.n_users() as u32).filter(|&user| !test.items(user).is_empty()).collect();
        let users = &users[self.ranks.share(users.len())];
        let lists = match among {
            Some(items) => recommender.recommend_among(users, items, 20)?,
            None => recommender.recommend_batch(users, 20)?,
        };
        let own: Vec<(u32, Vec<u32>)> = users
            .iter()
            .zip(lists)
            .map(|(&user, list)| (user, list.into_iter().map(|r| r.item).collect()))
            .collect();
        let mut all = Vec::new();
        for part in self.ranks.all_gather(&serde_json::to_vec(&own)?)? {
            all.extend(serde_json::from_slice::<Vec<(u32, Vec<u32>)>>(&part)?);
        }
        Ok(all)
    }
}
