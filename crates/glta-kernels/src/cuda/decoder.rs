//! Greedy decoding, whose state is on the device.
//!
//! A step reads ids, positions and the table of caches from buffers on the device, and its last
//! kernel writes those of the next step. The launches of a step are therefore the same for every
//! step of the same texts: they are recorded once, and the device repeats them as a graph. The host
//! writes the buffers only if texts or memory of caches change, and reads one id per text.

use std::sync::Arc;

use candle_core::{DType, Tensor};

use super::caches::Caches;
use super::device::Cuda;
use super::driver::Graph;
use super::elementwise;
use super::quantized::few_rows;
use super::rotary::Rotary;
use super::tokens::Tokens;
use crate::arguments::{check_caches, check_ids, check_positions};
use crate::backend::{Keys as _, Next};
use crate::error::{Error, Result};
use crate::sequences::Sequences;

/// Buffers to decode a fixed number of texts, and the recorded step.
#[derive(Debug)]
pub struct Decoder {
    /// The tables of a step; `None` before the first one.
    tokens: Option<Tokens>,
    /// Id of each text's token, `(texts,)` u32.
    ids: Tensor,
    /// Addresses, capacities and lengths of the caches, as in [`Caches::table`].
    table: Tensor,
    /// Content of the buffers; `None` if it is unknown.
    state: Option<State>,
    recorded: Option<Recorded>,
    graphs: bool,
}

/// Input of a step.
#[derive(Debug, PartialEq, Eq)]
struct State {
    ids: Vec<u32>,
    positions: Vec<u32>,
    table: Vec<i64>,
}

impl State {
    /// The state that a step leaves in the buffers.
    fn advance(&mut self, ids: Vec<u32>) {
        self.ids = ids;
        self.positions.iter_mut().for_each(|position| *position += 1);
        self.table.iter_mut().skip(1).step_by(2).for_each(|sizes| *sizes += 1);
    }
}

/// A recorded step.
#[derive(Debug)]
struct Recorded {
    graph: Box<dyn Graph>,
    made_for: MadeFor,
}

/// Arguments of a step's launches that are not in buffers.
#[derive(Debug)]
struct MadeFor {
    /// Largest number of keys.
    context: usize,
    rotary: Arc<Rotary>,
    /// Address and number of the shared keys.
    shared: Option<(u64, usize)>,
}

impl MadeFor {
    /// Returns whether launches for `self` are right for `other`, and not much too large.
    fn fits(&self, other: &Self) -> bool {
        (other.context..=4 * other.context).contains(&self.context)
            && Arc::ptr_eq(&self.rotary, &other.rotary)
            && self.shared == other.shared
    }
}

impl Decoder {
    /// Creates the buffers; `None` for more texts than kernels of packed weights have rows.
    pub(super) fn new(cuda: &Cuda, texts: usize) -> Result<Option<Self>> {
        let most = few_rows(cuda.dtype);
        if texts == 0 || texts > most {
            tracing::debug!(texts, most, "decoding without a graph: too many texts");
            return Ok(None);
        }
        Ok(Some(Self {
            tokens: None,
            ids: Tensor::zeros(texts, DType::U32, &cuda.device)?,
            table: Tensor::zeros(2 * texts, DType::I64, &cuda.device)?,
            state: None,
            recorded: None,
            graphs: cuda.graphs,
        }))
    }

    /// Writes the buffers.
    fn upload(&self, cuda: &Cuda, tokens: &Tokens, state: &State) -> Result<()> {
        self.ids.slice_set(&cuda.table(state.ids.clone())?, 0, 0)?;
        tokens.positions.slice_set(&cuda.table(state.positions.clone())?, 0, 0)?;
        let table = Tensor::from_slice(&state.table, state.table.len(), &cuda.device)?;
        Ok(self.table.slice_set(&table, 0, 0)?)
    }

    /// Decodes one token of each text. `layers` returns the scores of the next tokens.
    pub(super) fn decode<E: From<Error>>(
        &mut self,
        cuda: &Cuda,
        next: Next<'_, Cuda>,
        layers: impl Fn(Tensor, &Tokens, &mut Caches<'_>) -> std::result::Result<Tensor, E>,
    ) -> std::result::Result<Vec<u32>, E> {
        let Next { ids, sequences, embedding, rotary, keys, shared, context } = next;
        check_caches(self.ids.elem_count(), ids.len())?;
        check_caches(sequences.tokens(), ids.len())?;
        check_ids(ids, embedding.dim(0).map_err(Error::from)?)?;
        check_positions(rotary.positions, context)?;
        check_positions(context, sequences.context())?;
        let before = self.state.take();
        let shared_keys = match shared.and_then(|keys| keys.rows().map(|rows| (keys, rows))) {
            Some((keys, rows)) => Some((cuda.stream.address(rows)?, keys.len())),
            None => None,
        };
        let shared_len = shared_keys.map_or(0, |(_, len)| len);
        let mut state =
            State { ids: ids.to_vec(), positions: sequences.positions().to_vec(), table: vec![] };
        let mut caches = Caches::grow(cuda, sequences, keys, |table| {
            state.table = table;
            Ok(self.table.clone())
        })?;
        if caches.longest + shared_len > context {
            return Err(Error::Input(format!(
                "{} keys, more than the {context} that the step is for",
                caches.longest + shared_len
            ))
            .into());
        }
        // The launches are for all steps within the context.
        caches.longest = context - shared_len;
        let tokens = match self.tokens.take() {
            Some(tokens) => Tokens { rotary: Arc::clone(rotary), ..tokens },
            None => {
                self.recorded = None;
                Tokens::upload(cuda, &Sequences::new(&vec![1; ids.len()], |_| 0), rotary)?
            }
        };
        if before.as_ref() != Some(&state) {
            self.upload(cuda, &tokens, &state)?;
        }
        let step = |decoder: &Self, caches: &mut Caches<'_>| {
            let x = elementwise::gather_rows(&cuda.stream, embedding, &decoder.ids)?;
            cuda.stream.end_stage();
            let scores = layers(x, &tokens, caches)?;
            let Self { ids, table, .. } = decoder;
            elementwise::next_tokens(&cuda.stream, &scores, ids, &tokens.positions, table)?;
            Ok::<_, E>(())
        };
        let made_for = MadeFor { context, rotary: Arc::clone(rotary), shared: shared_keys };
        let current = self.recorded.as_ref().is_some_and(|r| r.made_for.fits(&made_for));
        if self.graphs && !current {
            self.recorded = None;
            let ((), calls) = cuda.stream.record(|| step(self, &mut caches))?;
            tracing::debug!(texts = ids.len(), context, calls = calls.len(), "recorded a step");
            match cuda.stream.graph(calls) {
                Ok(graph) => self.recorded = Some(Recorded { graph, made_for }),
                Err(error) => {
                    tracing::warn!(%error, "decoding without a graph: the device refuses it");
                    self.graphs = false;
                }
            }
        }
        match &self.recorded {
            Some(recorded) => recorded.graph.launch(&caches.rows)?,
            None => step(self, &mut caches)?,
        }
        let ids: Vec<u32> = self.ids.to_vec1().map_err(Error::from)?;
        state.advance(ids.clone());
        (self.state, self.tokens) = (Some(state), Some(tokens));
        Ok(ids)
    }
}
