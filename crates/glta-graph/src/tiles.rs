//! The adjacency of one side of the graph, in tiles that fit a cache.

use std::ops::Range;

use rayon::prelude::*;

use crate::kernel::{Isa, Segment};
use crate::lines::{Line, Panels};

/// Size limits of blocks and chunks. Only tests change the defaults.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Minimum number of columns in a block.
    pub(crate) block: usize,
    /// Maximum number of columns in a block.
    pub(crate) max_block: usize,
    /// Mean number of neighbours of a row within a block. Below this number, the block is enlarged,
    /// because the overhead of short runs exceeds the gain from a nearer cache.
    pub(crate) min_run: usize,
    /// Number of neighbours per chunk.
    pub(crate) chunk: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // 512 lines of 64 bytes fill two thirds of a first-level data cache; the rows that are
            // summed need the rest.
            block: 512,
            // Ids within a block have 16 bits.
            max_block: 1 << 15,
            min_run: 6,
            // Small enough to divide a graph of a million interactions among many threads, large
            // enough to amortise loading the blocks.
            chunk: 100_000,
        }
    }
}

/// A binary `(rows, columns)` matrix without stored values.
///
/// Columns are cut into blocks whose dense rows fit a cache, rows into chunks, the unit of parallel
/// work. A tile is one chunk of rows and one block of columns. It lists its non-empty rows as
/// [`Segment`]s with 16-bit column ids, longest first, which makes the length of the inner loop
/// predictable.
///
/// The order of summation of a row depends on the matrix only, not on the number of threads.
#[derive(Clone, Debug)]
pub(crate) struct Tiles {
    rows: usize,
    columns: usize,
    /// Start of each block, and the end of the last one.
    blocks: Vec<usize>,
    chunks: Vec<Chunk>,
    edges: usize,
}

#[derive(Clone, Debug)]
struct Chunk {
    rows: Range<usize>,
    indices: Vec<u16>,
    segments: Vec<Segment>,
    /// Ends of the tiles: tile `b` is `segments[tiles[b]..tiles[b + 1]]`.
    tiles: Vec<u32>,
}

/// A subset of the rows of a [`Tiles`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    chunks: Vec<SelectedChunk>,
}

#[derive(Clone, Debug, Default)]
struct SelectedChunk {
    segments: Vec<Segment>,
    tiles: Vec<u32>,
    edges: usize,
}

impl Selection {
    /// Returns the number of edges of the selected rows.
    pub(crate) fn edges(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.edges).sum()
    }
}

/// Divides columns into blocks of about `min_run` neighbours per row, by the degrees of the
/// columns.
fn column_blocks(degrees: &[u32], rows: usize, limits: Limits) -> Vec<usize> {
    let mut blocks = vec![0];
    let mut start = 0;
    while start < degrees.len() {
        let mut end = (start + limits.block).min(degrees.len());
        let edges = |end: usize| -> usize { degrees[start..end].iter().map(|&d| d as usize).sum() };
        while end < degrees.len()
            && end - start < limits.max_block
            && edges(end) < limits.min_run * rows
        {
            end = (start + 2 * (end - start)).min(degrees.len());
        }
        blocks.push(end);
        start = end;
    }
    blocks
}

/// Divides rows into chunks of about equal work by their degrees.
fn row_chunks(degrees: &[u32], limits: Limits) -> Vec<Range<usize>> {
    let mut chunks = Vec::new();
    let (mut start, mut edges) = (0, 0);
    for (row, &degree) in degrees.iter().enumerate() {
        edges += degree as usize;
        if edges >= limits.chunk || row + 1 == degrees.len() || row + 1 - start == 1 << 16 {
            chunks.push(start..row + 1);
            (start, edges) = (row + 1, 0);
        }
    }
    chunks
}

impl Tiles {
    /// Builds the matrix. `neighbours(row, out)` must append the columns of a row.
    pub(crate) fn new(
        row_degrees: &[u32],
        column_degrees: &[u32],
        limits: Limits,
        neighbours: impl Fn(usize, &mut Vec<u32>) + Sync,
    ) -> Self {
        let blocks = column_blocks(column_degrees, row_degrees.len(), limits);
        let chunks: Vec<Chunk> = row_chunks(row_degrees, limits)
            .into_par_iter()
            .map(|rows| Chunk::new(rows, &blocks, &neighbours))
            .collect();
        let edges = chunks.iter().map(|chunk| chunk.indices.len()).sum();
        Self { rows: row_degrees.len(), columns: column_degrees.len(), blocks, chunks, edges }
    }

