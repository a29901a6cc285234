//! The contrastive graph baselines and the texts they are given.

use std::time::Instant;

use glta::align::{Config, read_texts};
use glta::baselines::{Contrastive, ContrastiveConfig, NodeTexts};
use glta::data::Split;
use glta::graph::NodeEmbeddings;
use glta::linear::{WhitenConfig, whiten};
use glta::llm::SentenceEncoder;
use ndarray::{Array2, Axis, concatenate};

use super::{Session, validation};
use crate::common::Result;

/// Vectors of items' and users' texts, and where they are from, in words.
struct Texts {
    items: Array2<f32>,
    users: Array2<f32>,
    items_from: String,
    users_from: &'static str,
}

impl Session<'_> {
    /// HCCF, LightGCN+, HCCF+ and RLMRec, each under the l2 that is best on
    /// validation data, of as many as LightGCN has.
    pub(super) fn contrastive(&mut self, seed: u64, split: &Split, run: &Config) -> Result<()> {
        let systems = [
            ("HCCF", ContrastiveConfig::hccf(), false),
            ("LightGCN+", ContrastiveConfig::lightgcn_plus(), false),
            ("HCCF+", ContrastiveConfig::hccf_plus(), false),
            ("RLMRec-Con", ContrastiveConfig::rlmrec_con(), true),
            ("RLMRec-Gen", ContrastiveConfig::rlmrec_gen(), true),
        ];
        let mut texts: Option<Texts> = None;
        for (system, config, user_texts) in systems {
            if self.record.row(system, seed).is_some() {
                continue;
            }
            if config.text_weight > 0.0 && texts.is_none() {
                texts = Some(self.node_texts(seed, split, run)?);
            }
            let texts = texts.as_ref().filter(|_| config.text_weight > 0.0);
            let given = NodeTexts {
                items: texts.map(|t| t.items.view()),
                users: texts.filter(|_| user_texts).map(|t| t.users.view()),
            };
            let started = Instant::now();
            let grid = &self.task.lightgcn_l2;
            let mut best: Option<(f64, f32, NodeEmbeddings)> = None;
            for (n, &l2) in grid.iter().enumerate() {
                // At least some sixteen steps an epoch.
                let batch_size = (split.train.len() / 16).clamp(512, config.batch_size);
                let epochs = self.task.contrastive_epochs.unwrap_or(config.epochs);
                let settings = ContrastiveConfig { seed, batch_size, epochs, ..config.clone() };
                let config = ContrastiveConfig { l2: f64::from(l2), ..settings };
                let (epochs, reporter) = (config.epochs as u64, &mut self.reporter);
                let work = format!("{system} {}/{}", n + 1, grid.len());
                let nodes = Contrastive::new(config)?.train(
                    &split.train,
                    Some(&split.valid),
                    given,
                    &mut |epoch| {
                        let note = match epoch.validation {
                            Some(v) => format!("valid N@10 {v:.4}"),
                            None => format!("loss {:.4}", epoch.loss),
                        };
                        reporter.advance(&work, epoch.epoch as u64, epochs, &note)
                    },
                )?;
                let valid = validation(&nodes.scorer(), split)?;
                self.reporter.say(&format!("{system}, l2 {l2}: valid N@10 {valid:.4}"));
                if best.as_ref().is_none_or(|(v, ..)| valid > *v) {
                    best = Some((valid, l2, nodes));
                }
            }
            let (_, l2, nodes) = best.ok_or("the contrastive baselines need at least one l2")?;
            let seconds = started.elapsed().as_secs_f64() / grid.len() as f64;
            let mut settings = format!("l2 {l2}, best of {}", grid.len());
            if let Some(texts) = texts {
                settings += &format!("; item texts: {}", texts.items_from);
            }
            if let Some(texts) = texts.filter(|_| user_texts) {
                settings += &format!("; user texts: {}", texts.users_from);
            }
            self.add(system, seed, split, &nodes.scorer(), seconds, settings)?;
        }
        Ok(())
    }

    /// Items have their descriptions. Users have the profiles that the GLTA run of
    /// the seed wrote from training items, else the mean of their training items'
    /// vectors.
    fn node_texts(&mut self, seed: u64, split: &Split, config: &Config) -> Result<Texts> {
        let run = self.args.out.join(format!("seed-{seed}")).join("glta").join("texts.jsonl");
        let mut profiles = vec![String::new(); split.train.n_users()];
        if run.exists() {
            for (user, texts) in read_texts(&run)? {
                let profile = profiles.get_mut(user as usize);
                *profile.ok_or_else(|| format!("{}: user {user}", run.display()))? = texts.profile;
            }
        }
        let written = profiles.iter().any(|p| !p.is_empty());
        let mut vectors = self.item_vectors(config)?;
        let n_items = vectors.nrows();
        if written {
            let profiles = self.encode("profile vectors", &profiles, config)?;
            vectors = concatenate(Axis(0), &[vectors.view(), profiles.view()])?;
        }
        let items_from = match &self.args.text_encoder {
            Some(dir) => dir.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            None => {
                // A language model's raw vectors all look alike.
                vectors = whiten(vectors.view(), &WhitenConfig::default())?;
                let layers = self.language.llama.config().num_hidden_layers;
                let layers = config.item_text.vectors.layers.min(layers);
                format!("{layers} layers of {}, whitened", self.language.name)
            }
        };
        let (items, profiles) = vectors.view().split_at(Axis(0), n_items);
        let (users, users_from) = match written {
            true => (profiles.to_owned(), "profiles"),
            false => (means(items, split), "mean of the training items' vectors"),
        };
        Ok(Texts { items: items.to_owned(), users, items_from, users_from })
    }

    /// Of all items' texts, read once.
    fn item_vectors(&mut self, config: &Config) -> Result<Array2<f32>> {
        if self.args.text_encoder.is_none() {
            return self.text_vectors(config);
        }
        if self.encoded.is_none() {
            let texts = self.task.dataset.texts(&self.task.texts)?;
            self.encoded = Some(self.encode("item vectors", &texts, config)?);
        }
        Ok(self.encoded.clone().unwrap_or_default())
    }

    /// By the sentence encoder where one is given, else by the language model.
    fn encode(&mut self, work: &str, texts: &[String], config: &Config) -> Result<Array2<f32>> {
        let reporter = &mut self.reporter;
        let mut progress =
            |done: usize, total: usize| reporter.advance(work, done as u64, total as u64, "");
        Ok(match &self.args.text_encoder {
            Some(dir) => SentenceEncoder::load(dir)?
                .encode_with(texts, &mut |&(done, total): &(usize, usize)| progress(done, total))?,
            None => self.language.text_vectors(texts, &config.item_text.vectors, &mut progress)?,
        })
    }
}

/// Each user's mean over the training items' vectors, of length 1.
fn means(items: ndarray::ArrayView2<f32>, split: &Split) -> Array2<f32> {
    let mut users = Array2::zeros((split.train.n_users(), items.ncols()));
    for (user, mut mean) in (0u32..).zip(users.rows_mut()) {
        for &item in split.train.items(user) {
            mean += &items.row(item as usize);
        }
        let length = mean.dot(&mean).sqrt();
        if length > 0.0 {
            mean /= length;
        }
    }
    users
}
