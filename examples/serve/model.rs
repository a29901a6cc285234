//! The model that answers, and its replacement while requests go on.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use candle_core::Device;
use glta::align::{Backbone, Config, LanguageModel, Recommender};

use crate::common::Result;
use crate::measure::Measures;

/// A loaded recommender with what requests need to find items.
pub(crate) struct Loaded {
    pub(crate) recommender: Recommender,
    /// Dense id of each raw item id.
    pub(crate) items: HashMap<String, u32>,
    /// Names this load in answers: its number since the start.
    pub(crate) version: u64,
    seen: Seen,
}

/// By what a new model is told from the old one.
type Seen = (PathBuf, SystemTime);

/// Where the current model stands.
pub(crate) struct Shelf {
    model: PathBuf,
    llm: Option<PathBuf>,
    device: Device,
    current: ArcSwap<Loaded>,
}

impl Shelf {
    pub(crate) fn open(model: &Path, llm: Option<&Path>, device: Device) -> Result<Self> {
        let first = load(model, llm, &device, 1)?;
        Ok(Self {
            model: model.to_owned(),
            llm: llm.map(Path::to_owned),
            device,
            current: ArcSwap::from_pointee(first),
        })
    }

    pub(crate) fn current(&self) -> Arc<Loaded> {
        self.current.load_full()
    }

    /// Loads what lies in the folder if it is not what is served; whether it was.
    fn refresh(&self) -> Result<bool> {
        let current = self.current();
        if seen(&self.model)? == current.seen {
            return Ok(false);
        }
        let next = load(&self.model, self.llm.as_deref(), &self.device, current.version + 1)?;
        self.current.store(Arc::new(next));
        Ok(true)
    }
}

/// Looks after the folder from a thread of its own. A model that cannot be loaded
/// is told once, and the old one stays.
pub(crate) fn watch(shelf: &Arc<Shelf>, every: Duration, measures: &Arc<Measures>) {
    let (shelf, measures) = (shelf.clone(), measures.clone());
    std::thread::spawn(move || {
        let mut told = None;
        loop {
            std::thread::sleep(every);
            match shelf.refresh() {
                Ok(true) => {
                    measures.reloads.inc();
                    told = None;
                    eprintln!(
                        "loaded model {} from {}",
                        shelf.current().version,
                        shelf.model.display()
                    );
                }
                Ok(false) => {}
                Err(error) => {
                    let message = error.to_string();
                    if told.as_ref() != Some(&message) {
                        eprintln!("the new model is not used: {message}");
                        told = Some(message);
                    }
                }
            }
        }
    });
}

fn seen(model: &Path) -> Result<Seen> {
    let file = model.join("model.safetensors");
    let of = |e: std::io::Error| format!("{}: {e}", file.display());
    let path = file.canonicalize().map_err(of)?;
    let time = path.metadata().and_then(|m| m.modified()).map_err(of)?;
    Ok((path, time))
}

fn load(model: &Path, llm: Option<&Path>, device: &Device, version: u64) -> Result<Loaded> {
    let seen = seen(model)?;
    let config = Config::of_run(model)?;
    let language = match (config.backbone, llm) {
        (Backbone::None, _) => None,
        (_, Some(dir)) => Some(LanguageModel::load(dir, &config.llm, device)?),
        (_, None) => return Err("--llm DIR: the model was trained with a language model".into()),
    };
    let recommender = Recommender::load(model, language.as_ref())?;
    let items = recommender.items().iter().zip(0u32..);
    let items = items.map(|(item, id)| (item.raw_id.clone(), id)).collect();
    Ok(Loaded { recommender, items, version, seen })
}
