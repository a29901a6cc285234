//! Sparse matrices over items.

/// Compressed sparse rows of `f32` values; the columns of a row rise.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SparseRows {
    pub(crate) offsets: Vec<usize>,
    pub(crate) columns: Vec<u32>,
    pub(crate) values: Vec<f32>,
}

impl SparseRows {
    /// From rows in order, in pieces.
    pub(crate) fn from_pieces(rows: usize, pieces: Vec<Vec<Vec<(u32, f32)>>>) -> Self {
        let entries = pieces.iter().flatten().map(Vec::len).sum();
        let mut all = Self {
            offsets: Vec::with_capacity(rows + 1),
            columns: Vec::with_capacity(entries),
            values: Vec::with_capacity(entries),
        };
        all.offsets.push(0);
        for row in pieces.into_iter().flatten() {
            for (column, value) in row {
                all.columns.push(column);
                all.values.push(value);
            }
            all.offsets.push(all.columns.len());
        }
        all
    }

    /// Checks rows of a file: `items` of them, whose columns rise and are below `items`.
    pub(crate) fn checked(
        items: usize,
        offsets: Vec<usize>,
        columns: Vec<u32>,
        values: Vec<f32>,
    ) -> std::result::Result<Self, String> {
        let ends = (offsets.first(), offsets.last());
        if offsets.len() != items + 1 || ends != (Some(&0), Some(&columns.len())) {
            return Err(format!("its row offsets do not fit {items} items"));
        }
        if values.len() != columns.len() {
            let (columns, values) = (columns.len(), values.len());
            return Err(format!("it has {columns} columns but {values} values"));
        }
        for (row, ends) in offsets.windows(2).enumerate() {
            let columns = columns.get(ends[0]..ends[1]);
            let rise = |c: &[u32]| {
                c.windows(2).all(|w| w[0] < w[1]) && c.iter().all(|&c| (c as usize) < items)
            };
            if !columns.is_some_and(rise) {
                return Err(format!("row {row} does not rise or names an unknown item"));
            }
        }
        if let Some(at) = values.iter().position(|v| !v.is_finite()) {
            return Err(format!("value {at} is not finite"));
        }
        Ok(Self { offsets, columns, values })
    }

    pub(crate) fn n_rows(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Columns and values of a row.
    pub(crate) fn row(&self, row: usize) -> (&[u32], &[f32]) {
        let range = self.offsets[row]..self.offsets[row + 1];
        (&self.columns[range.clone()], &self.values[range])
    }

    /// The transposed matrix of a square one.
    pub(crate) fn transpose(&self) -> Self {
        let n = self.n_rows();
        let mut offsets = vec![0; n + 1];
        self.columns.iter().for_each(|&column| offsets[column as usize + 1] += 1);
        (0..n).for_each(|row| offsets[row + 1] += offsets[row]);
        let mut next = offsets.clone();
        let mut columns = vec![0; self.columns.len()];
        let mut values = vec![0.0; self.values.len()];
        for row in 0..n {
            let (own, weights) = self.row(row);
            for (&column, &value) in own.iter().zip(weights) {
                let slot = &mut next[column as usize];
                (columns[*slot], values[*slot]) = (row as u32, value);
                *slot += 1;
            }
        }
        Self { offsets, columns, values }
    }

    /// Adds `weight` times a row to `sums`.
    pub(crate) fn add(&self, row: usize, weight: f32, sums: &mut [f32]) {
        let (columns, values) = self.row(row);
        for (&column, &value) in columns.iter().zip(values) {
            sums[column as usize] += weight * value;
        }
    }

    /// The same rows with other values.
    pub(crate) fn map(&self, change: impl Fn(f32) -> f32 + Sync) -> Self {
        let values = self.values.iter().map(|&value| change(value)).collect();
        Self { offsets: self.offsets.clone(), columns: self.columns.clone(), values }
    }
}