    /// Returns the number of non-zero entries.
    pub(crate) fn edges(&self) -> usize {
        self.edges
    }

    /// Returns the size of the matrix in memory, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let chunk = |c: &Chunk| 2 * c.indices.len() + 8 * c.segments.len() + 4 * c.tiles.len();
        self.chunks.iter().map(chunk).sum()
    }

    /// Sets `selection` to the rows where `mask` is true.
    pub(crate) fn select(&self, mask: &[bool], selection: &mut Selection) {
        assert_eq!(mask.len(), self.rows);
        selection.chunks.resize_with(self.chunks.len(), SelectedChunk::default);
        selection
            .chunks
            .par_iter_mut()
            .zip(&self.chunks)
            .for_each(|(selected, chunk)| selected.fill(chunk, &mask[chunk.rows.clone()]));
    }

    /// Appends the tasks of `dst = scale · (self · src) + add`, which can run in any order. If a
    /// selection is given, only its rows of `dst` are valid.
    pub(crate) fn gather<'a>(
        &'a self,
        isa: Isa,
        product: Product<'a>,
        dst: &'a mut Panels,
        tasks: &mut Vec<Task<'a>>,
    ) {
        assert_eq!(product.src.rows(), self.columns);
        assert_eq!(dst.rows(), self.rows);
        assert_eq!(product.scale.len(), self.rows);
        assert_eq!(product.src.panels(), dst.panels());
        for (panel, mut lines) in dst.panels_mut().enumerate() {
            for (c, chunk) in self.chunks.iter().enumerate() {
                let (head, tail) = lines.split_at_mut(chunk.rows.len());
                lines = tail;
                tasks.push(Task {
                    isa,
                    dst: head,
                    work: Work::Gather {
                        chunk,
                        blocks: &self.blocks,
                        selected: product.selection.map(|s| &s.chunks[c]),
                        src: product.src.panel(panel),
                        scale: &product.scale[chunk.rows.clone()],
                        add: product.add.map(|a| &a.panel(panel)[chunk.rows.clone()]),
                    },
                });
            }
        }
    }

    /// Appends the tasks of `dst = scale · (selfᵀ · src) + add`. `src` must be zero outside the
    /// selected rows.
    pub(crate) fn scatter<'a>(
        &'a self,
        isa: Isa,
        product: Product<'a>,
        dst: &'a mut Panels,
        tasks: &mut Vec<Task<'a>>,
    ) {
        assert_eq!(product.src.rows(), self.rows);
        assert_eq!(dst.rows(), self.columns);
        assert_eq!(product.scale.len(), self.columns);
        assert_eq!(product.src.panels(), dst.panels());
        let Some(selection) = product.selection else {
            return;
        };
        for (panel, mut lines) in dst.panels_mut().enumerate() {
            for block in 0..self.blocks.len() - 1 {
                let columns = self.blocks[block]..self.blocks[block + 1];
                let (head, tail) = lines.split_at_mut(columns.len());
                lines = tail;
                tasks.push(Task {
                    isa,
                    dst: head,
                    work: Work::Scatter {
                        tiles: self,
                        selection,
                        block,
                        src: product.src.panel(panel),
                        scale: &product.scale[columns.clone()],
                        add: product.add.map(|a| &a.panel(panel)[columns]),
                    },
                });
            }
        }
    }
}

/// The inputs of one sparse product.
#[derive(Clone, Copy)]
pub(crate) struct Product<'a> {
    pub(crate) src: &'a Panels,
    /// Factor of each row of the result.
    pub(crate) scale: &'a [f32],
    pub(crate) add: Option<&'a Panels>,
    pub(crate) selection: Option<&'a Selection>,
}

/// One task of a sparse product. Tasks write to disjoint memory.
pub(crate) struct Task<'a> {
    isa: Isa,
    dst: &'a mut [Line],
    work: Work<'a>,
}

