use crate::panel::PANEL;

/// Keys (after RoPE) and values of consecutive tokens of one sequence in one layer, in the layout
/// of the attention products.
///
/// For each key-value head, with capacity `c` and head size `d`: *columns* are `[c / 32][d][32]`
/// (adjacent keys, for `Q Kᵀ`) and *rows* are `[d / 32][c][32]` (for `P V`).
#[derive(Debug, Clone, Default)]
pub(crate) struct KeyBlock {
    heads: usize,
    head_dim: usize,
    len: usize,
    capacity: usize,
    key_columns: Vec<f32>,
    value_rows: Vec<f32>,
    /// Keys in the row layout, which only the backward pass reads; empty in a generation cache.
    key_rows: Vec<f32>,
    /// Values in the column layout, which only the backward pass reads; empty in a generation
    /// cache.
    value_columns: Vec<f32>,
    differentiable: bool,
}

/// The layouts of one head of a [`KeyBlock`].
#[derive(Clone, Copy)]
pub(crate) struct KeyHead<'a> {
    pub(crate) len: usize,
    pub(crate) key_columns: &'a [f32],
    pub(crate) value_rows: &'a [f32],
    pub(crate) key_rows: &'a [f32],
    pub(crate) value_columns: &'a [f32],
    /// Distance between the `d / 32` panels of the row layouts, in elements.
    pub(crate) row_panel: usize,
}

impl KeyBlock {
    /// Creates an empty block. `differentiable` adds the layouts of the backward pass.
    pub(crate) fn new(heads: usize, head_dim: usize, differentiable: bool) -> Self {
        Self { heads, head_dim, differentiable, ..Self::default() }
    }

    /// Returns the number of tokens.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Returns whether the block belongs to layers with `heads` heads of size `head_dim`.
    pub(crate) fn is_for(&self, heads: usize, head_dim: usize) -> bool {
        (self.heads, self.head_dim) == (heads, head_dim)
    }

    /// Returns whether the block contains the layouts of the backward pass.
    pub(crate) fn is_differentiable(&self) -> bool {
        self.differentiable
    }

    /// Removes all but the first `len` tokens.
    pub(crate) fn truncate(&mut self, len: usize) {
        // Values beyond the new length are overwritten before they are read.
        self.len = self.len.min(len);
    }

    fn columns_size(&self) -> usize {
        self.capacity * self.head_dim
    }

    fn rows_size(&self) -> usize {
        self.head_dim.div_ceil(PANEL) * self.capacity * PANEL
    }

    /// Reserves room for a total of `tokens` tokens.
    pub(crate) fn reserve(&mut self, tokens: usize) {
        if tokens <= self.capacity {
            return;
        }
        let mut grown = Self::new(self.heads, self.head_dim, self.differentiable);
        grown.capacity = tokens.next_multiple_of(PANEL);
        grown.len = self.len;
        grown.key_columns = vec![0.0; self.heads * grown.columns_size()];
        grown.value_rows = vec![0.0; self.heads * grown.rows_size()];
        if self.differentiable {
            grown.key_rows = vec![0.0; self.heads * grown.rows_size()];
            grown.value_columns = vec![0.0; self.heads * grown.columns_size()];
        }
        for h in 0..self.heads {
            let (old, new) = (self.columns_size(), grown.columns_size());
            let columns = h * old..h * old + old;
            grown.key_columns[h * new..h * new + old]
                .copy_from_slice(&self.key_columns[columns.clone()]);
            if self.differentiable {
                grown.value_columns[h * new..h * new + old]
                    .copy_from_slice(&self.value_columns[columns]);
            }
            for p in 0..self.head_dim.div_ceil(PANEL) {
                let panel = h * self.head_dim.div_ceil(PANEL) + p;
                let from = panel * self.capacity * PANEL..(panel + 1) * self.capacity * PANEL;
                let to = panel * grown.capacity * PANEL;
                let to = to..to + from.len();
                grown.value_rows[to.clone()].copy_from_slice(&self.value_rows[from.clone()]);
                if self.differentiable {
                    grown.key_rows[to].copy_from_slice(&self.key_rows[from]);
                }
            }
        }
        *self = grown;
    }

    /// Appends tokens from rows of width `stride`, with keys from column `key_at` and values from
    /// column `value_at`.
    pub(crate) fn append(&mut self, rows: &[f32], stride: usize, key_at: usize, value_at: usize) {
        let count = rows.len() / stride;
        if self.len + count > self.capacity {
            // Doubling the capacity makes the cost of growing token by token linear.
            self.reserve((self.len + count).max(if self.len == 0 { 0 } else { 2 * self.capacity }));
        }
        let d = self.head_dim;
        let row_panels = d.div_ceil(PANEL);
        for (i, row) in rows.chunks_exact(stride).enumerate() {
            let token = self.len + i;
            for h in 0..self.heads {
                let key = &row[key_at + h * d..key_at + (h + 1) * d];
                let value = &row[value_at + h * d..value_at + (h + 1) * d];
                let column = h * self.columns_size() + token / PANEL * d * PANEL + token % PANEL;
                for (j, &k) in key.iter().enumerate() {
                    self.key_columns[column + j * PANEL] = k;
                }
                for p in 0..row_panels {
                    let at = ((h * row_panels + p) * self.capacity + token) * PANEL;
                    let part = p * PANEL..d.min((p + 1) * PANEL);
                    self.value_rows[at..at + part.len()].copy_from_slice(&value[part.clone()]);
                    if self.differentiable {
                        self.key_rows[at..at + part.len()].copy_from_slice(&key[part]);
                    }
                }
                if self.differentiable {
                    for (j, &v) in value.iter().enumerate() {
                        self.value_columns[column + j * PANEL] = v;
                    }
                }
            }
        }
        self.len += count;
    }

    /// Returns the layouts of one head.
    pub(crate) fn head(&self, h: usize) -> KeyHead<'_> {
        let columns = h * self.columns_size()..(h + 1) * self.columns_size();
        let rows = h * self.rows_size()..(h + 1) * self.rows_size();
        KeyHead {
            len: self.len,
            key_columns: &self.key_columns[columns.clone()],
            value_rows: &self.value_rows[rows.clone()],
            key_rows: self.key_rows.get(rows).unwrap_or(&[]),
            value_columns: self.value_columns.get(columns).unwrap_or(&[]),
            row_panel: self.capacity * PANEL,
        }
    }
}
