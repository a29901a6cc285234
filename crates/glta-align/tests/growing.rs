//! Tests a recommender for serving: fitted on all data, queried in every way, changed and saved.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;

use glta_align::{
    Config, Error, GrowthEncoders, ItemRecord, ItemVectors, ListOptions, Person, Recommender,
    RunData, Similarity, fit_for_serving,
};
use glta_core::Silent;
use glta_data::{Dataset, Interaction, Item, Split, SplitConfig, TextConfig};
use glta_linear::{Solver, TfIdfConfig};
use ndarray::Array2;

const KINDS: [&str; 4] = ["Green tea", "Oak table", "Wool scarf", "Steel pan"];

fn item(n: usize) -> Item {
    let kind = KINDS[n % 4];
    let mut item = Item::titled(format!("p{n}"), format!("{kind} of kind {n}"));
    item.description = format!("{kind}, made for people who like a {kind} and nothing else");
    item.genres = vec![kind.to_owned()];
    item.other.insert("brand".into(), format!("B{}", n % 3));
    item
}

/// Returns data of 80 users with items of one kind. Products 40 to 47 have no interactions.
fn data() -> RunData {
    let names: Vec<(String, String)> = (0..80usize)
        .flat_map(|user| (0..40usize).map(move |item| (user, item)))
        .filter(|(user, item)| {
            user % 4 == item % 4 && (user / 4 + item / 4) % 3 != 0
                || (user * 7 + item * 3) % 41 == 0
        })
        .map(|(user, item)| (format!("u{user}"), format!("p{item}")))
        .collect();
    let interactions = names.iter().map(|(user, item)| Interaction::new(user, item));
    let items = (0..48).map(item).collect();
    let dataset = Dataset::from_interactions("shop", interactions, items).unwrap();
    let parts = SplitConfig { test_ratio: 0.0, valid_ratio: 0.2, ..SplitConfig::default() };
    let split = Split::new(&dataset, &parts).unwrap();
    RunData::new(&dataset, &split, &TextConfig::default()).unwrap()
}

fn fit(dir: &Path, vectors: &dyn Fn(&RunData) -> Vec<ItemVectors>) -> Recommender {
    let mut config = Config::default();
    config.linear.solvers = vec![Solver::Local];
    let data = data();
    let vectors = vectors(&data);
    fit_for_serving(dir, data, config, &vectors, &mut Silent).unwrap().0
}

fn words(data: &RunData) -> Vec<ItemVectors> {
    let texts: Vec<&str> = data.items.iter().map(|item| item.text.as_str()).collect();
    vec![ItemVectors::tf_idf(&texts, &TfIdfConfig::default()).unwrap()]
}

