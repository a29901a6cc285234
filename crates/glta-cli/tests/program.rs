//! The program `glta` as a shell sees it: files, output and exit codes.

#![allow(clippy::unwrap_used)]

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn glta(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_glta")).args(arguments).output().unwrap()
}

/// Runs it and returns standard output.
fn succeeds(arguments: &[&str]) -> String {
    let output = glta(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs it and returns standard error.
fn fails(code: i32, arguments: &[&str]) -> String {
    let output = glta(arguments);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
    errors
}

/// Even users have even items, odd users odd ones.
fn pairs(folder: &Path) -> String {
    let mut text = String::new();
    for user in 0..40 {
        for item in (0..30).filter(|item| item % 2 == user % 2 && (item + user / 2) % 5 != 0) {
            writeln!(text, "{user} {item}").unwrap();
        }
    }
    let path = folder.join("pairs.txt");
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn lightgcn_leaves_the_same_numbers_each_time() {
    let folder = tempfile::tempdir().unwrap();
    let train = pairs(folder.path());
    let run = |name: &str| {
        let out = folder.path().join(name);
        let table = succeeds(&[
            "lightgcn",
            "--layout",
            "pairs",
            "--train",
            &train,
            "--out",
            out.to_str().unwrap(),
            "--set",
            "epochs=10",
            "--set",
            "dim=8",
            "--set",
            "learning_rate=0.05",
            "--seed",
            "1,2",
            "--quiet",
        ]);
        assert!(table.contains("40 users, 30 items"), "{table}");
        assert!(table.contains("seed 1") && table.contains("deviation"), "{table}");
        for file in ["nodes.safetensors", "layer0.safetensors", "history.json", "metrics.svg"] {
            assert!(out.join("seed-2").join(file).exists(), "{file}");
        }
        let record: Value =
            serde_json::from_slice(&fs::read(out.join("metrics.json")).unwrap()).unwrap();
        let rows = record["rows"].as_array().unwrap();
        rows.iter().map(|row| row["N@10"].as_f64().unwrap()).collect::<Vec<_>>()
    };
    let numbers = run("one");
    assert_eq!(numbers.len(), 2);
    // Items at random would have about a third of them.
    assert!(numbers.iter().all(|n| *n > 0.5), "{numbers:?}");
    assert_eq!(run("two"), numbers);
}

#[test]
fn lightgcn_searches_a_grid_on_validation_data() {
    let folder = tempfile::tempdir().unwrap();
    let train = pairs(folder.path());
    let (grid, out) = (folder.path().join("grid.toml"), folder.path().join("out"));
    fs::write(&grid, "l2 = [0.0001, 0.1]\n").unwrap();
    let search = [
        "lightgcn",
        "--layout",
        "pairs",
        "--train",
        &train,
        "--out",
        out.to_str().unwrap(),
        "--search",
        grid.to_str().unwrap(),
        "--set",
        "epochs=5",
        "--set",
        "dim=8",
        "--quiet",
    ];
    assert!(succeeds(&search).contains("l2=0.1"));
    let trials: Value =
        serde_json::from_slice(&fs::read(out.join("search.json")).unwrap()).unwrap();
    assert_eq!(trials.as_array().unwrap().len(), 2);
    let error = fails(1, &[&search[..], &["--valid-ratio", "0"]].concat());
    assert!(error.contains("--valid-ratio"), "{error}");
}

#[test]
fn a_wrong_lightgcn_command_line_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let error = fails(1, &["lightgcn", "--train", "nowhere", "--out", out]);
    assert!(error.contains("nowhere"), "{error}");
    let error = fails(1, &["lightgcn", "--train", "x", "--out", out, "--set", "layerz=2"]);
    assert!(error.contains("layerz"), "{error}");
    fails(2, &["lightgcn", "--out", out]);
}

/// Quick settings of `lightgcn`.
const QUICK: [&str; 5] = ["--set", "epochs=2", "--set", "dim=8", "--quiet"];

/// Runs `lightgcn` on a file and returns standard output, standard error and `metrics.json`.
fn lightgcn(train: &Path, flags: &[&str]) -> (String, String, Value) {
    let out = train.with_extension("out");
    let command = ["lightgcn", "--train", train.to_str().unwrap(), "--out", out.to_str().unwrap()];
    let output = glta(&[&command[..], &QUICK, flags].concat());
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{errors}");
    let record = serde_json::from_slice(&fs::read(out.join("metrics.json")).unwrap()).unwrap();
    (String::from_utf8(output.stdout).unwrap(), errors, record)
}

#[test]
fn lightgcn_recognises_a_file_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let pairs = fs::read_to_string(pairs(folder.path())).unwrap();
    let path = folder.path().join("orders.csv");
    let rows = pairs.replace(' ', ";") + "7;null\n";
    fs::write(&path, format!("customer;product\n{rows}")).unwrap();
    let arguments =
        ["lightgcn", "--train", path.to_str().unwrap(), "--out", folder.path().to_str().unwrap()];
    let error = fails(1, &arguments);
    assert!(error.contains("orders.csv, line ") && error.contains("--missing-ids drop"), "{error}");
    let (table, said, record) = lightgcn(&path, &["--missing-ids", "drop"]);
    assert!(table.contains("orders: 40 users, 30 items"), "{table}");
    assert!(said.contains("user `customer` and item `product`, semicolon-separated"), "{said}");
    assert!(said.contains("warning: orders.csv: 1 of "), "{said}");
    assert_eq!(record["data"]["notes"][0]["kind"], "rows_without_id");
    let named = ["--missing-ids", "drop", "--columns", "user=product,item=1", "--header", "yes"];
    let (table, ..) = lightgcn(&path, &named);
    assert!(table.contains("orders: 30 users, 40 items"), "{table}");
}

#[test]
fn a_path_that_is_not_there_is_no_download() {
    let folder = tempfile::tempdir().unwrap();
    for dataset in ["movielens", "amazon", "goodreads"] {
        let path = folder.path().join("ml-25m");
        let error = fails(
            1,
            &["reproduce", "--dataset", dataset, "--data", path.to_str().unwrap(), "--stats"],
        );
        assert!(error.contains("ml-25m: there is no such folder"), "{error}");
        assert!(!path.exists());
    }
    let both = ["reproduce", "--dataset", "movielens", "--data", "x", "--variant", "25m"];
    assert!(fails(2, &both).contains("--variant"));
}

#[test]
fn a_filter_that_leaves_nothing_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let reviews =
        "{\"reviewerID\": \"A\", \"asin\": \"1\"}\n{\"reviewerID\": \"B\", \"asin\": \"1\"}\n";
    fs::write(folder.path().join("Pens.json"), reviews).unwrap();
    fs::write(folder.path().join("meta_Pens.json"), "{\"asin\": \"1\", \"title\": \"x\"}\n")
        .unwrap();
    let data = folder.path().to_str().unwrap();
    let out = folder.path().join("out");
    let command = ["reproduce", "--dataset", "amazon", "--data", data, "--stats", "--out"];
    let command = [&command[..], &[out.to_str().unwrap()]].concat();
    let error = fails(1, &command);
    assert!(error.contains("--k-core 5 leaves nothing of 2 users, 1 items and 2 inter"), "{error}");
    assert!(succeeds(&[&command[..], &["--k-core", "1"]].concat()).contains("Pens: 2 users"));
}

