use serde::{Deserialize, Serialize};

/// Settings of [`LanguageModel::text_vectors`](crate::LanguageModel::text_vectors).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TextVectorConfig {
    /// Number of layers, at most those of the model. 0 selects the token embeddings. The recipes of
    /// embedding models always use all layers. Default 6.
    pub layers: usize,
    /// Maximum number of tokens of a text, including special tokens. Default 48.
    pub max_tokens: usize,
    /// Rule that turns hidden states into a vector. Default [`TextRecipe::Mean`].
    #[serde(skip_serializing_if = "is_mean")]
    pub recipe: TextRecipe,
    /// Instruction in front of each text, in the form of the recipe. Default none, because items
    /// are documents and the recipes have no instruction for documents.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub task: String,
}

/// A rule that turns the hidden states of a text into its vector, and adds an instruction to the
/// text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TextRecipe {
    /// The mean of the tokens' states, each scaled to a root mean square of 1, without the first
    /// token. The instruction precedes the text unchanged.
    #[default]
    Mean,
    /// The state of the last token, scaled to unit norm. The instruction precedes the text
    /// unchanged.
    LastToken,
    /// The recipe of the Qwen3-Embedding model cards: the state of the last token after all layers
    /// and the final norm, scaled to unit norm. With a task, the text becomes `Instruct:
    /// TASK\nQuery:TEXT`.
    Qwen3Embedding,
    /// The recipe of the e5-mistral-7b-instruct model card. It differs from
    /// [`Qwen3Embedding`](Self::Qwen3Embedding) in two points: an end token follows the text, and
    /// with a task, the text becomes `Instruct: TASK\nQuery: TEXT`, with a space after `Query:`.
    E5Mistral,
}

fn is_mean(recipe: &TextRecipe) -> bool {
    *recipe == TextRecipe::Mean
}

impl Default for TextVectorConfig {
    fn default() -> Self {
        Self { layers: 6, max_tokens: 48, recipe: TextRecipe::Mean, task: String::new() }
    }
}

impl TextVectorConfig {
    /// Returns the settings for the recipe of an embedding model, for texts of up to 512 tokens.
    ///
    /// ```
    /// use glta_align::{TextRecipe, TextVectorConfig};
    ///
    /// let items = TextVectorConfig::of(TextRecipe::Qwen3Embedding);
    /// let task = "Given a search query, find products".to_owned();
    /// let queries = TextVectorConfig { task, ..items.clone() };
    /// assert_eq!(queries.depth(), usize::MAX);
    /// ```
    pub fn of(recipe: TextRecipe) -> Self {
        Self { recipe, max_tokens: 512, ..Self::default() }
    }

    /// Returns the number of layers to use. A model with fewer layers uses all of them.
    pub fn depth(&self) -> usize {
        match self.recipe {
            TextRecipe::Mean | TextRecipe::LastToken => self.layers,
            TextRecipe::Qwen3Embedding | TextRecipe::E5Mistral => usize::MAX,
        }
    }

    /// Returns the text with its instruction.
    pub(crate) fn instructed(&self, text: &str) -> String {
        let task = &self.task;
        match self.recipe {
            _ if task.is_empty() => text.to_owned(),
            TextRecipe::Mean | TextRecipe::LastToken => format!("{task}{text}"),
            TextRecipe::Qwen3Embedding => format!("Instruct: {task}\nQuery:{text}"),
            TextRecipe::E5Mistral => format!("Instruct: {task}\nQuery: {text}"),
        }
    }
}
