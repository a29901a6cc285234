//! Compares the recipes of embedding models with transformers (`encoders/make.py`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::path::Path;

use glta_align::{LanguageModel, TextRecipe, TextVectorConfig};
use glta_llm::{Device, LlamaOptions};
use serde_json::Value;

#[test]
fn recipes_give_the_vectors_of_the_model_cards() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/encoders");
    let text = std::fs::read_to_string(folder.join("expected.json")).unwrap();
    let expected: Value = serde_json::from_str(&text).unwrap();
    let texts: Vec<String> = serde_json::from_value(expected["texts"].clone()).unwrap();
    for (name, recipe) in
        [("qwen3_embedding", TextRecipe::Qwen3Embedding), ("e5_mistral", TextRecipe::E5Mistral)]
    {
        assert_eq!(serde_json::to_value(recipe).unwrap(), name);
        let options = LlamaOptions::default();
        let model = LanguageModel::load(folder.join(name), &options, &Device::Cpu).unwrap();
        for (kind, task) in [("documents", ""), ("queries", expected["task"].as_str().unwrap())] {
            let config = TextVectorConfig {
                max_tokens: expected["max_tokens"].as_u64().unwrap() as usize,
                task: task.to_owned(),
                ..TextVectorConfig::of(recipe)
            };
            let got = model.text_vectors(&texts, &config).unwrap();
            let rows: Vec<Vec<f32>> = serde_json::from_value(expected[name][kind].clone()).unwrap();
            for (text, (got, row)) in texts.iter().zip(got.outer_iter().zip(&rows)) {
                let error: f64 =
                    got.iter().zip(row).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt();
                assert!(error < 1e-5, "{name} {kind} {text:?}: {error:e}");
            }
        }
        // The model has two layers. With one layer the vector must differ.
        let config = TextVectorConfig { layers: 1, ..TextVectorConfig::of(TextRecipe::LastToken) };
        let shallow = model.text_vectors(&texts, &config).unwrap();
        let length: f32 = shallow.row(0).iter().map(|v| v * v).sum();
        assert!((length - 1.0).abs() < 1e-5);
    }
}
