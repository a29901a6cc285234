use crate::LinearModel;

/// The contributions to the score of one item for one user.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Explanation {
    /// The user's items with their contributions, the largest first.
    pub items: Vec<(u32, f32)>,
    /// The contribution of the item's popularity.
    pub popularity: f32,
    /// The score of the item, which is the sum of all contributions.
    pub score: f32,
}

impl LinearModel {
    /// Splits the score of `target` for a user with `items` into contributions.
    ///
    /// The result is exact, because the score of a linear model is a sum over the items. Unknown
    /// items are ignored, and repeated items count once.
    ///
    /// ```
    /// # use glta_data::Interactions;
    /// # use glta_linear::{LinearConfig, LinearModel};
    /// let train = Interactions::from_pairs(3, 4, [(0, 0), (0, 1), (1, 0), (1, 1), (2, 3)])?;
    /// let model = LinearModel::fit(&train, None, None, &LinearConfig::default(), 1)?;
    /// let why = model.explain(&[0, 3], 1);
    /// assert_eq!(why.items[0].0, 0);
    /// assert!((why.score - model.score_items(&[0, 3])[1]).abs() < 1e-6);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn explain(&self, items: &[u32], target: u32) -> Explanation {
        let target = target as usize;
        if target >= self.degrees.len() {
            return Explanation { items: Vec::new(), popularity: 0.0, score: 0.0 };
        }
        let temperature = self.report.temperature;
        let weight = self.report.neighbours * self.neighbour_count(target);
        let mut known: Vec<u32> =
            items.iter().copied().filter(|&item| (item as usize) < self.degrees.len()).collect();
        known.sort_unstable();
        known.dedup();
        let part = |item: u32| {
            let near = self.text.as_ref().map_or(0.0, |text| text.get(item as usize, target));
            temperature * (self.ease.weights.get(item as usize, target) + weight * near)
        };
        let mut items: Vec<(u32, f32)> = known.iter().map(|&item| (item, part(item))).collect();
        items.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let popularity = temperature * self.report.popularity * self.log_popularity(target);
        let score = items.iter().map(|(_, part)| part).sum::<f32>() + popularity;
        Explanation { items, popularity, score }
    }
}
