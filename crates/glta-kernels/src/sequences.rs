use crate::error::{Error, Result};

/// Positions of the tokens of a batch: sequences of any length, packed without padding.
///
/// ```
/// use glta_kernels::Sequences;
///
/// // Two sequences of 3 and 1 tokens after a prefix of 10.
/// let sequences = Sequences::new(&[3, 1], |_| 10);
/// assert_eq!(sequences.starts(), [0, 3, 4]);
/// assert_eq!(sequences.positions(), [10, 11, 12, 10]);
/// ```
#[derive(Clone, Debug)]
pub struct Sequences {
    starts: Vec<usize>,
    positions: Vec<u32>,
}

impl Sequences {
    /// Creates one sequence per length. The positions of sequence `s` start at `offset(s)`.
    pub fn new(lengths: &[usize], offset: impl Fn(usize) -> usize) -> Self {
        let mut starts = vec![0];
        let mut positions = Vec::new();
        for (sequence, &length) in lengths.iter().enumerate() {
            let offset = offset(sequence);
            positions.extend((offset..offset + length).map(|p| p as u32));
            starts.push(positions.len());
        }
        Self { starts, positions }
    }

    /// Returns the number of sequences.
    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// Returns whether there are no sequences.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of tokens.
    pub fn tokens(&self) -> usize {
        self.positions.len()
    }

    /// Returns the index of the first token of each sequence, followed by the total number of
    /// tokens, `(sequences + 1,)`.
    pub fn starts(&self) -> &[usize] {
        &self.starts
    }

    /// Returns the position of every token in its sequence, `(tokens,)`.
    pub fn positions(&self) -> &[u32] {
        &self.positions
    }

    /// Returns an error unless the sequences are the rows of a right-padded `(rows, seq)` batch.
    pub(crate) fn expect_padded(&self, rows: usize, seq: usize) -> Result<()> {
        let longest = self.starts.windows(2).map(|w| w[1] - w[0]).max().unwrap_or(0);
        if rows == self.len() && longest <= seq {
            return Ok(());
        }
        Err(Error::Input(format!(
            "{} sequences of up to {longest} tokens do not fit a batch of {rows} rows of {seq}",
            self.len()
        )))
    }

    /// Returns the number of positions: the largest one plus one.
    pub fn context(&self) -> usize {
        self.positions.iter().max().map_or(0, |&p| p as usize + 1)
    }
}
