use std::collections::BTreeMap;

use glta_data::{Interactions, TextConfig};
use glta_gllm::decode;
use glta_graph::NodeEmbeddings;
use glta_llm::LlamaOptions;
use ndarray::Array2;
use rayon::prelude::*;

use super::*;
use crate::config::{Density, Preset, Recompute, TargetLoss};
use crate::data::{ItemRecord, RunData};
use crate::language::LanguageModel;
use crate::sampling::UserExample;
use crate::texts::UserTexts;
use crate::tiny_llm;

/// Creates a model of five users and seven items, with a profile for user 1.
fn model(change: impl Fn(&mut Config)) -> Glta {
    let folder = tempfile::tempdir().unwrap();
    tiny_llm::write(folder.path());
    let language =
        LanguageModel::load(folder.path(), &LlamaOptions::default(), &Device::Cpu).unwrap();
    let values = |rows: usize, shift: f32| {
        Array2::from_shape_fn((rows, 4), |(r, c)| ((r * 7 + c * 3) as f32 + shift).sin())
    };
    let embeddings = NodeEmbeddings { users: values(5, 0.3), items: values(7, 1.1) };
    let pairs = (0..5).flat_map(|u| (0..4).map(move |i| (u, (u + 2 * i) % 7)));
    let train = Interactions::from_pairs(5, 7, pairs).unwrap();
    let train = Arc::new(train);
    let items: Vec<ItemRecord> = (0..7)
        .map(|n| ItemRecord {
            raw_id: n.to_string(),
            title: format!("Item {n}"),
            text: format!("a thing called {n}"),
            fields: Default::default(),
        })
        .collect();
    let mut config = Config::preset(Preset::Full, Density::Dense);
    (config.texts.profile, config.texts.prediction) = (true, true);
    config.model.history = 2;
    config.item_stage.items = 3;
    change(&mut config);
    config.validate().unwrap();
    let nodes = Nodes::new(embeddings, &train, None, &config.model, &Device::Cpu).unwrap();
    let users = (0..5).map(|n| n.to_string()).collect();
    let valid = Interactions::from_pairs(5, 7, []).unwrap();
    let data = Arc::new(RunData { users, items, train, valid, texts: TextConfig::default() });
    let texts = UserTexts {
        user: 1,
        items: vec![1],
        profile: "quiet".into(),
        prediction: "loud, fast".into(),
    };
    let texts = BTreeMap::from([(1, texts)]);
    let prompts = Prompts::new(language, data, texts, &config).unwrap();
    Glta::new(&config, Arc::new(nodes), None, Some(prompts)).unwrap()
}

fn users() -> Vec<UserExample> {
    let example = |user, context: &[u32], shown: &[u32], targets: &[u32]| UserExample {
        user: Some(user),
        context: context.to_vec(),
        shown: shown.to_vec(),
        targets: targets.to_vec(),
        texts: true,
        fed: Vec::new(),
    };
    vec![example(1, &[1, 3], &[3, 1], &[0, 5]), example(2, &[2, 4, 6], &[4, 2], &[1])]
}

/// Returns the logits of each example, `(slots, items)`.
fn slot_logits(model: &Glta, examples: &[UserExample]) -> Vec<Vec<Vec<f32>>> {
    let logits = model.slot_logits(examples).unwrap();
    let rows = |slots: Vec<&[f32]>| slots.into_iter().map(<[f32]>::to_vec).collect();
    logits.examples().map(rows).collect()
}

fn user_loss(model: &Glta) -> Tensor {
    let mut examples = users();
    let slots = model.config().model.slots;
    if model.config().model.autoregressive {
        examples[0].fed = vec![0, 5];
        examples[1].fed = vec![1];
    }
    let (hidden, residual) = model.user_hidden(&examples, slots).unwrap();
    let targets: Vec<Vec<u32>> =
        examples.iter().flat_map(|e| std::iter::repeat_n(e.targets.clone(), slots)).collect();
    let masked = vec![Vec::new(); targets.len()];
    model.head().loss(&hidden, residual.as_ref(), None, &targets, &masked).unwrap()
}