fn titles(list: &[glta_align::Recommendation<'_>]) -> Vec<String> {
    list.iter().map(|best| best.record.title.clone()).collect()
}

fn of_kind(list: &[glta_align::Recommendation<'_>], kind: &str) -> usize {
    titles(list).iter().filter(|title| title.starts_with(kind)).count()
}

#[test]
fn lists_follow_their_options() {
    let folder = tempfile::tempdir().unwrap();
    let recommender = fit(&folder.path().join("run"), &words);
    let data = data();
    let user = recommender.user("u0").unwrap();
    // Training and validation items are both in the history and in the context.
    let history = recommender.history(user).unwrap();
    assert_eq!(history.len(), data.train.items(0).len() + data.valid.items(0).len());
    assert!(!data.valid.items(0).is_empty());
    let list = recommender.recommend(user, 30).unwrap();
    assert!(list.iter().all(|best| history.binary_search(&best.item).is_err()));

    let people = [Person::User(user), Person::Items(&history), Person::Items(&[])];
    let all = ListOptions::default();
    let lists = recommender.recommend_with(&people, 5, &all).unwrap();
    assert_eq!(lists[0], lists[1]);
    let degree = |item: u32| {
        data.train.item_degrees()[item as usize] + data.valid.item_degrees()[item as usize]
    };
    assert!(lists[2].is_sorted_by(|a, b| degree(a.item) >= degree(b.item)));

    let again = recommender.recommend_with(&people, 48, &all.clone().allow_known()).unwrap();
    assert!(again.iter().all(|list| list.len() == 48));
    let kind = all.clone().filter("category", "Wool scarf").filter("brand", "B1");
    for list in recommender.recommend_with(&people, 9, &kind).unwrap() {
        assert!(!list.is_empty() && of_kind(&list, "Wool scarf") == list.len());
        assert!(list.iter().all(|best| best.record.fields["brand"] == ["B1"]));
    }
    let few = all.clone().among([1, 2, 3]).exclude([2]);
    let lists = recommender.recommend_with(&people, 9, &few).unwrap();
    assert!(lists.iter().flatten().all(|best| best.item == 1 || best.item == 3));
    for (problem, options) in [
        ("color", all.clone().filter("color", "red")),
        ("item 48", all.clone().exclude([48])),
        ("item 99", all.among([99])),
    ] {
        let error = recommender.recommend_with(&people, 3, &options).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
}

#[test]
fn similar_items_are_of_the_same_kind() {
    let folder = tempfile::tempdir().unwrap();
    fit(&folder.path().join("run"), &words);
    let recommender = Recommender::open(folder.path().join("run")).unwrap();
    let all = ListOptions::default();
    let (mut same, mut shown) = (0, 0);
    for item in 0..48u32 {
        let own = &recommender.items()[item as usize];
        let kind = KINDS.into_iter().find(|kind| own.title.starts_with(kind)).unwrap();
        let list = recommender.similar_items(item, 5, Similarity::Text, &all).unwrap();
        assert!(list.len() == 5 && list.iter().all(|best| best.item != item));
        same += of_kind(&list, kind);
        shown += list.len();
        let list = recommender.similar_items(item, 5, Similarity::CoInteractions, &all).unwrap();
        if own.raw_id[1..].parse::<u32>().unwrap() < 40 {
            assert!(of_kind(&list, kind) >= 4, "{:?}", titles(&list));
        } else {
            assert!(list.is_empty());
        }
    }
    assert!(same * 100 >= shown * 95, "{same} of {shown}");
}

#[test]
fn explanations_add_up() {
    let folder = tempfile::tempdir().unwrap();
    let recommender = fit(&folder.path().join("run"), &words);
    let user = recommender.user("u5").unwrap();
    let best = recommender.recommend(user, 1).unwrap()[0].item;
    let why = recommender.explain(Person::User(user), best).unwrap();
    assert_eq!(why.items.len(), recommender.history(user).unwrap().len());
    let sum: f32 = why.items.iter().map(|(_, part)| part).sum();
    assert!((sum + why.popularity - why.score).abs() < 1e-4);
    // The largest contribution is of the same kind.
    let kind = |item: u32| recommender.items()[item as usize].fields["genres"].clone();
    assert_eq!(kind(why.items[0].0), kind(best));
    assert!(recommender.explain(Person::User(user), 48).is_err());
}

#[test]
fn texts_of_new_items_follow_the_rule_of_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, copy) = (folder.path().join("run"), folder.path().join("copy"));
    let rule = TextConfig {
        fields: vec!["brand".into(), "title".into()],
        separator: " | ".into(),
        ..TextConfig::default()
    };
    let mut data = data();
    for (record, n) in data.items.iter_mut().zip(0..) {
        record.text = rule.text(&item(n));
    }
    data.texts = rule;
    let vectors = words(&data);
    let fitted = fit_for_serving(&dir, data, Config::default(), &vectors, &mut Silent);
    drop(fitted.unwrap());
    let mut recommender = Recommender::open(&dir).unwrap();
    recommender.grow(GrowthEncoders::default()).unwrap();
    recommender.add_items(&[item(100)]).unwrap();
    assert_eq!(recommender.items()[48].text, "B1 | Green tea of kind 100");
    recommender.replace_item(&item(3)).unwrap();
    assert_eq!(recommender.items()[3].text, "B0 | Steel pan of kind 3");
    // A saved copy applies the same rule.
    recommender.save(&copy).unwrap();
    let mut again = Recommender::open(&copy).unwrap();
    again.grow(GrowthEncoders::default()).unwrap();
    again.add_items(&[item(101)]).unwrap();
    assert_eq!(again.items()[49].text, "B2 | Oak table of kind 101");
}

#[test]
fn a_recommender_grows_forgets_users_and_is_saved() {
    let folder = tempfile::tempdir().unwrap();
    let mut recommender = fit(&folder.path().join("run"), &words);
    assert!(matches!(recommender.fold(), Err(Error::Unsupported(_))));
    let before = recommender.recommend(3, 5).unwrap().len();
    recommender.grow(GrowthEncoders::default()).unwrap();
    assert_eq!(recommender.recommend(3, 5).unwrap().len(), before);

    // A new product is recommended to users of its kind, and is similar to its kind.
    let new = recommender.add_items(&[item(100), item(101)]).unwrap();
    assert_eq!((new.clone(), recommender.item("p100")), (48..50, Some(48)));
    let all = ListOptions::default();
    let alone = recommender.recommend_with(&[Person::Items(&[48])], 5, &all).unwrap();
    assert!(of_kind(&alone[0], "Green tea") >= 4, "{:?}", titles(&alone[0]));
    let similar = recommender.similar_items(49, 5, Similarity::Text, &all).unwrap();
    assert_eq!(of_kind(&similar, "Oak table"), 5);
    let twice = recommender.add_items(&[item(3)]).unwrap_err().to_string();
    assert!(twice.contains("p3"), "{twice}");

    // A new user, and a product without a text.
    let pairs = [("new", "p100"), ("new", "p4"), ("u8", "p100"), ("new", "mystery")];
    recommender.add_interactions(&pairs).unwrap();
    let person = recommender.user("new").unwrap();
    let bought = recommender.item("p4").unwrap();
    assert_eq!(recommender.history(person).unwrap(), [bought, 48, 50]);
    let list = recommender.recommend(person, 5).unwrap();
    assert!(of_kind(&list, "Green tea") >= 3 && list.iter().all(|b| b.item != 48));
    assert!(recommender.fold().unwrap() > 1);

    assert!(recommender.forget_user("u9").unwrap());
    assert!(!recommender.forget_user("u9").unwrap());
    assert_eq!(recommender.user("u9"), None);
    assert!(recommender.users().iter().all(|name| name != "u9"));

    let saved = folder.path().join("grown");
    recommender.save(&saved).unwrap();
    assert!(matches!(recommender.save(&saved), Err(Error::RunExists { .. })));
    let opened = Recommender::open(&saved).unwrap();
    for user in 0..opened.users().len() as u32 {
        let lists = [&opened, &recommender].map(|r| {
            let list = r.recommend(user, 5).unwrap();
            list.iter().map(|best| (best.item, best.score.to_bits())).collect::<Vec<_>>()
        });
        assert_eq!(lists[0], lists[1], "user {user}");
    }
    for file in ["users.jsonl", "items.jsonl", "history.json"] {
        let text = std::fs::read_to_string(saved.join(file)).unwrap();
        assert!(!text.contains("\"u9\""), "{file}");
    }
    let mut again = opened;
    again.grow(GrowthEncoders::default()).unwrap();
    again.add_items(&[item(102)]).unwrap();
    assert_eq!(again.item("p102"), Some(51));
}

/// Checks that a user with only a new item gets its neighbours, not the most popular items.
#[test]
fn a_new_item_is_recommended_with_its_neighbours() {
    let folder = tempfile::tempdir().unwrap();
    let mut recommender = fit(&folder.path().join("run"), &words);
    recommender.grow(GrowthEncoders::default()).unwrap();
    // The kind of one of the two items is not the most popular one.
    recommender.add_items(&[item(102), item(103)]).unwrap();
    recommender.add_interactions(&[("scarf", "p102"), ("pan", "p103")]).unwrap();
    let popular = recommender.recommend_with(&[Person::Items(&[])], 5, &ListOptions::default());
    let popular = titles(&popular.unwrap()[0]);
    for (name, kind) in [("scarf", "Wool scarf"), ("pan", "Steel pan")] {
        let user = recommender.user(name).unwrap();
        // The first round is before the interaction is folded, the second one after.
        for _ in 0..2 {
            let list = recommender.recommend(user, 5).unwrap();
            assert!(of_kind(&list, kind) >= 4, "{name}: {:?}", titles(&list));
            assert_ne!(titles(&list), popular);
            recommender.fold().unwrap();
        }
    }
}

/// Checks that the files of a saved folder do not contain a forgotten user.
#[test]
fn a_forgotten_user_is_in_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let mut recommender = fit(&run, &words);
    recommender.grow(GrowthEncoders::default()).unwrap();
    let person = "customer-93c1-of-amsterdam";
    recommender.add_interactions(&[(person, "p1"), (person, "p6"), ("u4", "p6")]).unwrap();
    recommender.fold().unwrap();
    let saved = |recommender: &Recommender, name: &str| {
        let saved = folder.path().join(name);
        recommender.save(&saved).unwrap();
        std::fs::read_dir(saved)
            .unwrap()
            .map(|file| file.unwrap().path())
            .map(|path| (path.file_name().unwrap().to_owned(), std::fs::read(path).unwrap()))
            .collect::<Vec<_>>()
    };
    let holds = |bytes: &[u8]| bytes.windows(person.len()).any(|part| part == person.as_bytes());
    let before = saved(&recommender, "before");
    assert!(before.iter().any(|(_, bytes)| holds(bytes)));
    let user = recommender.user(person).unwrap();
    let degree = |recommender: &Recommender| {
        let people =
            &recommender.similar_items(6, 48, Similarity::CoInteractions, &ListOptions::default());
        people.as_ref().unwrap().len()
    };
    let paired = degree(&recommender);
    assert!(recommender.forget_user(person).unwrap());
    assert!(recommender.history(user).unwrap().is_empty());
    assert!(degree(&recommender) <= paired);
    let after = saved(&recommender, "after");
    assert!(after.len() >= 7);
    for (name, bytes) in &after {
        assert!(!holds(bytes), "{name:?}");
    }
    // The saved model equals one that never had the user: the model of the run with only the
    // interaction of the other user.
    let mut other = Recommender::open(&run).unwrap();
    other.grow(GrowthEncoders::default()).unwrap();
    other.add_interactions(&[("u4", "p6")]).unwrap();
    other.fold().unwrap();
    let opened = Recommender::open(folder.path().join("after")).unwrap();
    for user in 0..80 {
        let lists = [&opened, &other].map(|r| r.recommend(user, 5).unwrap());
        for (a, b) in lists[0].iter().zip(&lists[1]) {
            assert!((a.score - b.score).abs() < 1e-3, "user {user}: {a:?} {b:?}");
        }
    }
}

