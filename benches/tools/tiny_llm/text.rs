//! Training texts: descriptions of articles, and lists of the articles that customers of generated
//! shops have.

use glta_data::{Dataset, ShopConfig};
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{
    AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper,
    Tokenizer, TokenizerImpl,
};

use crate::Result;

/// Special tokens, in the order of their ids.
const SPECIAL: [&str; 3] = ["<unk>", "<s>", "</s>"];

/// Id of `<s>`, before every text.
pub(crate) const BEGINNING: u32 = 1;

/// Id of `</s>`, after every text.
pub(crate) const END: u32 = 2;

/// Texts of `shops` shops in random order, without the shop of the quickstart.
pub(crate) fn texts(shops: u64, seed: u64) -> Result<Vec<String>> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut texts = Vec::new();
    for shop in 0..shops {
        let config = ShopConfig { seed: seed + 1 + shop, new_items: 0, ..ShopConfig::default() };
        let shop = Dataset::shop(&config)?;
        let items = shop.items();
        texts.extend(items.iter().map(|item| format!("{}. {}", item.title, item.description)));
        for user in 0..shop.n_users() as u32 {
            let mut has = shop.interactions().items(user).to_vec();
            has.shuffle(&mut random);
            let titles: Vec<&str> =
                has.iter().take(8).map(|&item| items[item as usize].title.as_str()).collect();
            texts.push(format!("A customer has: {}.", titles.join(", ")));
        }
    }
    texts.shuffle(&mut random);
    Ok(texts)
}

/// Byte-level BPE with `vocab` tokens.
pub(crate) fn tokenizer(texts: &[String], vocab: usize) -> Result<Tokenizer> {
    let message = |e: tokenizers::Error| e.to_string();
    type Impl = TokenizerImpl<
        BPE,
        NormalizerWrapper,
        PreTokenizerWrapper,
        PostProcessorWrapper,
        DecoderWrapper,
    >;
    let bytes = ByteLevel::new(false, true, true);
    let mut tokenizer: Impl = TokenizerImpl::new(BPE::default());
    tokenizer.with_pre_tokenizer(Some(PreTokenizerWrapper::ByteLevel(bytes)));
    tokenizer.with_decoder(Some(DecoderWrapper::ByteLevel(bytes)));
    let mut trainer = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(vocab)
        .special_tokens(SPECIAL.map(|token| AddedToken::from(token, true)).to_vec())
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    tokenizer.train(&mut trainer, texts.iter().map(String::as_str)).map_err(message)?;
    let text = tokenizer.to_string(false).map_err(message)?;
    Ok(text.parse::<Tokenizer>().map_err(message)?)
}
