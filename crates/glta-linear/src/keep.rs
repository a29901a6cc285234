//! Keeps the best few of many items.

/// Number of values that are compared with the worst kept value at once.
const LANES: usize = 16;

/// Encodes a strength and an item as a number that increases with the strength and decreases with
/// the id.
fn key(strength: f32, item: u32) -> u64 {
    let bits = strength.to_bits();
    // Follow the order of `f32::total_cmp`.
    let rising = if bits >> 31 == 0 { bits | 1 << 31 } else { !bits };
    u64::from(rising) << 32 | u64::from(!item)
}

fn strength_of(key: u64) -> f32 {
    let rising = (key >> 32) as u32;
    f32::from_bits(if rising >> 31 == 1 { rising & !(1 << 31) } else { !rising })
}

fn item_of(key: u64) -> u32 {
    !(key as u32)
}

/// Moves the `n` largest keys to the front and removes the others.
fn keep_keys(keys: &mut Vec<u64>, n: usize) {
    if keys.len() > n {
        if n > 0 {
            keys.select_nth_unstable_by(n - 1, |a, b| b.cmp(a));
        }
        keys.truncate(n);
    }
}

/// Keeps the `n` items with the largest `strength`, in any order. Ties go to the lower id.
pub(crate) fn keep_best(items: &mut Vec<u32>, n: usize, strength: impl Fn(u32) -> f32) {
    if items.len() > n {
        let mut keys: Vec<u64> = items.iter().map(|&item| key(strength(item), item)).collect();
        keep_keys(&mut keys, n);
        items.clear();
        items.extend(keys.into_iter().map(item_of));
    }
}

/// A collection of the `most` offered items with the largest positive strength. Ties go to the
/// lower id. The memory is reused.
#[derive(Debug, Clone)]
pub(crate) struct Best {
    most: usize,
    keys: Vec<u64>,
    /// A lower bound of the kept strengths: lower values are not among the best.
    floor: f32,
}

impl Best {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, keys: Vec::new(), floor: f32::MIN_POSITIVE }
    }

    /// Offers all items except `except`, with their strengths.
    pub(crate) fn offer(&mut self, items: &[u32], strengths: &[f32], except: u32) {
        for (items, strengths) in items.chunks(LANES).zip(strengths.chunks(LANES)) {
            if let Ok(strengths) = <&[f32; LANES]>::try_from(strengths) {
                // Most values are lower than all kept ones.
                let better = strengths.map(|strength| u32::from(strength >= self.floor));
                if better.iter().sum::<u32>() == 0 {
                    continue;
                }
            }
            for (&item, &strength) in items.iter().zip(strengths) {
                if strength >= self.floor && item != except {
                    self.keys.push(key(strength, item));
                }
            }
            if self.keys.len() >= 2 * self.most + LANES {
                self.shrink();
            }
        }
    }

    fn shrink(&mut self) {
        if self.keys.len() > self.most {
            keep_keys(&mut self.keys, self.most);
            let least = self.keys.iter().copied().min().map_or(0.0, strength_of);
            self.floor = least.max(f32::MIN_POSITIVE);
        }
    }

    /// Returns the best items by ascending id, with their strengths, and empties the collection.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = (u32, f32)> + '_ {
        self.shrink();
        self.floor = f32::MIN_POSITIVE;
        self.keys.sort_unstable_by_key(|&key| item_of(key));
        self.keys.drain(..).map(|key| (item_of(key), strength_of(key)))
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn keys_are_in_the_order_of_strengths_and_then_ids() {
        let strengths =
            [f32::NEG_INFINITY, -2.0, -1e-40, -0.0, 0.0, 1e-40, 0.5, 3.0, f32::INFINITY];
        for (a, &x) in strengths.iter().enumerate() {
            assert_eq!(strength_of(key(x, 7)).to_bits(), x.to_bits());
            assert_eq!(item_of(key(x, 7)), 7);
            assert!(key(x, 3) > key(x, 4));
            for &y in &strengths[a + 1..] {
                assert!(key(x, 0) < key(y, 9), "{x} {y}");
            }
        }
    }

    #[test]
    fn the_best_equal_those_of_a_sort() {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(3);
        let mut best = Best::new(0);
        for (n, most) in [(0, 3), (1, 1), (5, 9), (200, 7), (3_000, 64), (3_000, 1)] {
            // Some values are equal, and some are not positive.
            let strengths: Vec<f32> =
                (0..n).map(|_| random.random_range(-40i32..200) as f32 / 64.0).collect();
            let items: Vec<u32> = (0..n as u32).map(|i| 3 * i).collect();
            let mut order: Vec<(u32, f32)> =
                items.iter().copied().zip(strengths.iter().copied()).collect();
            order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            let mut kept = items.clone();
            keep_best(&mut kept, most, |item| strengths[item as usize / 3]);
            kept.sort_unstable();
            let mut expected: Vec<u32> = order.iter().take(most).map(|pair| pair.0).collect();
            expected.sort_unstable();
            assert_eq!(kept, expected);

            let except = order.first().map_or(0, |pair| pair.0);
            order.retain(|&(item, strength)| strength > 0.0 && item != except);
            order.truncate(most);
            order.sort_by_key(|pair| pair.0);
            best.most = most;
            for (items, strengths) in items.chunks(37).zip(strengths.chunks(37)) {
                best.offer(items, strengths, except);
            }
            assert_eq!(best.take().collect::<Vec<_>>(), order);
        }
    }
}
