//! Sparse matrices over items.

use std::borrow::Cow;

use rustc_hash::FxHashMap;

/// Consecutive rows in one block of memory.
#[derive(Debug, Default)]
pub(crate) struct Piece {
    lengths: Vec<u32>,
    columns: Vec<u32>,
    values: Vec<f32>,
}

impl Piece {
    /// Appends a row, whose columns must be ascending.
    pub(crate) fn push(&mut self, row: impl IntoIterator<Item = (u32, f32)>) {
        let before = self.columns.len();
        for (column, value) in row {
            self.columns.push(column);
            self.values.push(value);
        }
        self.lengths.push((self.columns.len() - before) as u32);
    }
}

/// Compressed sparse rows of `f32` values, with ascending columns in each row. Single rows can be
/// replaced, and rows can be added.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SparseRows {
    offsets: Vec<usize>,
    columns: Vec<u32>,
    values: Vec<f32>,
    /// Rows that were replaced or added.
    changed: FxHashMap<u32, (Vec<u32>, Vec<f32>)>,
    rows: usize,
}

/// Row offsets, columns and values of a compressed matrix.
type Compressed<'a> = (Cow<'a, [usize]>, Cow<'a, [u32]>, Cow<'a, [f32]>);

impl SparseRows {
    /// Creates an empty matrix, to which pieces are added.
    pub(crate) fn new() -> Self {
        let (offsets, columns, values) = (vec![0], Vec::new(), Vec::new());
        Self { offsets, columns, values, changed: FxHashMap::default(), rows: 0 }
    }

    /// Appends the rows of a piece.
    pub(crate) fn push(&mut self, piece: &Piece) {
        let mut end = self.columns.len();
        for &length in &piece.lengths {
            end += length as usize;
            self.offsets.push(end);
        }
        self.columns.extend_from_slice(&piece.columns);
        self.values.extend_from_slice(&piece.values);
        self.rows += piece.lengths.len();
    }

    /// Creates a matrix from rows with `slot` places each, of which the first `lengths[row]` are
    /// used.
    pub(crate) fn from_slots(
        slot: usize,
        lengths: &[usize],
        mut columns: Vec<u32>,
        mut values: Vec<f32>,
    ) -> Self {
        let mut offsets = Vec::with_capacity(lengths.len() + 1);
        let mut end = 0;
        offsets.push(0);
        for (row, &length) in lengths.iter().enumerate() {
            let filled = row * slot..row * slot + length;
            columns.copy_within(filled.clone(), end);
            values.copy_within(filled, end);
            end += length;
            offsets.push(end);
        }
        columns.truncate(end);
        values.truncate(end);
        columns.shrink_to_fit();
        values.shrink_to_fit();
        let (changed, rows) = (FxHashMap::default(), lengths.len());
        Self { offsets, columns, values, changed, rows }
    }

