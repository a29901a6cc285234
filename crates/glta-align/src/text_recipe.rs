use serde::{Deserialize, Serialize};

/// How [`LanguageModel::text_vectors`](crate::LanguageModel::text_vectors) reads a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TextVectorConfig {
    /// Layers that the text runs through, at most those of the model; 0 takes the
    /// token embeddings. Six are as good as thirty. Default 6. The recipes of embedding
    /// models take all.
    pub layers: usize,
    /// Tokens read of each text, with those that the tokenizer puts around it. Default 48.
    pub max_tokens: usize,
    /// What becomes of the hidden states.
    #[serde(skip_serializing_if = "is_mean")]
    pub recipe: TextRecipe,
    /// Instruction before each text, in the form of the recipe; none by default, as the
    /// recipes have it for documents, which items are.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub task: String,
}

/// How a text's hidden states become its vector, and what stands around the text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TextRecipe {
    /// Mean over the tokens' states, each scaled to a root mean square of 1, without the first
    /// token; the instruction stands before the text as it is.
    #[default]
    Mean,
    /// The last token's state, of unit length; the instruction as above.
    LastToken,
    /// As the model cards of Qwen3-Embedding have it: all layers and the final norm, the last
    /// token, unit length; `Instruct: TASK\nQuery:TEXT` where there is a task.
    Qwen3Embedding,
    /// As the model card of e5-mistral-7b-instruct has it: the same with an end token behind
    /// the text and `Instruct: TASK\nQuery: TEXT`.
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
    /// The recipe of an embedding model, with room for texts of 512 tokens.
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

    /// Layers that a text runs through, where the model has as many.
    pub fn depth(&self) -> usize {
        match self.recipe {
            TextRecipe::Mean | TextRecipe::LastToken => self.layers,
            TextRecipe::Qwen3Embedding | TextRecipe::E5Mistral => usize::MAX,
        }
    }

    /// The text with its instruction.
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