enum Work<'a> {
    Gather {
        chunk: &'a Chunk,
        blocks: &'a [usize],
        selected: Option<&'a SelectedChunk>,
        src: &'a [Line],
        scale: &'a [f32],
        add: Option<&'a [Line]>,
    },
    Scatter {
        tiles: &'a Tiles,
        selection: &'a Selection,
        block: usize,
        src: &'a [Line],
        scale: &'a [f32],
        add: Option<&'a [Line]>,
    },
}

impl Task<'_> {
    pub(crate) fn run(self) {
        let Self { isa, dst, work } = self;
        dst.fill(Line::ZERO);
        match work {
            Work::Gather { chunk, blocks, selected, src, scale, add } => {
                let (segments, tiles) = match selected {
                    Some(selected) => (&selected.segments, &selected.tiles),
                    None => (&chunk.segments, &chunk.tiles),
                };
                for (tile, block) in tiles.windows(2).zip(blocks.windows(2)) {
                    let segments = &segments[tile[0] as usize..tile[1] as usize];
                    let src = &src[block[0]..block[1]];
                    // SAFETY: by construction the segments of a chunk are inside its indices, its
                    // ids inside their block and its rows inside the chunk. `src` is the block and
                    // `dst` is the chunk.
                    unsafe { isa.gather(segments, &chunk.indices, src, dst) };
                }
                isa.scale(dst, scale, add);
            }
            Work::Scatter { tiles, selection, block, src, scale, add } => {
                for (chunk, selected) in tiles.chunks.iter().zip(&selection.chunks) {
                    let tile = selected.tiles[block] as usize..selected.tiles[block + 1] as usize;
                    let src = &src[chunk.rows.clone()];
                    // SAFETY: the same holds with `src` as the chunk and `dst` as the block.
                    unsafe { isa.scatter(&selected.segments[tile], &chunk.indices, src, dst) };
                }
                isa.scale(dst, scale, add);
            }
        }
    }
}

/// Runs tasks in parallel on the current thread pool.
pub(crate) fn run(tasks: Vec<Task<'_>>) {
    tasks.into_par_iter().with_max_len(1).for_each(Task::run);
}

impl Chunk {
    fn new(
        rows: Range<usize>,
        blocks: &[usize],
        neighbours: &impl Fn(usize, &mut Vec<u32>),
    ) -> Self {
        // Collect all neighbours and, for each block, its rows with their first neighbour.
        let mut all: Vec<u32> = Vec::new();
        let mut runs: Vec<Vec<(u16, u16, usize)>> = vec![Vec::new(); blocks.len() - 1];
        for row in rows.clone() {
            let mut at = all.len();
            neighbours(row, &mut all);
            all[at..].sort_unstable();
            let mut block = 0;
            while at < all.len() {
                while all[at] as usize >= blocks[block + 1] {
                    block += 1;
                }
                let len = all[at..].partition_point(|&c| (c as usize) < blocks[block + 1]);
                runs[block].push(((row - rows.start) as u16, len as u16, at));
                at += len;
            }
        }
        let mut chunk = Self {
            rows,
            indices: Vec::with_capacity(all.len()),
            segments: Vec::with_capacity(runs.iter().map(Vec::len).sum()),
            tiles: vec![0],
        };
        for (block, mut runs) in runs.into_iter().enumerate() {
            runs.sort_by_key(|&(_, len, _)| std::cmp::Reverse(len));
            for (row, len, at) in runs {
                let start = chunk.indices.len() as u32;
                let columns = &all[at..at + usize::from(len)];
                let local = columns.iter().map(|&c| (c as usize - blocks[block]) as u16);
                chunk.indices.extend(local);
                chunk.segments.push(Segment { row, len, start });
            }
            chunk.tiles.push(chunk.segments.len() as u32);
        }
        chunk
    }
}

