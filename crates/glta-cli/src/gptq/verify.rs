//! `glta gptq verify`: compares hidden states, logits, the input gradient and greedy continuations
//! with those of a reference implementation.

use std::collections::HashMap;

use candle_core::{DType, Error, Tensor, Var, safetensors};
use glta_llm::{ForwardOptions, GenerateOptions, Llama, Precision};

use super::model::LoadArgs;
use crate::Result;
use crate::output::outln;

/// Name of the file, in the model's folder, with the reference values.
const REFERENCE: &str = "reference.safetensors";

// Larger errors mean that a checkpoint was read incorrectly, or that the arithmetic is not f32.
/// Maximum absolute error of hidden states and logits in f32.
const MAX_ABS_ERR: f64 = 1e-4;
/// Maximum relative error (L2) of hidden states and logits in f32. Meeting this bound or the
/// absolute one is enough, because the rounding errors of large states alone exceed the absolute
/// bound in any order of summation.
const MAX_REL_ERR: f64 = 1e-5;
/// Maximum relative error (L2) of the input gradient in f32.
const MAX_GRAD_REL_ERR: f64 = 1e-4;
/// Maximum relative error (L2) with 16-bit rounding, which may also change greedy tokens.
const MAX_16_BIT_REL_ERR: f64 = 5e-2;

/// Prints the errors of a model, and returns whether it agrees with its reference.
pub(super) fn verify(args: &LoadArgs) -> Result<bool> {
    let dir = args.model.dir()?;
    let path = dir.join(REFERENCE);
    if !path.exists() {
        return Err(format!(
            "{}: not there; verify compares a model with the outputs of another implementation \
             in this file, which published checkpoints do not have: docs/gptq.md says what it \
             holds and how transformers writes one",
            path.display()
        )
        .into());
    }
    let model = args.load(&dir)?;
    let tensors = safetensors::load(&path, model.device());
    let reference = Reference(tensors.map_err(|e| format!("{}: {e}", path.display()))?);
    let outputs = compare_outputs(&model, &reference)?;
    let grad_err = gradient_err(&model, &reference)?;
    let Outputs { hidden, logits, greedy_equal } = outputs;
    outln!(
        "{}",
        serde_json::json!({
            "hidden_max_abs_err": hidden.abs,
            "hidden_rel_err": hidden.rel,
            "logits_max_abs_err": logits.abs,
            "logits_rel_err": logits.rel,
            "input_grad_rel_err": grad_err,
            // The value is also true if the reference has no continuations.
            "greedy_tokens_equal": greedy_equal,
        })
    );
    if args.precision != Precision::F32 {
        return Ok(hidden.rel.max(logits.rel).max(grad_err) <= MAX_16_BIT_REL_ERR);
    }
    Ok(hidden.is_within_tolerance()
        && logits.is_within_tolerance()
        && grad_err <= MAX_GRAD_REL_ERR
        && greedy_equal)
}

/// Reference tensors by name: `p0.input_ids` and so on for each prompt, and `grad.*`.
struct Reference(HashMap<String, Tensor>);

impl Reference {
    fn get(&self, name: &str) -> Result<&Tensor> {
        let missing = || format!("{REFERENCE} has no tensor `{name}`");
        Ok(self.0.get(name).ok_or_else(missing)?)
    }

    /// Returns the token ids with this name, if they exist.
    fn ids(&self, name: &str) -> Result<Option<Vec<u32>>> {
        let ids = |tensor: &Tensor| tensor.to_dtype(DType::U32)?.to_vec1();
        Ok(self.0.get(name).map(ids).transpose()?)
    }
}

/// Largest errors of the outputs over all prompts.
struct Outputs {
    hidden: Worst,
    logits: Worst,
    greedy_equal: bool,
}

