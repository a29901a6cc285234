//! Generates a shop whose customers have tastes, for examples without a download.

mod words;

use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, RngCore};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::{Deserialize, Serialize};

use crate::{Dataset, Error, Item, Result};
use words::{MAKERS, STYLES, THEMES};

/// Settings of a generated shop ([`Dataset::shop`]).
///
/// Every article has one of 12 *themes* (hiking, baking, …), one of 4 *styles* (light, sturdy,
/// colourful, simple), and one of `circles` *circles*. Its description contains the theme and the
/// style in words. No text names the circle, so only the purchases contain information about it. A
/// customer likes two themes, one style and one circle. The weight with which a customer takes an
/// article is
///
/// ```text
/// exp(3.0 · theme liked + 1.0 · style liked + 2.0 · circle liked) / (8 + place)^0.5
/// ```
///
/// where `place` is the article's place in a random order of popularity. Texts and interactions
/// therefore each contain information that the other lacks. The last `new_items` articles have no
/// interactions, so a model can recommend them only by their texts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShopConfig {
    /// Number of customers. Default 500.
    pub users: usize,
    /// Number of articles, including new ones. Default 600.
    pub items: usize,
    /// Number of articles that have no interactions. Default 30.
    pub new_items: usize,
    /// Mean number of articles per customer. The minimum is 4. Default 8.
    pub mean_interactions: f64,
    /// Number of circles, which no text names. Default 8.
    pub circles: usize,
    /// Seed of all random choices. Default 2024.
    pub seed: u64,
}

impl Default for ShopConfig {
    fn default() -> Self {
        Self {
            users: 500,
            items: 600,
            new_items: 30,
            mean_interactions: 8.0,
            circles: 8,
            seed: 2024,
        }
    }
}

/// Minimum number of articles per customer.
const FEWEST: usize = 4;

impl ShopConfig {
    /// Checks that all settings are valid.
    ///
    /// # Errors
    /// Returns [`Error::Config`] with the name of the invalid setting.
    pub fn validate(&self) -> Result<()> {
        let invalid = |field, problem: String| Err(Error::Config { field, problem });
        let sold = self.items.saturating_sub(self.new_items);
        let mean = self.mean_interactions;
        if self.users == 0 {
            return invalid("users", "at least one is needed".into());
        }
        if sold < 2 * FEWEST {
            return invalid("items", format!("at least {} items must not be new", 2 * FEWEST));
        }
        if self.circles == 0 {
            return invalid("circles", "at least one is needed".into());
        }
        if !(mean >= FEWEST as f64 && mean <= sold as f64 / 2.0) {
            let most = sold / 2;
            return invalid(
                "mean_interactions",
                format!("{mean} is not between {FEWEST} and {most}"),
            );
        }
        Ok(())
    }
}

/// Properties of an article that determine who takes it.
struct Article {
    theme: usize,
    style: usize,
    circle: usize,
}

impl Article {
    fn draw(circles: usize, random: &mut impl Rng) -> Self {
        Self {
            theme: random.random_range(0..THEMES.len()),
            style: random.random_range(0..STYLES.len()),
            circle: random.random_range(0..circles),
        }
    }