/// Compares the gradient of every parameter with central differences along a fixed direction.
fn check(model: &Glta, parameters: &Parameters, loss: impl Fn() -> Tensor) {
    let store = loss().backward().unwrap();
    for (name, var) in parameters {
        let wide = |t: &Tensor| -> Vec<f64> {
            t.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap()
        };
        let (gradient, base) = (wide(store.get(var).unwrap()), wide(var));
        // The direction has a part along the gradient, so that they are not orthogonal.
        let norm = gradient.iter().map(|g| g * g).sum::<f64>().sqrt().max(1e-12);
        let spread = 1.0 / (gradient.len() as f64).sqrt();
        let direction: Vec<f64> = gradient
            .iter()
            .enumerate()
            .map(|(i, g)| g / norm + 0.5 * spread * (i as f64 * 1.7).sin())
            .collect();
        let scale = base.iter().map(|v| v * v).sum::<f64>().sqrt().max(1.0);
        let eps = 3e-3 * scale;
        let shifted = |by: f64| -> f64 {
            let values: Vec<f64> = base.iter().zip(&direction).map(|(v, d)| v + by * d).collect();
            let values: Tensor = Tensor::from_vec(values, var.dims(), &model.device).unwrap();
            var.set(&values.to_dtype(var.dtype()).unwrap()).unwrap();
            f64::from(loss().to_scalar::<f32>().unwrap())
        };
        let numeric = (shifted(eps) - shifted(-eps)) / (2.0 * eps);
        shifted(0.0);
        let exact: f64 = gradient.iter().zip(&direction).map(|(g, d)| g * d).sum();
        let error = (numeric - exact).abs() / exact.abs().max(1e-3);
        assert!(exact.abs() > 0.0, "{name}: the gradient is zero");
        assert!(error < 0.03, "{name}: {numeric} by differences, {exact} by backward");
    }
}

#[test]
fn gradients_of_the_user_stage_from_prompt_to_loss() {
    for recompute in [Recompute::Never, Recompute::Always] {
        let model = model(|c| {
            c.model.recompute = recompute;
            c.model.graph_residual = true;
            c.model.slots = 2;
        });
        check(&model, &model.user_parameters(), || user_loss(&model));
    }
}

#[test]
fn without_stage_two_the_item_projector_learns_in_stage_three() {
    let model = model(|c| c.item_stage.enabled = false);
    let parameters = model.user_parameters();
    assert!(parameters.contains_key("item_projector.weight"));
    check(&model, &parameters, || user_loss(&model));
}

#[test]
fn fed_items_reach_later_slots_and_their_tokens_learn() {
    let model = model(|c| {
        c.item_stage.enabled = false;
        c.model.autoregressive = true;
        c.model.slots = 3;
        c.model.history = 0;
        c.user_stage.loss = TargetLoss::SampledSlots;
    });
    let parameters = model.user_parameters();
    assert!(parameters.contains_key("item_projector.weight"));
    check(&model, &parameters, || user_loss(&model));

    let slots = |fed: &[u32]| {
        let mut examples = users();
        examples[0].fed = fed.to_vec();
        slot_logits(&model, &examples[..1]).remove(0)
    };
    let (one, two) = (slots(&[0]), slots(&[0, 5]));
    assert_eq!((slots(&[]).len(), one.len(), two.len()), (1, 2, 3));
    let gap =
        |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(gap(&one[1], &two[1]) < 1e-5, "a slot depends on a later one");
    assert!(gap(&one[1], &slots(&[5])[1]) > 1e-6, "a slot does not depend on the named item");
}

#[test]
fn lists_item_by_item_are_those_of_prompts_read_from_the_start() {
    for residual in [false, true] {
        let model = model(|c| {
            c.model.autoregressive = true;
            c.model.slots = 3;
            c.model.graph_residual = residual;
            c.user_stage.loss = TargetLoss::SampledSlots;
        });
        model.head.set_alpha(0.3).unwrap();
        // Three items remain for the second example, six for the first.
        let queries: Vec<(UserExample, Vec<u32>)> =
            users().into_iter().zip([vec![1], vec![6, 2, 4, 1]]).collect();
        let lists = model.rank_one_by_one(&queries, 5).unwrap();
        assert_eq!(lists.iter().map(Vec::len).collect::<Vec<_>>(), [5, 3]);
        for ((example, excluded), list) in queries.into_iter().zip(lists) {
            let mut example = example;
            for ranked in list {
                let slots = slot_logits(&model, std::slice::from_ref(&example));
                let slot = slots[0].last().unwrap();
                let taken = [excluded.as_slice(), &example.fed].concat();
                let best = decode(&[slot], &taken, 1, Decoder::FirstLogit).unwrap();
                assert_eq!(best[0].item, ranked.item);
                assert!((best[0].score - ranked.score).abs() < 1e-5);
                example.fed.push(ranked.item);
            }
        }
    }
}

