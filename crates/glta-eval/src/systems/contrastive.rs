//! The contrastive graph models and the text vectors that they are given.

use std::sync::Arc;
use std::time::Instant;

use glta_align::read_texts;
use glta_baselines::{Contrastive, ContrastiveConfig, ContrastiveEpoch, NodeTexts};
use glta_core::search;
use glta_data::Split;
use glta_linear::{WhitenConfig, whiten};
use ndarray::{Array2, ArrayView2, Axis, concatenate};

use super::ease::no_score;
use super::lightgcn::Nodes;
use super::variants::MAIN_FOLDER;
use crate::error::BoxError;
use crate::event::Event;
use crate::seed::Seed;
use crate::system::{Fitted, System};
use crate::{Error, Result};

/// A contrastive model under the L2 weight that is best on validation data, of as many as
/// LightGCN has.
pub(crate) struct ContrastiveSystem {
    name: &'static str,
    config: ContrastiveConfig,
    user_texts: bool,
}

pub(crate) fn all() -> [ContrastiveSystem; 5] {
    let system = |name, config, user_texts| ContrastiveSystem { name, config, user_texts };
    [
        system("HCCF", ContrastiveConfig::hccf(), false),
        system("LightGCN+", ContrastiveConfig::lightgcn_plus(), false),
        system("HCCF+", ContrastiveConfig::hccf_plus(), false),
        system("RLMRec-Con", ContrastiveConfig::rlmrec_con(), true),
        system("RLMRec-Gen", ContrastiveConfig::rlmrec_gen(), true),
    ]
}

impl ContrastiveSystem {
    pub(crate) fn reads_texts(&self) -> bool {
        self.config.text_weight > 0.0
    }
}

impl System for ContrastiveSystem {
    fn name(&self) -> &str {
        self.name
    }

    fn fit(&self, seed: &mut Seed<'_>) -> std::result::Result<Fitted, BoxError> {
        let texts = self.reads_texts().then(|| seed.node_vectors()).transpose()?;
        let texts = texts.as_deref();
        let given = NodeTexts {
            items: texts.map(|t| t.items.view()),
            users: texts.filter(|_| self.user_texts).map(|t| t.users.view()),
        };
        let split = seed.split();
        let baselines = &seed.config().baselines;
        let grid = &baselines.graph_l2;
        let started = Instant::now();
        let mut tried = 0;
        let found = search(grid, |&l2| -> Result<_> {
            tried += 1;
            let config = ContrastiveConfig {
                seed: seed.number(),
                // At least some sixteen steps an epoch.
                batch_size: (split.train.len() / 16).clamp(512, self.config.batch_size),
                epochs: baselines.contrastive_epochs.unwrap_or(self.config.epochs),
                l2: f64::from(l2),
                ..self.config.clone()
            };
            let work = format!("{} {tried}/{}", self.name, grid.len());
            let total = config.epochs as u64;
            let progress = &mut *seed.progress;
            let trained = Contrastive::new(config)?.train_with(
                &split.train,
                Some(&split.valid),
                given,
                &mut |epoch: &ContrastiveEpoch| {
                    let note = match epoch.validation {
                        Some(v) => format!("valid N@10 {v:.4}"),
                        None => format!("loss {:.4}", epoch.loss),
                    };
                    let done = epoch.epoch as u64;
                    progress.report(&Event::Work { work: &work, done, total, note: &note })
                },
            )?;
            let valid = seed.validation(&trained.embeddings.scorer())?;
            seed.note(&format!("{}, l2 {l2}: valid N@10 {valid:.4}", self.name))?;
            Ok((valid, trained.embeddings))
        })?;
        let seconds = started.elapsed().as_secs_f64() / grid.len() as f64;
        let (best, nodes) = found.best.ok_or_else(|| no_score(self.name))?;
        let mut fitted = Fitted::new(Nodes(Arc::new(nodes)))
            .setting("l2", grid[best])
            .setting("tried", grid.len())
            .seconds(seconds);
        if let Some(texts) = texts {
            fitted = fitted.setting("item_texts", &texts.items_from);
            if self.user_texts {
                fitted = fitted.setting("user_texts", texts.users_from);
            }
        }
        Ok(fitted)
    }
}

