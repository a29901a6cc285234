//! GLTA step by step: LightGCN, projectors, soft tokens, a frozen GPTQ LLaMA, the GLLM head, both
//! alignment stages, decoding. `glta::align::Run` adds checkpoints, validation and more.
#![allow(clippy::print_stdout)]

use candle_core::{D, DType, Device::Cpu, Tensor};
use candle_nn::optim::{AdamW, Optimizer};
use glta::data::ShopConfig;
use glta::gllm::{Decoder, GllmHead};
use glta::graph::{LightGcn, LightGcnConfig, fold_in_user};
use glta::llm::{ForwardOptions, Llama, LlamaOptions, Tokenizer};
use glta::prelude::*;
use glta::projector::{Parameters, Piece, Projector, normal_parameter, splice};
use glta::shared::stream;
use rand::seq::{IndexedRandom, SliceRandom, index::sample};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;
type Rows = Vec<Vec<u32>>;
type Llm = (Llama, Tokenizer);
/// Number of slots of a prompt, the paper's n, and number of items that a prompt shows.
const SLOTS: usize = 4;

/// Last hidden states `Z` of the slots at the end of each prompt, `(prompts × n, hidden)`. Each `@`
/// of a prompt is the next soft token of its row. `soft` are tensors `(rows, any, hidden)`.
fn run(llm: &Llm, prompts: impl Iterator<Item = String>, soft: &[&Tensor]) -> Result<Tensor> {
    let mut soft_ids = 0..;
    let mut rows = Vec::new();
    for prompt in prompts {
        let mut row = Vec::new();
        for text in (prompt + &"@".repeat(SLOTS)).split_inclusive('@') {
            let words = text.trim_end_matches('@');
            row.push(Piece::Tokens(if row.is_empty() {
                llm.1.encode(words, true)?
            } else {
                llm.1.encode_continuation(words)?
            }));
            if text.ends_with('@') {
                row.extend(soft_ids.next().map(Piece::Soft));
            }
        }
        rows.push(row);
    }
    let embed = |ids: &[u32]| llm.0.embed(ids).map_err(candle_core::Error::wrap);
    let batch = splice(&rows, &Tensor::cat(soft, 1)?.flatten_to(1)?, embed)?;
    let states = llm.0.hidden_states(&batch.embeds, &batch.lengths, &ForwardOptions::default())?;
    let rows = batch.lengths.iter().enumerate();
    let slots = rows.map(|(row, length)| states.get(row)?.narrow(0, length - SLOTS, SLOTS));
    Ok(Tensor::cat(&slots.collect::<candle_core::Result<Vec<_>>>()?, 0)?)
}

/// Trains `parts` with Adam; gradients flow through the frozen model.
fn train(parts: &Parameters, steps: u64, loss: impl Fn(u64) -> Result<Tensor>) -> Result<()> {
    let mut adam = AdamW::new_lr(parts.values().cloned().collect(), 3e-3)?;
    for step in 0..steps {
        let loss = loss(step)?;
        adam.backward_step(&loss)?;
        println!("step {step}: loss {:.3}", loss.to_scalar::<f32>()?);
    }
    Ok(())
}

/// Rows scaled to a root mean square of 1.
fn unit_rms(rows: &Tensor) -> Result<Tensor> {
    Ok(rows.broadcast_div(&(rows.sqr()?.mean_keepdim(D::Minus1)? + 1e-12)?.sqrt()?)?)
}

