//! Validates a configuration.

use super::{Backbone, Config, ItemSlots, SlotPlacement, TargetLoss, TargetRule, TrainConfig};
use crate::{Error, Result};

impl Config {
    /// Checks that every field is valid and that no two fields contradict each other.
    ///
    /// # Errors
    /// Returns [`Error::Config`] with the first invalid field.
    pub fn validate(&self) -> Result<()> {
        self.graph.validate()?;
        let model = &self.model;
        positive("model.slots", model.slots)?;
        positive("model.hidden_without_llm", model.hidden_without_llm)?;
        share("texts.max_share", self.texts.max_share, 0.0, 1.0)?;
        share("texts.dropout", self.texts.dropout, 0.0, 1.0)?;
        if !model.prompt && !model.linear {
            return Err(invalid(
                "model.prompt",
                "without a prompt path the linear model must be enabled: set model.linear = true",
            ));
        }
        if model.linear {
            self.linear.validate().map_err(|error| within("linear", error))?;
            if model.mix.is_empty() {
                return Err(invalid("model.mix", "at least one value is needed"));
            }
            model.mix.iter().try_for_each(|&value| share("model.mix", value, 0.0, 1e12))?;
        }
        self.item_text.whiten.validate().map_err(|error| within("item_text.whiten", error))?;
        self.item_text.tf_idf.validate().map_err(|error| within("item_text.tf_idf", error))?;
        let max_tokens = self.item_text.language_model.max_tokens;
        positive("item_text.language_model.max_tokens", max_tokens)?;
        positive("texts.max_items", self.texts.max_items)?;
        positive("texts.words", self.texts.words)?;
        positive("texts.max_tokens", self.texts.max_tokens)?;
        share("user_stage.hide_min", self.user_stage.hide_min, 0.0, 1.0)?;
        share("user_stage.hide_max", self.user_stage.hide_max, self.user_stage.hide_min, 1.0)?;
        if self.user_stage.targets == TargetRule::Hidden && self.user_stage.hide_max == 0.0 {
            return Err(invalid("user_stage.hide_max", "0 hides nothing, so there are no targets"));
        }
        if model.slot_placement == SlotPlacement::Prefix {
            if !model.slot_user_token {
                return Err(invalid(
                    "model.slot_placement",
                    "\"prefix\" without slot_user_token: under a causal mask every user would \
                     get the same logits",
                ));
            }
            if self.item_stage.enabled {
                return Err(invalid(
                    "model.slot_placement",
                    "\"prefix\" slots cannot see the item tokens: set item_stage.enabled = false",
                ));
            }
        }
        if model.user_id_text && model.slot_user_token {
            return Err(invalid(
                "model.user_id_text",
                "with slot_user_token the prompt would still contain the user token: set \
                 slot_user_token = false",
            ));
        }
        if model.autoregressive {
            if self.user_stage.loss != TargetLoss::SampledSlots {
                return Err(invalid(
                    "model.autoregressive",
                    "each slot needs its own target: set user_stage.loss = \"sampled_slots\"",
                ));
            }
            if model.slot_placement != SlotPlacement::Response || self.backbone == Backbone::None {
                return Err(invalid(
                    "model.autoregressive",
                    "slots must see earlier slots, which needs a language model and slot_placement \
                     = \"response\"",
                ));
            }
        }
        if self.backbone == Backbone::None && !model.slot_user_token {
            return Err(invalid(
                "model.slot_user_token",
                "without a language model only the slot's input depends on the user: it must be \
                 true",
            ));
        }
        let stages =
            [("user_stage", &self.user_stage.train), ("item_stage", &self.item_stage.train)];
        for (stage, train) in stages {
            train.validate().map_err(|error| match error {
                Error::Config { field, problem } => invalid(format!("{stage}.{field}"), problem),
                other => other,
            })?;
        }
        if self.item_stage.enabled
            && self.item_stage.slots == ItemSlots::Description
            && model.slot_placement == SlotPlacement::Last
        {
            return Err(invalid(
                "item_stage.slots",
                "\"description\" needs separate slots, which slot_placement = \"last\" does not \
                 have",
            ));
        }
        if self.item_stage.enabled && self.item_stage.items < 2 {
            return Err(invalid("item_stage.items", "at least 2 items are needed for an order"));
        }
        positive("item_stage.max_tokens", self.item_stage.max_tokens)
    }
}