#[test]
fn a_users_number_replaces_the_user_token() {
    let model = model(|c| {
        c.model.user_id_text = true;
        c.model.slot_user_token = false;
    });
    let parameters = model.user_parameters();
    assert!(!parameters.contains_key("user_projector.weight"));
    check(&model, &parameters, || user_loss(&model));
    let logits = |user| {
        let mut examples = users();
        examples[1].user = user;
        slot_logits(&model, &examples[1..])
    };
    assert_ne!(logits(Some(2)), logits(Some(3)));
    assert_ne!(logits(Some(2)), logits(None));
}

#[test]
fn gradients_of_the_item_stage_from_prompt_to_loss() {
    for slots in [ItemSlots::Place, ItemSlots::Token, ItemSlots::Description] {
        let model = model(|c| c.item_stage.slots = slots);
        let examples = [
            ItemExample { items: vec![0, 3, 5], descriptions: vec![5, 0, 3] },
            ItemExample { items: vec![6, 1, 2], descriptions: vec![1, 2, 6] },
        ];
        check(&model, &model.item_parameters(), || model.item_loss(&examples, 2).unwrap());
    }
}

/// Checks that a slot behind a description depends on it and on the text before, but not on the
/// text after.
#[test]
fn slots_behind_descriptions() {
    let model = model(|c| {
        c.item_stage.slots = ItemSlots::Description;
        // The numbers are at the end.
        c.item_stage.max_tokens = 40;
    });
    let hidden = |items: [u32; 3], descriptions: [u32; 3]| {
        let example = ItemExample { items: items.to_vec(), descriptions: descriptions.to_vec() };
        model.item_hidden(&[example]).unwrap().detach().to_vec2::<f32>().unwrap()
    };
    let base = hidden([0, 3, 5], [5, 0, 3]);
    assert_eq!(base.len(), 3);
    let same = |other: &[Vec<f32>], slot: usize| {
        base[slot].iter().zip(&other[slot]).all(|(a, b)| (a - b).abs() < 1e-5)
    };
    let last = hidden([0, 3, 5], [5, 0, 6]);
    assert!(same(&last, 0) && same(&last, 1) && !same(&last, 2));
    let first = hidden([0, 3, 5], [6, 0, 3]);
    assert!(!same(&first, 0) && !same(&first, 1));
    // The tokens come first, in the order of the items.
    let tokens = hidden([0, 5, 3], [5, 0, 3]);
    assert!((0..3).all(|slot| !same(&tokens, slot)));
    // The slot names the item of the description, not that of the token.
    let example = ItemExample { items: vec![0, 3, 5], descriptions: vec![5, 0, 3] };
    assert_eq!(model.named(&example), [5, 0, 3]);
}

#[test]
fn every_placement_runs_and_only_separate_slots_are_trained() {
    for placement in [SlotPlacement::Response, SlotPlacement::Last, SlotPlacement::Prefix] {
        let model = model(|c| {
            c.model.slot_placement = placement;
            c.item_stage.enabled = placement != SlotPlacement::Prefix;
        });
        let parameters = model.user_parameters();
        assert_eq!(parameters.contains_key("slots"), placement != SlotPlacement::Last);
        let store = user_loss(&model).backward().unwrap();
        for (name, var) in &parameters {
            assert!(store.get(var).is_some(), "{placement:?}: {name}");
        }
    }
}

#[test]
fn a_slot_depends_on_the_content_of_the_prompt() {
    let model = model(|_| ());
    let logits = |change: fn(&mut UserExample)| {
        let mut examples = users();
        change(&mut examples[0]);
        slot_logits(&model, &examples)
    };
    let base = logits(|_| ());
    let differs = |other: &[Vec<Vec<f32>>], row: usize| {
        let gap = base[row][0].iter().zip(&other[row][0]).map(|(a, b)| (a - b).abs());
        gap.fold(0.0, f32::max) > 1e-6
    };
    // The logits do not depend on the targets, but on texts, shown items and context.
    assert!(!differs(&logits(|e| e.targets = vec![6]), 0));
    let changes: [fn(&mut UserExample); 3] =
        [|e| e.texts = false, |e| e.shown.reverse(), |e| e.context = vec![1, 2]];
    for change in changes {
        let other = logits(change);
        assert!(differs(&other, 0));
        assert!(!differs(&other, 1), "another user's prompt changed");
    }
}
