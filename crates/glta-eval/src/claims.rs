//! Checks the claims of the paper against the rows of a record.

use serde::Serialize;

use crate::Result;
use crate::compare::Comparison;
use crate::paper::Printed;
use crate::record::Record;

/// Significance level of the paired t-tests.
pub(crate) const LEVEL: f64 = 0.05;

/// A claim of the paper: `system` has a higher `metric` than `against`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Claim {
    pub(crate) claim: String,
    pub(crate) system: &'static str,
    pub(crate) against: &'static str,
    pub(crate) metric: &'static str,
    /// The difference according to the paper's table or figure.
    pub(crate) paper: f64,
    /// The measured difference; `None` if one of the rows is missing.
    pub(crate) found: Option<Comparison>,
}

/// The verdict on a claim, from the paired t-test between its two systems.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Yes,
    No,
    Undecided,
    NotRun,
}

impl Claim {
    pub(crate) fn answer(&self) -> Answer {
        match &self.found {
            None => Answer::NotRun,
            Some(found) if found.p_value >= LEVEL => Answer::Undecided,
            Some(found) if found.difference > 0.0 => Answer::Yes,
            Some(found) if found.difference < 0.0 => Answer::No,
            Some(_) => Answer::Undecided,
        }
    }
}

impl Answer {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Undecided => "undecided",
            Self::NotRun => "not run",
        }
    }
}

/// Returns the claims of the paper, each with the measured comparison of its two systems. `whole`
/// is the name of the row of the paper's complete form.
pub(crate) fn check(record: &Record, whole: &'static str, printed: &Printed) -> Result<Vec<Claim>> {
    let mut claims = claims(whole, printed);
    for claim in &mut claims {
        let compared = record.compare(claim.system, claim.against, &[claim.metric.to_owned()])?;
        claim.found = compared.into_iter().next();
    }
    Ok(claims)
}

fn claims(whole: &'static str, printed: &Printed) -> Vec<Claim> {
    let claim = |claim: &str, system, against, metric, paper| Claim {
        claim: claim.to_owned(),
        system,
        against,
        metric,
        paper,
        found: None,
    };
    let glta = printed.systems.iter().find(|(name, _)| *name == "GLTA").map(|(_, values)| values);
    let mut all = Vec::new();
    for (name, values) in printed.systems.iter().filter(|(name, _)| *name != "GLTA") {
        if let Some(glta) = glta {
            let sentence = format!("GLTA is better than {name}");
            all.push(claim(&sentence, whole, name, "N@10", glta[3] - values[3]));
        }
    }
    let [without_ia, without_ua, aligned] = printed.alignment;
    let [neither, without_pf, without_pd, both] = printed.texts.map(|[_, ndcg]| ndcg);
    let [ar, fl, slots] = printed.decoders;
    all.extend([
        claim("item-text alignment helps", whole, "GLTA w/o IA", "P@10", aligned - without_ia),
        claim("user-item alignment helps", whole, "GLTA w/o UA", "P@10", aligned - without_ua),
        claim("the profile helps", whole, "GLTA w/o PF", "N@5", both - without_pf),
        claim("the prediction helps", whole, "GLTA w/o PD", "N@5", both - without_pd),
        claim("profile and prediction help", whole, "GLTA w/o both", "N@5", both - neither),
        claim("slots are better than AR", whole, "GLTA AR", "N@10", slots - ar),
        claim("FL is better than AR", "GLTA FL", "GLTA AR", "N@10", fl - ar),
        claim("slots are better than FL", whole, "GLTA FL", "N@10", slots - fl),
    ]);
    all
}

#[cfg(test)]
mod tests {
    use glta_align::{Density, Preset};
    use glta_data::{Dataset, ShopConfig};

    use super::*;
    use crate::paper::{AMAZON, MOVIELENS};
    use crate::users::{UserResult, path, save};
    use crate::{Experiment, ExperimentConfig, Row};

