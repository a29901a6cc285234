//! A generated catalogue and its interactions.

use glta_core::stream;
use glta_data::Interactions;
use glta_linear::TextVectors;
use ndarray::Array2;
use rand::Rng;
use rayon::prelude::*;

pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;

/// Dimension of a text vector.
const DIM: usize = 192;

/// A sample of the standard normal distribution (Box and Muller).
pub(crate) fn normal(random: &mut impl Rng) -> f64 {
    let u: f64 = 1.0 - random.random::<f64>();
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * random.random::<f64>()).cos()
}

/// Items in clusters; the vectors of a cluster are close to its centre.
pub(crate) struct Catalogue {
    /// The items of each cluster, the most popular first.
    members: Vec<Vec<u32>>,
    pub(crate) text: TextVectors,
}

pub(crate) fn catalogue(items: usize) -> Result<Catalogue, Error> {
    let clusters = (items / 200).max(1);
    let mut centres = Array2::<f32>::zeros((clusters, DIM));
    let mut random = stream(1, "centres", &[]);
    centres.mapv_inplace(|_| normal(&mut random) as f32);
    let mut values = vec![0f32; items * DIM];
    values.par_chunks_mut(DIM).enumerate().for_each(|(item, row)| {
        let mut random = stream(1, "text", &[item as u64]);
        let centre = centres.row(item % clusters);
        for (value, centre) in row.iter_mut().zip(centre) {
            *value = centre + normal(&mut random) as f32;
        }
        let length = row.iter().map(|v| v * v).sum::<f32>().sqrt();
        row.iter_mut().for_each(|v| *v /= length);
    });
    let mut members = vec![Vec::new(); clusters];
    for item in 0..items {
        members[item % clusters].push(item as u32);
    }
    let text = TextVectors::new(Array2::from_shape_vec((items, DIM), values)?)?;
    Ok(Catalogue { members, text })
}

/// On average 2.27 users per item and 23 items per user, with log-normal list lengths. Lists
/// contain items of a few clusters and popular items. A fifth of the users have one particular
/// item, and five users have 20,000 items (or a quarter of the catalogue, if that is less).
pub(crate) fn interactions(catalogue: &Catalogue, items: usize) -> Result<Interactions, Error> {
    let users = items * 227 / 100;
    let clusters = catalogue.members.len();
    let lists: Vec<Vec<u32>> = (0..users)
        .into_par_iter()
        .map(|user| {
            let mut random = stream(1, "list", &[user as u64]);
            let power_user = user % (users / 5).max(1) == 7;
            let wanted = if power_user {
                20_000.min(items / 4)
            } else {
                (2.855 + 0.85 * normal(&mut random)).exp().clamp(3.0, 2_000.0) as usize
            };
            let mut list = Vec::with_capacity(wanted + 1);
            let own: Vec<usize> = (0..4).map(|_| random.random_range(0..clusters)).collect();
            for _ in 0..wanted {
                let skewed = random.random::<f64>().powi(3);
                let item = if power_user || random.random_bool(0.3) {
                    (skewed * items as f64) as u32
                } else {
                    let members = &catalogue.members[own[random.random_range(0..4)]];
                    members[(skewed * members.len() as f64) as usize]
                };
                list.push(item);
            }
            if random.random_bool(0.2) {
                list.push(items as u32 / 2);
            }
            list.sort_unstable();
            list.dedup();
            list
        })
        .collect();
    let mut offsets = vec![0];
    let mut columns = Vec::with_capacity(lists.iter().map(Vec::len).sum());
    for list in lists {
        columns.extend(list);
        offsets.push(columns.len());
    }
    Ok(Interactions::from_csr(items, offsets, columns)?)
}