    /// Writes the title and the description of an article.
    fn describe(&self, random: &mut impl Rng) -> (String, String) {
        let (theme, style) = (&THEMES[self.theme], &STYLES[self.style]);
        let mut word = |words: &[&'static str]| words.choose(random).copied().unwrap_or_default();
        let (adjective, noun) = (word(&style.adjectives), word(&theme.nouns));
        let (maker, used, part) = (word(&MAKERS), word(&theme.uses), word(&theme.parts));
        let (name, sentence) = (theme.name, style.sentence);
        let title = format!("{maker} {adjective} {noun}");
        let description = match random.random_range(0..3) {
            0 => {
                format!("For {name}: a {adjective} {noun} with {part}. Made for {used}. {sentence}")
            }
            1 => format!(
                "{sentence} This {noun} has {part} and is good for {used}. A {name} article."
            ),
            _ => {
                format!("Whoever enjoys {name} wants a {noun} for {used}. {sentence} With {part}.")
            }
        };
        (title, description)
    }
}

impl Dataset {
    /// Generates a shop with described articles and customers with tastes.
    ///
    /// ```
    /// use glta_data::{Dataset, ShopConfig};
    ///
    /// let config = ShopConfig { users: 50, items: 80, new_items: 5, ..ShopConfig::default() };
    /// let shop = Dataset::shop(&config)?;
    /// assert_eq!((shop.n_users(), shop.n_items()), (50, 80));
    /// assert!(shop.items().iter().all(|item| !item.description.is_empty()));
    /// assert!(shop.interactions().item_degrees()[75..].iter().all(|&degree| degree == 0));
    /// # Ok::<(), glta_data::Error>(())
    /// ```
    ///
    /// # Errors
    /// Returns [`Error::Config`] if a setting is invalid.
    pub fn shop(config: &ShopConfig) -> Result<Self> {
        config.validate()?;
        // One generator makes all draws, and not `glta_core::stream`, because the checkpoint in
        // examples/quickstart/llm and published figures depend on these data.
        let mut random = ChaCha8Rng::seed_from_u64(config.seed);
        let articles: Vec<Article> =
            (0..config.items).map(|_| Article::draw(config.circles, &mut random)).collect();
        let items = articles.iter().enumerate().map(|(n, article)| {
            let (title, description) = article.describe(&mut random);
            Item { description, ..Item::titled(format!("article-{n}"), title) }
        });
        let items = items.collect();
        let sold = &articles[..config.items - config.new_items];
        let mut places: Vec<u32> = (0..sold.len() as u32).collect();
        places.shuffle(&mut random);
        let mut pairs = Vec::new();
        for user in 0..config.users as u32 {
            let taken = take(sold, &places, config, &mut random);
            pairs.extend(taken.into_iter().map(|item| (user, item)));
        }
        Self::from_dense("shop", config.users, items, pairs)
    }
}

/// Draws the articles of one new customer by weighted sampling without replacement (Efraimidis and
/// Spirakis 2006), which takes the articles with the largest `ln(u) / weight`, with a uniform
/// random number `u` per article.
fn take(
    sold: &[Article],
    places: &[u32],
    config: &ShopConfig,
    random: &mut ChaCha8Rng,
) -> Vec<u32> {
    let mut likes = |n: usize| random.random_range(0..n);
    let (first, second) = (likes(THEMES.len()), likes(THEMES.len()));
    let (style, circle) = (likes(STYLES.len()), likes(config.circles));
    let mut keys: Vec<(f64, u32)> = sold
        .iter()
        .zip(places)
        .zip(0u32..)
        .map(|((article, &place), n)| {
            let is = |liked: bool| f64::from(u8::from(liked));
            let score = 3.0 * is(article.theme == first || article.theme == second)
                + is(article.style == style)
                + 2.0 * is(article.circle == circle);
            (uniform(random).ln() * (8.0 + f64::from(place)).sqrt() / score.exp(), n)
        })
        .collect();
    keys.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    // The number of articles is four plus an exponentially distributed number, so many customers
    // have few articles and few have many.
    let rest = -uniform(random).ln() * (config.mean_interactions - FEWEST as f64);
    keys.truncate(FEWEST + (rest.round() as usize).min(sold.len() / 2 - FEWEST));
    keys.into_iter().map(|(_, n)| n).collect()
}

/// Draws a uniform number in (0, 1].
fn uniform(random: &mut impl RngCore) -> f64 {
    1.0 - random.random::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_determines_the_shop() {
        let config = ShopConfig::default();
        let shop = Dataset::shop(&config).unwrap();
        assert_eq!(shop, Dataset::shop(&config).unwrap());
        let other = Dataset::shop(&ShopConfig { seed: 1, ..config.clone() }).unwrap();
        assert_ne!(shop.items(), other.items());
        let mean = shop.interactions().len() as f64 / shop.n_users() as f64;
        assert!((mean - config.mean_interactions).abs() < 1.5, "{mean}");
        let degrees = shop.interactions().item_degrees();
        assert!(degrees[570..].iter().all(|&d| d == 0));
        assert!(degrees[..570].iter().filter(|&&d| d > 0).count() > 500);
        assert!((0..500).all(|u| shop.interactions().items(u).len() >= FEWEST));
    }

    /// Checks that two articles of one customer share their theme and their circle more often than
    /// by chance. The text contains the theme, but not the circle.
    #[test]
    fn texts_and_circles_are_both_informative() {
        let config = ShopConfig::default();
        let shop = Dataset::shop(&config).unwrap();
        let mut random = ChaCha8Rng::seed_from_u64(config.seed);
        let articles: Vec<Article> =
            (0..config.items).map(|_| Article::draw(config.circles, &mut random)).collect();
        for (item, article) in shop.items().iter().zip(&articles) {
            assert!(item.description.contains(THEMES[article.theme].name), "{}", item.description);
        }
        let share = |same: &dyn Fn(&Article, &Article) -> bool| {
            let (mut hits, mut all) = (0.0, 0.0);
            for user in 0..config.users as u32 {
                let items = shop.interactions().items(user);
                for pair in items.windows(2) {
                    let [a, b] = [pair[0], pair[1]].map(|i| &articles[i as usize]);
                    hits += f64::from(u8::from(same(a, b)));
                    all += 1.0;
                }
            }
            hits / all
        };
        let theme = share(&|a, b| a.theme == b.theme);
        let circle = share(&|a, b| a.theme != b.theme && a.circle == b.circle);
        assert!(theme > 3.0 / 12.0, "{theme}");
        let different = share(&|a, b| a.theme != b.theme);
        assert!(circle / different > 1.5 / 8.0, "{circle} {different}");
    }

    #[test]
    fn invalid_shops_are_rejected() {
        let base = ShopConfig { users: 5, items: 30, new_items: 0, ..ShopConfig::default() };
        for (change, field) in [
            (ShopConfig { users: 0, ..base.clone() }, "users"),
            (ShopConfig { new_items: 29, ..base.clone() }, "items"),
            (ShopConfig { circles: 0, ..base.clone() }, "circles"),
            (ShopConfig { mean_interactions: 16.0, ..base.clone() }, "mean_interactions"),
            (ShopConfig { mean_interactions: f64::NAN, ..base.clone() }, "mean_interactions"),
        ] {
            let message = Dataset::shop(&change).unwrap_err().to_string();
            assert!(message.contains(field), "{message}");
        }
        assert_eq!(Dataset::shop(&base).unwrap().n_items(), 30);
    }
}