fn main() -> Result<()> {
    // A generated shop, and stage 1: LightGCN learns the nodes, which are then frozen.
    let shop = Dataset::shop(&ShopConfig { users: 120, items: 100, ..ShopConfig::default() })?;
    let texts = shop.texts(&TextConfig { max_words: 8, ..TextConfig::default() })?;
    let split = Split::new(&shop, &SplitConfig { valid_ratio: 0.0, ..SplitConfig::default() })?;
    let config = LightGcnConfig { epochs: 100, learning_rate: 0.02, ..Default::default() };
    let graph = LightGcn::new(config)?.train(&split.train, None)?.embeddings;
    let (items, d) = graph.items.dim();
    let nodes = unit_rms(&Tensor::from_iter(graph.items.clone(), &Cpu)?.reshape((items, d))?)?;

    // The frozen language model, and the parameters that are trained.
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/quickstart/llm");
    let llm = (Llama::load(dir, &LlamaOptions::default(), &Cpu)?, Tokenizer::load(dir)?);
    let (hidden, rms) = (llm.0.config().hidden_size, f64::from(llm.0.embedding_rms()));
    let item_projector = Projector::new(d, hidden, rms, 1, &Cpu)?;
    let user_projector = Projector::new(d, hidden, rms, 2, &Cpu)?;
    let slots = normal_parameter((SLOTS, hidden), rms, 3, &Cpu)?;
    let head = GllmHead::tied(hidden, &nodes, true, 4)?;
    // Item tokens `V = E Wᵀ + b` (equation 1) of each row's items: (rows, n, hidden).
    let item_tokens = |rows: &Rows| -> Result<Tensor> {
        let nodes = nodes.index_select(&Tensor::new(rows.concat(), &Cpu)?, 0)?;
        Ok(item_projector.forward(&nodes)?.reshape((rows.len(), SLOTS, ()))?)
    };
    // The input of a slot is its own vector plus a token here: (rows, 1 or n, hidden).
    let slot_inputs = |tokens: &Tensor| tokens.broadcast_add(&slots.to_dtype(DType::F32)?);
    // Logits `Z W_gᵀ + b_g` (equation 3), with the mean cross-entropy over the slots.
    let loss = |z, items: Rows| head.loss(&z, None, None, &items, &vec![vec![]; items.len()]);

    // Stage 2: from shuffled descriptions and item tokens, slot t must name the t-th item.
    let mut parts = Parameters::from([("slots".to_owned(), slots.clone())]);
    head.collect("head", false, &mut parts);
    let mut item_parts = parts.clone();
    item_projector.collect("items", &mut item_parts);
    train(&item_parts, 40, |step| {
        let mut rng = stream(1, "items", &[step]);
        let ids = sample(&mut rng, items, 8 * SLOTS).into_iter().map(|item| item as u32);
        let rows: Rows = ids.collect::<Vec<_>>().chunks_exact(SLOTS).map(<[u32]>::to_vec).collect();
        let tokens = item_tokens(&rows)?;
        let targets = rows.concat().into_iter().map(|item| vec![item]).collect();
        let prompts = rows.into_iter().map(|mut items| {
            items.shuffle(&mut rng);
            let texts: String = items.iter().map(|&i| texts[i as usize].clone() + "; ").collect();
            format!("[INST] Sort these texts. {texts} Items: @@@@ [/INST]")
        });
        Ok(loss(run(&llm, prompts, &[&tokens, &slot_inputs(&tokens)?])?, targets)?)
    })?;

    // Stage 3: from the user token (equation 2) and item tokens, the slots must name items that the
    // prompt does not show. The paper adds texts that `Llama::generate` writes about the user.
    let mut users: Vec<u32> = (0..shop.n_users() as u32).collect();
    users.retain(|&user| split.train.items(user).len() > SLOTS);
    let degrees = split.train.item_degrees();
    let user_hidden = |contexts: &Rows| -> Result<Tensor> {
        let node = |items: &Vec<u32>| fold_in_user(graph.items.view(), &degrees, items);
        let nodes = Tensor::from_iter(contexts.iter().flat_map(node), &Cpu)?;
        let nodes = unit_rms(&nodes.reshape((contexts.len(), d))?)?;
        let users = user_projector.forward(&nodes)?.unsqueeze(1)?;
        let shown = contexts.iter().map(|items| items[..SLOTS].to_vec()).collect();
        let items = item_tokens(&shown)?.detach(); // The item projector is frozen now.
        let prompts = vec!["[INST] Select items. User: @ Items: @@@@ [/INST]"; contexts.len()];
        run(&llm, prompts.into_iter().map(String::from), &[&users, &items, &slot_inputs(&users)?])
    };
    user_projector.collect("users", &mut parts);
    train(&parts, 60, |step| {
        let mut rng = stream(1, "users", &[step]);
        let (mut contexts, mut targets) = (Rows::new(), Rows::new());
        for &user in users.choose_multiple(&mut rng, 16) {
            let mut items = split.train.items(user).to_vec();
            items.shuffle(&mut rng);
            targets.extend(vec![items.split_off(SLOTS.max(items.len() / 2)); SLOTS]);
            contexts.push(items);
        }
        Ok(loss(user_hidden(&contexts)?, targets)?)
    })?;

    // Inference: the slots name items in parallel; training items are left out.
    let contexts: Rows = users.iter().map(|&user| split.train.items(user).to_vec()).collect();
    let hidden = user_hidden(&contexts)?.detach();
    let lists = head.rank(&hidden, None, SLOTS, &contexts, 10, Decoder::Parallel)?.into_iter();
    let lists = lists.map(|list| list.into_iter().map(|ranked| ranked.item).collect());
    let lists: Vec<(u32, Vec<u32>)> = users.into_iter().zip(lists).collect();
    let report = evaluate_rankings(&lists, &split.test, &[10])?;
    println!("{} users: {:.3} N@10", lists.len(), report.get(Metric::Ndcg, 10).unwrap_or(0.0));
    Ok(())
}