fn compare_outputs(model: &Llama, reference: &Reference) -> Result<Outputs> {
    let (mut hidden_err, mut logits_err) = (Worst::default(), Worst::default());
    let mut greedy_equal = true;
    let mut prompts = 0;
    while let Some(prompt) = reference.ids(&format!("p{prompts}.input_ids"))? {
        let name = |part: &str| format!("p{prompts}.{part}");
        let embeds = model.embed(&prompt)?.unsqueeze(0)?;
        let hidden = model
            .hidden_states(&embeds, &[prompt.len()], &ForwardOptions::default())?
            .squeeze(0)?;
        hidden_err.note(&hidden, reference.get(&name("hidden_states"))?)?;
        // The reference has the logits of all positions, or only of the last ones.
        let logits = reference.get(&name("logits"))?;
        let rows = logits.dim(0)?;
        let before = prompt.len().checked_sub(rows).ok_or("more logits than tokens")?;
        logits_err.note(&model.logits(&hidden.narrow(0, before, rows)?)?, logits)?;
        if let Some(expected) = reference.ids(&name("greedy_ids"))? {
            greedy_equal &= greedy(model, prompt, expected.len())? == expected;
        }
        prompts += 1;
    }
    if prompts == 0 {
        return Err(format!("{REFERENCE} has no prompts (p0.input_ids)").into());
    }
    Ok(Outputs { hidden: hidden_err, logits: logits_err, greedy_equal })
}

/// Returns the greedy continuation of a prompt.
fn greedy(model: &Llama, prompt: Vec<u32>, length: usize) -> Result<Vec<u32>> {
    let options =
        GenerateOptions { max_new_tokens: length, ignore_eos: true, ..Default::default() };
    let mut texts = model.generate(&[prompt], &options)?;
    Ok(texts.pop().unwrap_or_default())
}

/// Returns the relative error of the gradient with respect to the input embeddings.
fn gradient_err(model: &Llama, reference: &Reference) -> Result<f64> {
    let embeds = Var::from_tensor(&reference.get("grad.inputs_embeds")?.unsqueeze(0)?)?;
    let length = embeds.dim(1)?;
    let hidden = model.hidden_states(&embeds, &[length], &ForwardOptions::default())?;
    let loss = (hidden * reference.get("grad.cotangent")?.unsqueeze(0)?)?.sum_all()?;
    let grads = loss.backward()?;
    let grad = grads.get(&embeds).ok_or("no gradient at the embeddings")?;
    Ok(relative_err(grad, &reference.get("grad.d_inputs_embeds")?.unsqueeze(0)?)?)
}

/// The largest absolute and relative errors so far.
#[derive(Debug, Default)]
struct Worst {
    abs: f64,
    rel: f64,
}

impl Worst {
    fn note(&mut self, got: &Tensor, expected: &Tensor) -> std::result::Result<(), Error> {
        self.abs = self.abs.max(max_abs_err(got, expected)?);
        self.rel = self.rel.max(relative_err(got, expected)?);
        Ok(())
    }

    fn is_within_tolerance(&self) -> bool {
        self.abs <= MAX_ABS_ERR || self.rel <= MAX_REL_ERR
    }
}

fn max_abs_err(got: &Tensor, expected: &Tensor) -> std::result::Result<f64, Error> {
    let difference = (got - expected)?.abs()?.flatten_all()?.max(0)?;
    Ok(f64::from(difference.to_scalar::<f32>()?))
}

/// Returns the relative error in the L2 norm.
fn relative_err(got: &Tensor, expected: &Tensor) -> std::result::Result<f64, Error> {
    let norm = |t: &Tensor| t.to_dtype(DType::F64)?.sqr()?.sum_all()?.to_scalar::<f64>();
    Ok((norm(&(got - expected)?)? / norm(expected)?).sqrt())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn the_worst_of_several_comparisons_counts() {
        let tensor = |values: [f32; 2]| Tensor::new(&values, &Device::Cpu).unwrap();
        let mut worst = Worst::default();
        worst.note(&tensor([3.0, 4.0]), &tensor([3.0, 4.0])).unwrap();
        assert!(worst.is_within_tolerance());
        worst.note(&tensor([3.0, 4.5]), &tensor([3.0, 4.0])).unwrap();
        worst.note(&tensor([3.0, 4.0]), &tensor([3.0, 4.0])).unwrap();
        assert_eq!((worst.abs, worst.rel), (0.5, 0.1));
        assert!(!worst.is_within_tolerance());
        // A large state may exceed the absolute bound.
        assert!(Worst { abs: 1.0, rel: 1e-6 }.is_within_tolerance());
    }
}
