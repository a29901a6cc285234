//! The share of the nearest items by text that the approximate search finds.

use std::path::Path;

use cpu_time::ProcessTime;
use glta_core::{pick, stream};
use glta_linear::{TextNeighbours, TextVectors, WhitenConfig, Whitening};
use ndarray::{Array2, ArrayView1, Axis};
use ndarray_npy::read_npy;
use rayon::prelude::*;

use crate::generated::{Error, normal};
use crate::measured::{argument, peak_mb};

/// Number of items whose exact neighbours are computed, and number of these neighbours.
const QUERIES: usize = 1_000;
const NEAREST: usize = 10;

/// Vectors of length 1: those of the file, whitened and repeated with noise of this length.
fn repeated(white: &Array2<f32>, items: usize, noise: f64) -> Result<TextVectors, Error> {
    let (rows, dim) = white.dim();
    let deviation = noise / (dim as f64).sqrt();
    let mut values = vec![0f32; items * dim];
    values.par_chunks_mut(dim).enumerate().for_each(|(item, vector)| {
        let mut random = stream(1, "noise", &[item as u64]);
        for (to, &from) in vector.iter_mut().zip(white.row(item % rows)) {
            // Without noise at first.
            let more = if item < rows { 0.0 } else { deviation * normal(&mut random) };
            *to = from + more as f32;
        }
        let length = vector.iter().map(|v| v * v).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
        vector.iter_mut().for_each(|v| *v /= length);
    });
    Ok(TextVectors::new(Array2::from_shape_vec((items, dim), values)?)?)
}

/// The nearest items of one item, by all cosines.
fn exact(vectors: &TextVectors, item: u32) -> Vec<u32> {
    let own = ArrayView1::from(vectors.row(item as usize));
    let cosines = vectors.view().dot(&own);
    let mut others: Vec<u32> = (0..vectors.n_items() as u32).filter(|&i| i != item).collect();
    let better =
        |a: &u32, b: &u32| cosines[*b as usize].total_cmp(&cosines[*a as usize]).then(a.cmp(b));
    let last = NEAREST.min(others.len()).saturating_sub(1);
    others.select_nth_unstable_by(last, better);
    others.truncate(NEAREST);
    others.retain(|&other| cosines[other as usize] > 0.0);
    others
}

pub(crate) fn recall(path: &Path, items: usize) -> Result<(), Error> {
    let noise = argument("--noise").map_or(Ok(0.3), |noise| noise.parse::<f64>())?;
    let raw: Array2<f32> = read_npy(path)?;
    let white = Whitening::fit(raw.view(), &WhitenConfig::default())?.apply(raw.view())?;
    let texts = white.axis_iter(Axis(0)).filter(|row| row.iter().any(|&v| v != 0.0)).count();
    println!("{texts} texts, {} dimensions, {items} items, noise {noise}", white.ncols());
    let vectors = repeated(&white, items, noise)?;
    let cpu = ProcessTime::now();
    let near = TextNeighbours::find(&vectors, 64)?;
    let seconds = cpu.elapsed().as_secs_f64();
    let all: Vec<u32> = (0..items as u32).collect();
    let queries = pick(&all, QUERIES, &mut stream(1, "queries", &[]));
    let counts: Vec<(usize, usize)> = queries
        .par_iter()
        .map(|&item| {
            let wanted = exact(&vectors, item);
            let found: Vec<u32> = near.of(item).map(|(other, _)| other).collect();
            let hits = wanted.iter().filter(|other| found.binary_search(other).is_ok()).count();
            (hits, wanted.len())
        })
        .collect();
    let (hits, wanted) =
        counts.iter().fold((0, 0), |(hits, wanted), count| (hits + count.0, wanted + count.1));
    // A hash of all neighbours and cosines, to compare two runs.
    let fingerprint = (0..items as u32).flat_map(|item| near.of(item)).fold(0u64, |sum, (i, c)| {
        (sum.rotate_left(5) ^ u64::from(i) ^ u64::from(c.to_bits()) << 32)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
    });
    println!(
        "{{\"items\":{items},\"noise\":{noise},\"recall_10\":{:.4},\"cpu_seconds\":{seconds:.1},\
         \"peak_mb\":{:.0},\"threads\":{},\"fingerprint\":\"{fingerprint:016x}\"}}",
        hits as f64 / wanted.max(1) as f64,
        peak_mb(),
        rayon::current_num_threads()
    );
    Ok(())
}