/// Vectors of items' and users' texts, and where they are from, in words.
pub(crate) struct NodeVectors {
    items: Array2<f32>,
    users: Array2<f32>,
    items_from: String,
    users_from: &'static str,
}

impl Seed<'_> {
    /// Items have their descriptions. Users have the profiles that the main GLTA run of the
    /// seed wrote from training items, else the mean of their training items' vectors.
    fn node_vectors(&mut self) -> Result<Arc<NodeVectors>> {
        if let Some(vectors) = &self.shared.node_vectors {
            return Ok(Arc::clone(vectors));
        }
        let profiles = self.profiles()?;
        let mut vectors = Arc::unwrap_or_clone(self.item_vectors()?);
        let n_items = vectors.nrows();
        if let Some(profiles) = &profiles {
            let profiles = self.encode("profile vectors", profiles)?;
            vectors = concatenate(Axis(0), &[vectors.view(), profiles.view()])
                .map_err(|e| Error::file(self.folder(), e))?;
        }
        let items_from = match self.encoder {
            Some(encoder) => encoder.name().to_owned(),
            None => {
                // A language model's raw vectors all look alike.
                vectors = whiten(vectors.view(), &WhitenConfig::default())?;
                let language = self.language()?;
                let layers = language.llama.config().num_hidden_layers;
                let layers = self.config().glta.item_text.vectors.layers.min(layers);
                format!("{layers} layers of {}, whitened", language.name)
            }
        };
        let (items, written) = vectors.view().split_at(Axis(0), n_items);
        let (users, users_from) = match profiles {
            Some(_) => (written.to_owned(), "profiles"),
            None => (means(items, self.split()), "mean of the training items' vectors"),
        };
        let items = items.to_owned();
        let vectors = Arc::new(NodeVectors { items, users, items_from, users_from });
        self.shared.node_vectors = Some(Arc::clone(&vectors));
        Ok(vectors)
    }

    /// The profile of every user, if the main run wrote any.
    fn profiles(&self) -> Result<Option<Vec<String>>> {
        let path = self.folder().join(MAIN_FOLDER).join("texts.jsonl");
        if !path.exists() {
            return Ok(None);
        }
        let mut profiles = vec![String::new(); self.split().train.n_users()];
        for (user, texts) in read_texts(&path)? {
            let profile = profiles.get_mut(user as usize);
            let unknown = || Error::file(&path, format!("there is no user {user}"));
            *profile.ok_or_else(unknown)? = texts.profile;
        }
        Ok(profiles.iter().any(|p| !p.is_empty()).then_some(profiles))
    }

    /// Vectors of all items' texts by the text encoder, read once, else by the language
    /// model.
    fn item_vectors(&mut self) -> Result<Arc<Array2<f32>>> {
        if self.encoder.is_none() {
            return self.text_vectors();
        }
        if self.vectors.encoder.is_none() {
            let texts = self.dataset().texts(&self.config().protocol.texts)?;
            self.vectors.encoder = Some(Arc::new(self.encode("item vectors", &texts)?));
        }
        Ok(self.vectors.encoder.clone().unwrap_or_default())
    }

    /// By the text encoder where one is given, else by the language model.
    fn encode(&mut self, work: &str, texts: &[String]) -> Result<Array2<f32>> {
        let (language, encoder) = (self.language, self.encoder);
        let config = &self.config().glta.item_text.vectors;
        let system = self.system.clone();
        let progress = &mut *self.progress;
        match (encoder, language) {
            (Some(encoder), _) => encoder
                .encode(texts, &mut |&(done, total): &(usize, usize)| {
                    let (done, total) = (done as u64, total as u64);
                    progress.report(&Event::Work { work, done, total, note: "" })
                })
                .map_err(|e| Error::system(&system, self.number, e)),
            (None, Some(language)) => {
                let mut report = |event: &glta_align::Event| progress.report(&Event::Run(event));
                Ok(language.text_vectors_with(texts, config, &mut report)?)
            }
            (None, None) => Err(Error::NoLanguage { system }),
        }
    }
}

/// Each user's mean over the training items' vectors, of length 1.
fn means(items: ArrayView2<'_, f32>, split: &Split) -> Array2<f32> {
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