#[cfg(unix)]
#[test]
fn what_was_computed_is_kept_when_nobody_reads_the_output() {
    use std::process::Stdio;

    let folder = tempfile::tempdir().unwrap();
    let train = pairs(folder.path());
    let (grid, out) = (folder.path().join("grid.toml"), folder.path().join("out"));
    fs::write(&grid, "l2 = [0.0001, 0.1]\n").unwrap();
    let run = |stdout: Stdio, stderr: Stdio| {
        let command = ["lightgcn", "--train", &train, "--out", out.to_str().unwrap()];
        let search = ["--search", grid.to_str().unwrap()];
        Command::new(env!("CARGO_BIN_EXE_glta"))
            .args([&command[..], &QUICK, &search].concat())
            .stdout(stdout)
            .stderr(stderr)
            .status()
            .unwrap()
    };
    // The reading ends are closed at once.
    let closed = || Stdio::from(std::io::pipe().unwrap().1);
    assert_eq!(run(closed(), closed()).code(), Some(0));
    for file in ["search.json", "metrics.json", "nodes.safetensors", "history.json", "metrics.svg"]
    {
        assert!(out.join(file).exists(), "{file}");
    }
    // A disk that is full is an error, after the files.
    let full = fs::OpenOptions::new().write(true).open("/dev/full");
    if let Ok(full) = full {
        fs::remove_dir_all(&out).unwrap();
        assert_eq!(run(full.into(), Stdio::null()).code(), Some(1));
        assert!(out.join("metrics.json").exists());
    }
}

#[test]
fn gptq_inspects_generates_and_quantises_and_its_errors_are_code_2() {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/quickstart/llm");
    let folder = tempfile::tempdir().unwrap();
    assert!(succeeds(&["gptq", "inspect", "--model", model]).contains("MB in memory"));

    let text = folder.path().join("text");
    fs::write(&text, "A customer has: a teapot, a mug. ".repeat(40)).unwrap();
    let again = folder.path().join("again");
    let again = again.to_str().unwrap();
    let wrote = succeeds(&[
        "gptq",
        "quantize",
        "--model",
        model,
        "--bits",
        "8",
        "--group-size",
        "32",
        "--calibration",
        text.to_str().unwrap(),
        "--sequence-length",
        "32",
        "--sequences",
        "4",
        "--out",
        again,
        "--quiet",
    ]);
    assert!(wrote.contains("(4 texts of 32 tokens)"), "{wrote}");
    let prompt = ["--prompt", "A customer has", "--max-new-tokens", "4", "--quiet"];
    for model in [model, again] {
        let text = succeeds(&[&["gptq", "generate", "--model", model][..], &prompt[..]].concat());
        assert!(text.starts_with("A customer has") && text.len() > 16, "{text}");
    }

    assert!(fails(2, &["gptq", "inspect", "--model", "nowhere"]).contains("nowhere"));
    // There is no reference in its folder.
    fails(2, &["gptq", "verify", "--model", model]);
}

#[cfg(feature = "serve")]
#[test]
fn serve_refuses_what_cannot_be_served() {
    let error = fails(1, &["serve", "--model", "nowhere"]);
    assert!(error.contains("nowhere"), "{error}");
    let error = fails(1, &["serve", "--model", "nowhere", "--queue", "0"]);
    assert!(error.contains("queue") && error.contains("at least 1"), "{error}");
    fails(2, &["serve"]);
}
