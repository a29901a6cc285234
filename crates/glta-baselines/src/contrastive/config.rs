use serde::{Deserialize, Serialize};

use crate::checks::{at_least_one, positive};
use crate::{Error, Result};

const SYSTEM: &str = "contrastive graph";

/// Settings of [`Contrastive`](super::Contrastive). Its constructors select LightGCN+, HCCF, HCCF+,
/// RLMRec-Con or RLMRec-Gen. The defaults are those of LightGCN without a contrastive loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ContrastiveConfig {
    /// Number of columns of the embeddings. Default 64.
    pub dim: usize,
    /// Number of propagation layers. An embedding is the mean of the outputs of layer 0 and these
    /// layers. Default 3.
    pub layers: usize,
    /// Number of hyperedges of HCCF's learned hypergraph. 0 disables the hypergraph. Default 0.
    pub hyperedges: usize,
    /// Weight of the contrastive loss between graph and hypergraph. Default 0.
    pub hyper_weight: f64,
    /// Weight of the contrastive loss between nodes and texts. Default 0.
    pub text_weight: f64,
    /// Temperature of the contrastive loss between graph and hypergraph. Default 0.1.
    pub temperature: f64,
    /// Temperature of the contrastive loss between nodes and texts. Default 0.2.
    pub text_temperature: f64,
    /// Fraction of nodes that each step masks: a learned token replaces their layer-0 embedding,
    /// and they are contrasted with their texts in the text space (RLMRec-Gen). With 0, the nodes
    /// of the triples are contrasted in the node space (RLMRec-Con). Default 0.
    pub mask: f64,
    /// Adam's learning rate. Default 5e-3.
    pub learning_rate: f64,
    /// Weight of the squared layer-0 embeddings of a batch (L2 regularisation). Default 1e-4.
    pub l2: f64,
    /// Number of triples per step. Default 4096.
    pub batch_size: usize,
    /// Number of epochs. An epoch draws as many triples as there are interactions. Default 200.
    pub epochs: usize,
    /// Number of epochs between evaluations on the validation data. Default 5.
    pub eval_every: usize,
    /// Number of evaluations without a better N@10 after which training stops. Default 5.
    pub patience: usize,
    /// Standard deviation of the initial embeddings. Default 0.1.
    pub init_std: f64,
    /// Seed of the initial values and the samples. Default 2024.
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
            temperature: 0.1,
            text_temperature: 0.2,
            mask: 0.0,
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
    /// Returns the settings of HCCF (Xia et al. 2022): two layers, 128 hyperedges, contrastive
    /// weight 0.2 and temperature 0.1.
    pub fn hccf() -> Self {
        Self { layers: 2, hyperedges: 128, hyper_weight: 0.2, ..Self::default() }
    }

    /// Returns the settings of the GLTA paper's LightGCN+, which is LightGCN with a contrastive
    /// loss between nodes and texts. They equal those of [`rlmrec_con`](Self::rlmrec_con).
    pub fn lightgcn_plus() -> Self {
        Self::rlmrec_con()
    }

    /// Returns the settings of RLMRec-Con (Ren et al. 2024, contrastive alignment) with texts of
    /// users and items: three layers, weight 0.01, temperature 0.2. They are the authors'
    /// settings for Amazon and Yelp.
    pub fn rlmrec_con() -> Self {
        Self { text_weight: 0.01, ..Self::default() }
    }

    /// Returns the settings of RLMRec-Gen (Ren et al. 2024, generative alignment) with texts of
    /// users and items: two layers, 15 % of the nodes masked, weight 0.1, temperature 0.5. They are
    /// the authors' settings for Amazon and Steam.
    pub fn rlmrec_gen() -> Self {
        Self { layers: 2, mask: 0.15, text_weight: 0.1, text_temperature: 0.5, ..Self::default() }
    }

    /// Returns the settings of the GLTA paper's HCCF+: those of [`hccf`](Self::hccf), with the
    /// contrastive loss of [`lightgcn_plus`](Self::lightgcn_plus) between nodes and texts.
    pub fn hccf_plus() -> Self {
        Self { text_weight: 0.01, ..Self::hccf() }
    }

    /// Checks that all settings are valid and do not contradict each other.
    ///
    /// # Errors
    /// Returns [`Error::Config`] if a size is 0, a number is outside its range or two settings
    /// contradict each other.
    pub fn validate(&self) -> Result<()> {
        let invalid = |field, problem| Err(Error::Config { system: SYSTEM, field, problem });
        let sizes = [
            ("dim", self.dim),
            ("batch_size", self.batch_size),
            ("epochs", self.epochs),
            ("eval_every", self.eval_every),
            ("patience", self.patience),
        ];
        at_least_one(SYSTEM, &sizes)?;
        let numbers = [
            ("temperature", self.temperature),
            ("text_temperature", self.text_temperature),
            ("learning_rate", self.learning_rate),
            ("init_std", self.init_std),
        ];
        positive(SYSTEM, &numbers)?;
        let weights = [
            ("hyper_weight", self.hyper_weight),
            ("text_weight", self.text_weight),
            ("l2", self.l2),
        ];
        for (field, value) in weights {
            if !(value >= 0.0 && value.is_finite()) {
                return invalid(field, format!("{value} is not zero or a positive number"));
            }
        }
        if !(0.0..1.0).contains(&self.mask) {
            return invalid("mask", format!("{} is not in [0, 1)", self.mask));
        }
        if self.mask > 0.0 && self.text_weight == 0.0 {
            return invalid("mask", "masked nodes need a `text_weight`".into());
        }
        if self.mask > 0.0 && self.hyperedges > 0 {
            // The learned token starts at zero. A node whose neighbours are all masked is then zero
            // in the graph's view, and the cosine of a zero vector has no gradient.
            return invalid("mask", "masked nodes cannot be combined with `hyperedges`".into());
        }
        if self.hyper_weight > 0.0 && self.hyperedges == 0 {
            return invalid("hyper_weight", "needs hyperedges to contrast with".into());
        }
        Ok(())
    }
}
