use rand::Rng;

use crate::options::GenerateOptions;

/// Selects the next token: at temperature 0 the most likely token (the lowest id among equals),
/// otherwise a random draw. Changes `logits: (vocab,)` in place.
pub(crate) fn next_token(
    logits: &mut [f32],
    seen: &[u32],
    options: &GenerateOptions,
    rng: &mut impl Rng,
) -> u32 {
    if options.repetition_penalty != 1.0 {
        penalize(logits, seen, options.repetition_penalty);
    }
    if options.temperature == 0.0 {
        return argmax(logits);
    }
    let mut ranked = best(logits, options);
    let max = ranked[0].0;
    let mut total = 0.0;
    for (value, _) in &mut ranked {
        *value = ((*value - max) / options.temperature).exp();
        total += *value;
    }
    if options.top_p < 1.0 {
        let mut mass = 0.0;
        let kept = ranked
            .iter()
            .position(|(p, _)| {
                mass += p;
                mass >= options.top_p * total
            })
            .map_or(ranked.len(), |last| last + 1);
        ranked.truncate(kept);
        total = ranked.iter().map(|(p, _)| p).sum();
    }
    let mut draw = rng.random::<f32>() * total;
    for &(p, id) in &ranked {
        draw -= p;
        if draw < 0.0 {
            return id;
        }
    }
    // Rounding may leave a rest of the probability.
    ranked[ranked.len() - 1].1
}

/// Applies the penalty once to each token in `seen`: divides positive scores and multiplies
/// negative ones.
fn penalize(logits: &mut [f32], seen: &[u32], penalty: f32) {
    let mut ids = seen.to_vec();
    ids.sort_unstable();
    ids.dedup();
    for id in ids {
        if let Some(logit) = logits.get_mut(id as usize) {
            *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
        }
    }
}

fn argmax(logits: &[f32]) -> u32 {
    // Use independent lanes, which compilers turn into vector instructions.
    let mut lanes = [f32::NEG_INFINITY; 16];
    let chunks = logits.chunks_exact(16);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &v) in lanes.iter_mut().zip(chunk) {
            *lane = if v > *lane { v } else { *lane };
        }
    }
    let max = lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max);
    logits.iter().position(|&v| v == max).unwrap_or(0) as u32
}

/// Returns the `top_k` highest scores, or all scores if `top_k` is 0; in descending order if
/// `top_p` needs it.
fn best(logits: &[f32], options: &GenerateOptions) -> Vec<(f32, u32)> {
    let mut all: Vec<(f32, u32)> = logits.iter().zip(0u32..).map(|(&v, id)| (v, id)).collect();
    let order = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
    if options.top_k > 0 && options.top_k < all.len() {
        all.select_nth_unstable_by(options.top_k - 1, order);
        all.truncate(options.top_k);
    }
    all.sort_unstable_by(order);
    all
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn frequencies(options: &GenerateOptions, logits: &[f32], draws: usize) -> Vec<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let mut counts = vec![0.0; logits.len()];
        for _ in 0..draws {
            counts[next_token(&mut logits.to_vec(), &[], options, &mut rng) as usize] +=
                1.0 / draws as f64;
        }
        counts
    }

    fn options() -> GenerateOptions {
        GenerateOptions { temperature: 1.0, ..Default::default() }
    }

    #[test]
    fn draws_follow_the_softmax() {
        let p = [0.1f32, 0.6, 0.3];
        let logits = p.map(f32::ln);
        let got = frequencies(&options(), &logits, 20_000);
        for (got, p) in got.iter().zip(p) {
            assert!((got - f64::from(p)).abs() < 0.02, "{got} {p}");
        }
        let cold = GenerateOptions { temperature: 0.5, ..options() };
        // Temperature 0.5 squares the probabilities and normalises them again.
        let got = frequencies(&cold, &logits, 20_000);
        assert!((got[1] - 0.36 / 0.46).abs() < 0.02);
    }

    #[test]
    fn top_k_and_top_p_cut_the_tail() {
        let logits = [0.1f32, 0.6, 0.3].map(f32::ln);
        let k = GenerateOptions { top_k: 2, ..options() };
        let got = frequencies(&k, &logits, 5_000);
        assert!(got[0] == 0.0 && (got[1] - 2.0 / 3.0).abs() < 0.03);
        let p = GenerateOptions { top_p: 0.5, ..options() };
        assert_eq!(frequencies(&p, &logits, 100)[1].round(), 1.0);
        let p = GenerateOptions { top_p: 0.7, ..options() };
        let got = frequencies(&p, &logits, 5_000);
        assert!(got[0] == 0.0 && got[2] > 0.2);
    }

    #[test]
    fn the_penalty_moves_seen_tokens_down_once() {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        let greedy = GenerateOptions { repetition_penalty: 2.0, ..Default::default() };
        let mut logits = [3.0, 2.0, -1.0];
        assert_eq!(next_token(&mut logits, &[0, 0, 2], &greedy, &mut rng), 1);
        assert_eq!(logits, [1.5, 2.0, -2.0]);
        let ties = next_token(&mut [1.0, 5.0, 5.0], &[], &GenerateOptions::default(), &mut rng);
        assert_eq!(ties, 1);
    }
}
