use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// Settings of [`Contrastive`](super::Contrastive): one trainer for LightGCN+,
/// HCCF, HCCF+ and RLMRec-Con.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ContrastiveConfig {
    /// Columns of the embeddings. Default 64.
    pub dim: usize,
    /// Propagation layers, whose outputs are summed. Default 3.
    pub layers: usize,
    /// Hyperedges of HCCF's learned hypergraph; 0 leaves it out. Default 0.
    pub hyperedges: usize,
    /// Weight of the contrast between graph and hypergraph. Default 0.
    pub hyper_weight: f64,
    /// Weight of the contrast between nodes and texts. Default 0.
    pub text_weight: f64,
    /// Cosines of a contrast are divided by it. Default 0.2.
    pub temperature: f64,
    /// Adam's learning rate. Default 5e-3.
    pub learning_rate: f64,
    /// Weight of the squared layer-0 embeddings of a batch, as in LightGCN.
    /// Default 1e-4.
    pub l2: f64,
    /// Triples per step. Default 4096.
    pub batch_size: usize,
    /// Passes over as many triples as there are interactions. Default 200.
    pub epochs: usize,
    /// Epochs between two evaluations on the validation data. Default 5.
    pub eval_every: usize,
    /// Evaluations without a better N@10 after which training stops. Default 5.
    pub patience: usize,
    /// Standard deviation of the initial embeddings. Default 0.1.
    pub init_std: f64,
    /// Seed of initial values and samples. Default 2024.
    pub seed: u64,
}

impl Default for ContrastiveConfig {
    fn default() -> Self {
        Self {
            dim: 64,
            layers: 3,
            hyperedges: 0,
            hyper_weight: 0.0,
            text_weight: 0.0,
            temperature: 0.2,
            learning_rate: 5e-3,
            l2: 1e-4,
            batch_size: 4096,
            epochs: 200,
            eval_every: 5,
            patience: 5,
            init_std: 0.1,
            seed: 2024,
        }
    }
}

impl ContrastiveConfig {
    /// HCCF (Xia et al. 2022): two layers, 128 hyperedges, contrast at 0.2 with
    /// temperature 0.1.
    pub fn hccf() -> Self {
        Self { layers: 2, hyperedges: 128, hyper_weight: 0.2, temperature: 0.1, ..Self::default() }
    }

    /// LightGCN with a contrast to texts: LightGCN+ of the paper with item
    /// descriptions, RLMRec-Con (Ren et al. 2024, eq. 10) with profiles of users
    /// and items. Weight 0.01 and temperature 0.2 are RLMRec's.
    pub fn lightgcn_plus() -> Self {
        Self { text_weight: 0.01, ..Self::default() }
    }

    /// [`hccf`](Self::hccf) with the contrast of
    /// [`lightgcn_plus`](Self::lightgcn_plus).
    pub fn hccf_plus() -> Self {
        Self { text_weight: 0.01, ..Self::hccf() }
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Config`] for a size of 0, or a number that cannot be used.
    pub fn validate(&self) -> Result<()> {
        let wrong =
            |field, problem| Err(Error::Config { system: "contrastive graph", field, problem });
        let sizes = [
            ("dim", self.dim),
            ("batch_size", self.batch_size),
            ("epochs", self.epochs),
            ("eval_every", self.eval_every),
            ("patience", self.patience),
        ];
        if let Some((field, _)) = sizes.into_iter().find(|(_, size)| *size == 0) {
            return wrong(field, "must be at least 1".into());
        }
        let positive = [
            ("temperature", self.temperature),
            ("learning_rate", self.learning_rate),
            ("init_std", self.init_std),
        ];
        for (field, value) in positive {
            if !(value > 0.0 && value.is_finite()) {
                return wrong(field, format!("{value} is not a positive number"));
            }
        }
        let weights = [
            ("hyper_weight", self.hyper_weight),
            ("text_weight", self.text_weight),
            ("l2", self.l2),
        ];
        for (field, value) in weights {
            if !(value >= 0.0 && value.is_finite()) {
                return wrong(field, format!("{value} is not zero or a positive number"));
            }
        }
        if self.hyper_weight > 0.0 && self.hyperedges == 0 {
            return wrong("hyper_weight", "needs hyperedges to contrast with".into());
        }
        Ok(())
    }
}