impl TrainConfig {
    fn validate(&self) -> Result<()> {
        positive("train.batch_size", self.batch_size)?;
        positive("train.eval_every", self.eval_every)?;
        positive("train.checkpoint_steps", self.checkpoint_steps)?;
        share("train.ema", self.ema, 0.0, 0.999_999)?;
        share("train.final_ratio", self.final_ratio, 0.0, 1.0)?;
        share("train.learning_rate", self.learning_rate, 1e-12, 1e3)?;
        share("train.clip_norm", self.clip_norm, 1e-12, 1e12)
    }
}

fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Error {
    Error::Config { field: field.into(), problem: problem.into() }
}

/// Returns the error for an invalid field of a part, with the complete path of the field.
fn within(part: &str, error: glta_linear::Error) -> Error {
    match error {
        glta_linear::Error::Config { field, problem, .. } => {
            invalid(format!("{part}.{field}"), problem)
        }
        other => other.into(),
    }
}

fn positive(field: &'static str, value: usize) -> Result<()> {
    if value == 0 {
        return Err(invalid(field, "must be at least 1"));
    }
    Ok(())
}

fn share(field: &'static str, value: f64, low: f64, high: f64) -> Result<()> {
    if !(low..=high).contains(&value) {
        return Err(invalid(field, format!("{value} is not in {low}..={high}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Density, Preset};

    #[test]
    fn invalid_combinations_are_rejected() {
        let refused = |assignments: &[&str]| {
            let mut config = Config::preset(Preset::Full, Density::Dense);
            for a in assignments {
                config.set(a).unwrap();
            }
            config.validate().unwrap_err().to_string()
        };
        assert!(refused(&["model.slots=0"]).contains("model.slots"));
        for stage in ["user_stage", "item_stage"] {
            let message = refused(&[&format!("{stage}.train.batch_size=0")]);
            assert!(message.contains(&format!("{stage}.train.batch_size: ")), "{message}");
        }
        assert!(refused(&["user_stage.hide_max=0.1"]).contains("hide_max"));
        assert!(
            refused(&["model.slot_placement=prefix", "model.slot_user_token=false"])
                .contains("same logits")
        );
        assert!(
            refused(&["backbone=none", "model.slot_user_token=false"])
                .contains("depends on the user")
        );
        assert!(refused(&["model.user_id_text=true"]).contains("slot_user_token"));
        assert!(refused(&["model.autoregressive=true"]).contains("sampled_slots"));
        assert!(
            refused(&[
                "model.autoregressive=true",
                "user_stage.loss=sampled_slots",
                "model.slot_placement=last"
            ])
            .contains("slots must see")
        );
        assert!(
            refused(&["item_stage.slots=description", "model.slot_placement=last"])
                .contains("separate slots")
        );
        assert!(refused(&["model.prompt=false", "model.linear=false"]).contains("model.prompt: "));
        assert!(refused(&["linear.l2=[]"]).contains("configuration: linear.l2: "));
        let whiten = refused(&["item_text.whiten.components=0"]);
        assert!(whiten.contains("configuration: item_text.whiten.components: "), "{whiten}");
        assert!(refused(&["model.mix=[]"]).contains("model.mix"));
        assert!(refused(&["model.mix=[-1.0]"]).contains("model.mix"));
        assert!(refused(&["user_stage.train.ema=1.0"]).contains("ema"));
    }
}