    /// Checks the rows of a file: `items` rows with ascending columns below `items`.
    pub(crate) fn checked(
        items: usize,
        offsets: Vec<usize>,
        columns: Vec<u32>,
        values: Vec<f32>,
    ) -> std::result::Result<Self, String> {
        let ends = (offsets.first(), offsets.last());
        if offsets.len() != items + 1 || ends != (Some(&0), Some(&columns.len())) {
            return Err(format!("its row offsets do not match {items} items"));
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
                return Err(format!("row {row} is not ascending or has an unknown item"));
            }
        }
        if let Some(at) = values.iter().position(|v| !v.is_finite()) {
            return Err(format!("value {at} is not finite"));
        }
        Ok(Self { offsets, columns, values, changed: FxHashMap::default(), rows: items })
    }

    pub(crate) fn n_rows(&self) -> usize {
        self.rows
    }

    /// Replaces a row by one with ascending columns. `row` may be the number of rows, to add a row.
    pub(crate) fn replace(&mut self, row: usize, entries: Vec<(u32, f32)>) {
        self.rows = self.rows.max(row + 1);
        self.changed.insert(row as u32, entries.into_iter().unzip());
    }

    /// Sets an entry of a row. The entry may be new.
    pub(crate) fn put(&mut self, row: usize, column: u32, value: f32) {
        let (columns, values) = self.row(row);
        match columns.binary_search(&column) {
            Ok(at) if values[at].to_bits() == value.to_bits() => {}
            found => {
                let (mut columns, mut values) = (columns.to_vec(), values.to_vec());
                match found {
                    Ok(at) => values[at] = value,
                    Err(at) => {
                        columns.insert(at, column);
                        values.insert(at, value);
                    }
                }
                self.changed.insert(row as u32, (columns, values));
            }
        }
    }

    /// Removes an entry of a row.
    pub(crate) fn take(&mut self, row: usize, column: u32) {
        let (columns, values) = self.row(row);
        if let Ok(at) = columns.binary_search(&column) {
            let (mut columns, mut values) = (columns.to_vec(), values.to_vec());
            columns.remove(at);
            values.remove(at);
            self.changed.insert(row as u32, (columns, values));
        }
    }

    /// Returns row offsets, columns and values of all rows.
    pub(crate) fn compressed(&self) -> Compressed<'_> {
        if self.changed.is_empty() {
            let (columns, values) = (Cow::from(&self.columns), Cow::from(&self.values));
            return (Cow::from(&self.offsets), columns, values);
        }
        let (mut offsets, mut columns, mut values) = (vec![0], Vec::new(), Vec::new());
        for row in 0..self.rows {
            let (own, weights) = self.row(row);
            columns.extend_from_slice(own);
            values.extend_from_slice(weights);
            offsets.push(columns.len());
        }
        (offsets.into(), columns.into(), values.into())
    }

    /// Returns the columns and values of a row.
    pub(crate) fn row(&self, row: usize) -> (&[u32], &[f32]) {
        if !self.changed.is_empty()
            && let Some((columns, values)) = self.changed.get(&(row as u32))
        {
            return (columns, values);
        }
        match (self.offsets.get(row), self.offsets.get(row + 1)) {
            (Some(&start), Some(&end)) => (&self.columns[start..end], &self.values[start..end]),
            // The row was added and is empty.
            _ => (&[], &[]),
        }
    }

    /// Returns the value in a row and a column; 0 if there is no entry.
    pub(crate) fn get(&self, row: usize, column: usize) -> f32 {
        let (columns, values) = self.row(row);
        columns.binary_search(&(column as u32)).map_or(0.0, |at| values[at])
    }

    /// Returns the transpose of a square matrix.
    pub(crate) fn transpose(&self) -> Self {
        let n = self.rows;
        let mut offsets = vec![0; n + 1];
        for row in 0..n {
            self.row(row).0.iter().for_each(|&column| offsets[column as usize + 1] += 1);
        }
        (0..n).for_each(|row| offsets[row + 1] += offsets[row]);
        let mut next = offsets.clone();
        let (mut columns, mut values) = (vec![0; offsets[n]], vec![0.0; offsets[n]]);
        for row in 0..n {
            let (own, weights) = self.row(row);
            for (&column, &value) in own.iter().zip(weights) {
                let slot = &mut next[column as usize];
                (columns[*slot], values[*slot]) = (row as u32, value);
                *slot += 1;
            }
        }
        Self { offsets, columns, values, changed: FxHashMap::default(), rows: n }
    }

    /// Adds `weight` times a row to `sums`.
    pub(crate) fn add(&self, row: usize, weight: f32, sums: &mut [f32]) {
        let (columns, values) = self.row(row);
        for (&column, &value) in columns.iter().zip(values) {
            sums[column as usize] += weight * value;
        }
    }

    /// Applies `change` to every value.
    pub(crate) fn map(mut self, change: impl Fn(f32) -> f32) -> Self {
        self.values.iter_mut().for_each(|value| *value = change(*value));
        for (_, values) in self.changed.values_mut() {
            values.iter_mut().for_each(|value| *value = change(*value));
        }
        self
    }
}