impl SelectedChunk {
    fn fill(&mut self, chunk: &Chunk, mask: &[bool]) {
        self.tiles.clear();
        self.tiles.push(0);
        self.edges = 0;
        // Avoid a branch: the mask is random, so half of the branches would be mispredicted.
        let empty = Segment { row: 0, len: 0, start: 0 };
        self.segments.resize(chunk.segments.len(), empty);
        let mut end = 0;
        for tile in chunk.tiles.windows(2) {
            for segment in &chunk.segments[tile[0] as usize..tile[1] as usize] {
                let wanted = mask[usize::from(segment.row)];
                self.segments[end] = *segment;
                end += usize::from(wanted);
                self.edges += usize::from(wanted) * usize::from(segment.len);
            }
            self.tiles.push(end as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values(n: usize, dim: usize) -> Panels {
        let matrix = ndarray::Array2::from_shape_fn((n, dim), |(r, c)| {
            ((r * 31 + c * 17) % 23) as f32 - 11.0
        });
        let order: Vec<u32> = (0..n as u32).collect();
        Panels::from_rows(matrix.view(), &order)
    }

    fn rows(panels: &Panels) -> ndarray::Array2<f32> {
        panels.to_rows(&(0..panels.rows() as u32).collect::<Vec<_>>())
    }

    proptest! {
        /// Small integers make the sums exact in every order.
        #[test]
        fn products_equal_the_dense_ones(
            n_rows in 1usize..40,
            n_columns in 1usize..40,
            density in 0u32..10,
            salt in 0u32..1000,
            block in 1usize..9,
            chunk in 1usize..30,
            dim in 1usize..40,
        ) {
            let edge = |r: usize, c: usize| {
                let mixed = (r as u32 * 7919 + c as u32 * 104_729 + salt).wrapping_mul(2_654_435_761);
                (mixed >> 16) % 10 < density
            };
            let neighbours = |r: usize| (0..n_columns).filter(move |&c| edge(r, c));
            let row_degrees: Vec<u32> = (0..n_rows).map(|r| neighbours(r).count() as u32).collect();
            let column_degrees: Vec<u32> = (0..n_columns)
                .map(|c| (0..n_rows).filter(|&r| edge(r, c)).count() as u32)
                .collect();
            let limits = Limits { block, max_block: 4 * block, min_run: 2, chunk };
            let tiles = Tiles::new(&row_degrees, &column_degrees, limits, |r, out| {
                out.extend(neighbours(r).map(|c| c as u32));
            });
            prop_assert_eq!(tiles.edges(), row_degrees.iter().sum::<u32>() as usize);

            let mask: Vec<bool> = (0..n_rows).map(|r| r % 3 != 0).collect();
            let mut selection = Selection::default();
            tiles.select(&mask, &mut selection);
            let selected: u32 = (0..n_rows).filter(|&r| mask[r]).map(|r| row_degrees[r]).sum();
            prop_assert_eq!(selection.edges(), selected as usize);

            let dense = ndarray::Array2::from_shape_fn((n_rows, n_columns), |(r, c)| f32::from(u8::from(edge(r, c))));
            let scale = vec![2.0; n_rows.max(n_columns)];
            for isa in Isa::available() {
                // Pull all rows, then some.
                let (src, add) = (values(n_columns, dim), values(n_rows, dim));
                let expected = dense.dot(&rows(&src)) * 2.0 + rows(&add);
                for selection in [None, Some(&selection)] {
                    let mut dst = values(n_rows, dim);
                    let mut tasks = Vec::new();
                    let product = Product { src: &src, scale: &scale[..n_rows], add: Some(&add), selection };
                    tiles.gather(isa, product, &mut dst, &mut tasks);
                    run(tasks);
                    let got = rows(&dst);
                    for r in (0..n_rows).filter(|&r| selection.is_none() || mask[r]) {
                        prop_assert_eq!(got.row(r), expected.row(r));
                    }
                }
                // Push from some rows; the others are zero.
                let mut src = rows(&values(n_rows, dim));
                for r in (0..n_rows).filter(|&r| !mask[r]) {
                    src.row_mut(r).fill(0.0);
                }
                let expected = dense.t().dot(&src) * 2.0;
                let src = Panels::from_rows(src.view(), &(0..n_rows as u32).collect::<Vec<_>>());
                let mut dst = values(n_columns, dim);
                let mut tasks = Vec::new();
                let product = Product { src: &src, scale: &scale[..n_columns], add: None, selection: Some(&selection) };
                tiles.scatter(isa, product, &mut dst, &mut tasks);
                run(tasks);
                prop_assert_eq!(rows(&dst), expected);
            }
        }
    }
}