/// Checks that answers do not need the files for growing, and that `grow` names a missing file.
#[test]
fn answers_do_not_need_the_files_for_growing() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let fitted = fit(&run, &words);
    let lists = |recommender: &Recommender| -> Vec<Vec<(u32, u32)>> {
        let users: Vec<u32> = (0..80).collect();
        let lists = recommender.recommend_batch(&users, 5).unwrap();
        let of = |list: &Vec<glta_align::Recommendation<'_>>| {
            list.iter().map(|best| (best.item, best.score.to_bits())).collect()
        };
        lists.iter().map(of).collect()
    };
    let expected = lists(&fitted);
    drop(fitted);
    let files = [
        "text_vectors.safetensors",
        "text_encoders.json",
        "tf_idf.safetensors",
        "whitening-0.safetensors",
    ];
    let missing = |name: &str| {
        let error = Recommender::open(&run).unwrap().grow(GrowthEncoders::default());
        let error = error.unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("cannot grow"), "{error}");
    };
    for name in files {
        let away = folder.path().join(name);
        std::fs::rename(run.join(name), &away).unwrap();
        missing(name);
        std::fs::rename(&away, run.join(name)).unwrap();
    }
    Recommender::open(&run).unwrap().grow(GrowthEncoders::default()).unwrap();
    files.iter().for_each(|name| std::fs::remove_file(run.join(name)).unwrap());
    missing(files[0]);
    let mut opened = Recommender::open(&run).unwrap();
    assert_eq!(lists(&opened), expected);
    assert!(opened.grow(GrowthEncoders::default()).is_err());
    assert_eq!(lists(&opened), expected);
    assert!(matches!(opened.add_items(&[item(100)]), Err(Error::Unsupported(_))));
}

#[test]
fn given_vectors_cannot_encode_new_items() {
    let folder = tempfile::tempdir().unwrap();
    let given = |data: &RunData| {
        let vectors = Array2::from_shape_fn((data.items.len(), 6), |(item, c)| {
            ((item * 5 + c * 3) % 7) as f32 + if item % 4 == c { 5.0 } else { 0.0 }
        });
        vec![ItemVectors::new("bought.npy", vectors)]
    };
    let mut recommender = fit(&folder.path().join("run"), &given);
    recommender.grow(GrowthEncoders::default()).unwrap();
    let error = recommender.add_items(&[item(100)]).unwrap_err().to_string();
    assert!(error.contains("bought.npy"), "{error}");
    assert_eq!(recommender.item("p100"), None);
    let fields: BTreeMap<String, Vec<String>> = BTreeMap::new();
    assert_eq!(ItemRecord::bare("x").fields, fields);
}