    /// Writes rows with known N@10 per user, and checks the claims and the report.
    #[test]
    fn a_report_has_the_answers() {
        let shop = Dataset::shop(&ShopConfig { users: 40, items: 50, ..ShopConfig::default() });
        let mut config = ExperimentConfig::new(Preset::Full, Density::Sparse);
        config.run.only = vec!["Popularity".into()];
        let folder = tempfile::tempdir().unwrap();
        let mut record = Experiment::new(&shop.unwrap(), folder.path(), config).run().unwrap();
        // "GLTA AR" is worse than "GLTA complete" for every user, "GLTA FL" is worse for half of
        // them.
        for (system, gain) in
            [("GLTA complete", [0.0, 0.0]), ("GLTA AR", [-0.2, -0.1]), ("GLTA FL", [-0.3, 0.3])]
        {
            for seed in [1, 2] {
                let result = |user: usize| UserResult {
                    user: format!("user {user}"),
                    recommended: Vec::new(),
                    test: Vec::new(),
                    metrics: [("N@10".to_owned(), 0.5 + gain[user % 2])].into(),
                };
                let results: Vec<UserResult> = (0..20).map(result).collect();
                save(&path(folder.path(), system, seed), &results).unwrap();
                record.rows.push(Row { system: system.into(), seed, ..Row::default() });
            }
        }
        let claims = check(&record, "GLTA complete", &AMAZON).unwrap();
        let answer = |system: &str, against: &str| {
            let claim = claims.iter().find(|c| c.system == system && c.against == against);
            claim
                .map(|claim| (claim.answer(), claim.found.as_ref().map_or(0, |f| f.seeds)))
                .unwrap()
        };
        assert_eq!(answer("GLTA complete", "GLTA AR"), (Answer::Yes, 2));
        assert_eq!(answer("GLTA complete", "GLTA FL"), (Answer::Undecided, 2));
        assert_eq!(answer("GLTA complete", "LightGCN"), (Answer::NotRun, 0));

        record.rows.retain(|row| row.system.starts_with("GLTA"));
        let epochs = [(3.25, None), (2.5, Some(0.1)), (2.0, Some(0.3)), (1.5, Some(0.3))];
        record.rows[0].curve = Some(crate::Curve::of(epochs));
        save(&path(folder.path(), "GLTA", 1), &[]).unwrap();
        let report = record.paper_report(&AMAZON).unwrap();
        let line = |claim: &str| report.lines().find(|l| l.contains(claim)).unwrap().to_owned();
        assert!(line("slots are better than AR").contains("| +0.0292 | +0.1500 |"), "{report}");
        assert!(line("slots are better than AR").ends_with("| 2 | yes |"), "{report}");
        assert!(line("the profile helps").ends_with("| - | - | - | 0 | not run |"), "{report}");
        let json = std::fs::read_to_string(folder.path().join("report.json")).unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["claims"].as_array().unwrap().len(), 14);
        let learned = "| GLTA complete | 1 | 3.250 | 1.500 | .1000 (2) | .3000 (3) | .3000 (4) |";
        assert!(report.contains(learned), "{report}");
        assert_eq!(json["curves"][0]["validation"][1], serde_json::json!([3, 0.3]));
    }

    #[test]
    fn differences_are_those_of_the_paper() {
        let claims = claims("GLTA complete", &MOVIELENS);
        assert_eq!(claims.len(), 14);
        let paper = |against: &str| {
            let of = claims.iter().filter(|c| c.system == "GLTA complete");
            of.clone().find(|c| c.against == against).map(|c| c.paper).unwrap()
        };
        for (against, expected) in [
            ("RLMRec-Con", 0.1403 - 0.0492),
            ("GLTA w/o IA", 0.0821 - 0.0550),
            ("GLTA w/o UA", 0.0821 - 0.0647),
            ("GLTA w/o PD", 0.1162 - 0.0761),
            ("GLTA w/o both", 0.1162 - 0.0658),
            ("GLTA AR", 0.1403 - 0.0328),
        ] {
            assert!((paper(against) - expected).abs() < 1e-12, "{against}");
        }
        // On MovieLens the paper's own figures contradict the claim.
        assert!(paper("GLTA FL") < 0.0);
        let amazon = super::claims("GLTA paper", &AMAZON);
        assert!(amazon.iter().all(|claim| claim.paper > 0.0));
    }

    #[test]
    fn small_differences_answer_nothing() {
        let claim = |difference, p_value| Claim {
            found: Some(Comparison {
                system: "a".into(),
                against: "b".into(),
                metric: "N@10".into(),
                difference,
                standard_error: 0.01,
                p_value,
                pairs: 9,
                seeds: 1,
            }),
            ..claims("GLTA complete", &AMAZON).remove(0)
        };
        assert_eq!(claim(0.1, 0.01).answer(), Answer::Yes);
        assert_eq!(claim(-0.1, 0.01).answer(), Answer::No);
        assert_eq!(claim(0.1, 0.06).answer(), Answer::Undecided);
        assert_eq!(claim(0.0, 1.0).answer(), Answer::Undecided);
        assert_eq!(claims("GLTA complete", &AMAZON)[0].answer(), Answer::NotRun);
    }
}
