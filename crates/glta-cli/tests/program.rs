//! Tests the program `glta` as a shell sees it: files, output and exit codes.

#![allow(clippy::unwrap_used)]

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn glta(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_glta")).args(arguments).output().unwrap()
}

/// Runs the program, which must succeed, and returns standard output.
fn succeeds(arguments: &[&str]) -> String {
    let output = glta(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs the program, which must fail with `code`, and returns standard error.
fn fails(code: i32, arguments: &[&str]) -> String {
    let output = glta(arguments);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
    errors
}

/// Writes pairs in which users with even ids have even items, and the others odd items.
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
fn lightgcn_writes_the_same_numbers_each_time() {
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
    // With random items, about a third would be in the lists.
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
fn an_invalid_lightgcn_command_line_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let error = fails(1, &["lightgcn", "--train", "nowhere", "--out", out]);
    assert!(error.contains("nowhere"), "{error}");
    let error = fails(1, &["lightgcn", "--train", "x", "--out", out, "--set", "layerz=2"]);
    assert!(error.contains("layerz"), "{error}");
    fails(2, &["lightgcn", "--out", out]);
}

/// Settings for a short training with `lightgcn`.
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
fn lightgcn_recognises_a_file_and_prints_its_format() {
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
fn a_missing_path_starts_no_download() {
    let folder = tempfile::tempdir().unwrap();
    for dataset in ["movielens", "amazon", "goodreads"] {
        let path = folder.path().join("ml-25m");
        let error = fails(
            1,
            &["reproduce", "--dataset", dataset, "--data", path.to_str().unwrap(), "--stats"],
        );
        assert!(error.contains("ml-25m: no such folder or file"), "{error}");
        assert!(!path.exists());
    }
    let both = ["reproduce", "--dataset", "movielens", "--data", "x", "--variant", "25m"];
    assert!(fails(2, &both).contains("--variant"));
}

#[test]
fn a_filter_that_removes_everything_is_an_error() {
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
    assert!(error.contains("--k-core 5 removes all of 2 users, 1 items and 2 inter"), "{error}");
    assert!(succeeds(&[&command[..], &["--k-core", "1"]].concat()).contains("Pens: 2 users"));
}

#[cfg(unix)]
#[test]
fn results_are_saved_when_the_output_is_closed() {
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
    // The readers are closed at once.
    let closed = || Stdio::from(std::io::pipe().unwrap().1);
    assert_eq!(run(closed(), closed()).code(), Some(0));
    for file in ["search.json", "metrics.json", "nodes.safetensors", "history.json", "metrics.svg"]
    {
        assert!(out.join(file).exists(), "{file}");
    }
    // A full disk is an error, after the files are written.
    let full = fs::OpenOptions::new().write(true).open("/dev/full");
    if let Ok(full) = full {
        fs::remove_dir_all(&out).unwrap();
        assert_eq!(run(full.into(), Stdio::null()).code(), Some(1));
        assert!(out.join("metrics.json").exists());
    }
}

#[test]
fn gptq_inspects_generates_and_quantises_and_its_errors_are_code_2() {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/llm");
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
    // The folder has no reference.
    fails(2, &["gptq", "verify", "--model", model]);
}

#[cfg(feature = "serve")]
#[test]
fn serve_rejects_invalid_models() {
    let error = fails(1, &["serve", "--model", "nowhere"]);
    assert!(error.contains("nowhere"), "{error}");
    let error = fails(1, &["serve", "--model", "nowhere", "--queue", "0"]);
    assert!(error.contains("queue") && error.contains("at least 1"), "{error}");
    fails(2, &["serve"]);
}

/// Writes orders and products of a shop with two kinds of products. The last product of each kind
/// has no orders. Returns the paths.
fn shop(folder: &Path) -> [String; 2] {
    let (orders, products) = (folder.join("orders.csv"), folder.join("products.csv"));
    let mut text = String::from("customer_id,product_id,date\n");
    for customer in 0..40 {
        for product in (0..10).filter(|p| p / 5 == customer % 2 && (p + customer) % 3 != 0) {
            let day = 1 + (customer + 3 * product) % 28;
            writeln!(text, "c{customer},00{product},2026-03-{day:02}").unwrap();
        }
    }
    fs::write(&orders, text).unwrap();
    let mut text = String::from("product_id,name,category,brand\n");
    for product in 0..12 {
        let (name, category) = match (product, product / 5) {
            (10, _) | (_, 0) => ("Green tea, loose", "Tea"),
            _ => ("Oak table, round", "Furniture"),
        };
        writeln!(text, "00{product},\"{name} {product}\",{category},B{}", product % 2).unwrap();
    }
    fs::write(&products, text).unwrap();
    [orders, products].map(|path| path.to_str().unwrap().to_owned())
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn named<'a>(list: &'a [Value], field: &str) -> Vec<&'a str> {
    list.iter().map(|line| line[field].as_str().unwrap()).collect()
}

#[test]
fn two_tables_become_a_recommender_that_answers() {
    let folder = tempfile::tempdir().unwrap();
    let [orders, products] = shop(folder.path());
    let out = folder.path().join("runs/model");
    let model = out.to_str().unwrap();
    let fit = ["fit", "--interactions", &orders, "--items", &products, "--quiet", "--out", model];
    let said = succeeds(&fit);
    assert!(said.contains("40 users, 12 items") && said.contains("ready to serve"), "{said}");
    // An existing model is not overwritten, and no unfinished folder remains.
    assert!(fails(1, &fit).contains("not an empty folder"));
    assert_eq!(fs::read_dir(folder.path().join("runs")).unwrap().count(), 1);

    let ask = |arguments: &[&str]| -> Vec<Value> {
        let [command, rest @ ..] = arguments else { panic!() };
        lines(&succeeds(&[&[command, "--model", model, "--json"], rest].concat()))
    };
    // Customer 0 has products 1, 2 and 4; the whole history is context and left out of the list.
    let list = ask(&["recommend", "--user", "c0", "-k", "3"]);
    assert_eq!(list.len(), 3);
    assert!(named(&list, "item").iter().all(|id| !["001", "002", "004"].contains(id)), "{list:?}");
    assert!(["000", "003"].contains(&named(&list, "item")[0]));
    let again = ask(&["recommend", "--user", "c0", "-k", "12", "--allow-known"]);
    assert_eq!(again.len(), 12);
    let tables = ask(&["recommend", "--user", "c0", "--filter", "category=Furniture"]);
    assert!(named(&tables, "title").iter().all(|title| title.starts_with("Oak")));
    let brand = ask(&["recommend", "--items", "001", "--filter", "brand=B1", "--exclude", "003"]);
    assert!(named(&brand, "item").iter().all(|id| id.ends_with(['5', '7', '9']) || *id == "0011"));
    let among = ask(&["recommend", "--items", "001", "--among", "007,003"]);
    assert_eq!(named(&among, "item"), ["003", "007"]);
    // A user without items gets the most popular items.
    let popular = ask(&["recommend", "-k", "2", "--filter", "category=Tea"]);
    assert_eq!(popular.len(), 2);
    // Any of the values of one field, and one of each of several fields.
    let any = ["--filter", "category=Tea", "--filter", "category=Furniture", "-k", "20"];
    let either = ask(&[&["recommend", "--items", "001", "--allow-known"], &any[..]].concat());
    assert_eq!(either.len(), 12);
    let both = ask(&[&["recommend", "--filter", "brand=B1"], &any[..]].concat());
    assert_eq!(both.len(), 6);
    // The same options for a known customer, for a list of items, and for no items.
    for who in [&["--user", "c0"][..], &["--items", "001,002"], &[]] {
        let options =
            ["--filter", "category=Furniture", "--exclude", "005", "--among", "005,006,007,001"];
        let list = ask(&[&["recommend"], who, &options].concat());
        let mut items = named(&list, "item");
        items.sort_unstable();
        assert_eq!(items, ["006", "007"], "{who:?}");
    }

    // A product without orders is similar to those of its kind.
    let similar = ask(&["similar", "--item", "0010", "-k", "4"]);
    assert!(named(&similar, "title").iter().all(|t| t.starts_with("Green")), "{similar:?}");
    let bought = ask(&["similar", "--item", "001", "--by", "people", "-k", "3"]);
    assert!(named(&bought, "title").iter().all(|t| t.starts_with("Green")), "{bought:?}");

    let why = &ask(&["explain", "--user", "c0", "--item", "003"])[0];
    let parts: f64 =
        why["items"].as_array().unwrap().iter().map(|i| i["part"].as_f64().unwrap()).sum();
    let total = why["score"].as_f64().unwrap() - why["popularity"].as_f64().unwrap();
    assert!((parts - total).abs() < 1e-4, "{why}");

    for (problem, arguments) in [
        ("similar ids are", &["recommend", "--model", model, "--user", "c100"][..]),
        ("unknown item `00x`", &["similar", "--model", model, "--item", "00x"]),
        ("brand", &["recommend", "--model", model, "--filter", "brant=B1"]),
        (
            "there is a recommender in",
            &["explain", "--model", folder.path().to_str().unwrap(), "--item", "1"],
        ),
    ] {
        let errors = fails(1, arguments);
        assert!(errors.contains(problem), "{errors}");
    }
}

/// Tests every command that prints results with a closed pipe, without standard output, and with a
/// full disk.
#[cfg(unix)]
#[test]
fn commands_succeed_when_their_output_is_closed() {
    use std::process::Stdio;

    let folder = tempfile::tempdir().unwrap();
    let [orders, products] = shop(folder.path());
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let fit = |out: &str| -> Vec<String> {
        ["fit", "--interactions", &orders, "--items", &products, "--out", out]
            .map(String::from)
            .into()
    };
    let model = path("model");
    let first: Vec<String> = fit(&model);
    succeeds(&first.iter().map(String::as_str).collect::<Vec<_>>());
    let measured = path("measured");
    let only = ["--measure", "--set", "run.only=[\"Popularity\",\"EASE\"]"].map(String::from);
    let measure = [fit(&measured), only.to_vec()].concat();
    succeeds(&measure.iter().map(String::as_str).collect::<Vec<_>>());
    let words = |text: &str| text.split(' ').map(String::from).collect::<Vec<_>>();
    let commands = [
        words(&format!("recommend --model {model} --user c0,c1,c2 --json")),
        words(&format!("recommend --model {model} --items 001")),
        words(&format!("similar --model {model} --item 001")),
        words(&format!("explain --model {model} --item 001 --user c0")),
        words(&format!("evaluate {measured}")),
        words("--help"),
        words("fit --help"),
    ];
    let glta = env!("CARGO_BIN_EXE_glta");
    let run = |arguments: &[String], stdout: Stdio, stderr: Stdio| {
        let mut command = Command::new(glta);
        command.args(arguments).stdout(stdout).stderr(stderr).status().unwrap().code()
    };
    let closed = || Stdio::from(std::io::pipe().unwrap().1);
    let full = || {
        let full = fs::OpenOptions::new().write(true).open("/dev/full");
        full.map_or_else(|_| Stdio::null(), Stdio::from)
    };
    let full_is_there = Path::new("/dev/full").exists();
    for command in &commands {
        assert_eq!(run(command, closed(), closed()), Some(0), "{command:?}");
        let without = Command::new("sh")
            .args(["-c", "exec \"$@\" >&- 2>&-", "sh", glta])
            .args(command)
            .status();
        assert_eq!(without.unwrap().code(), Some(0), "{command:?}");
        let help = command.last().unwrap() == "--help";
        if full_is_there && !help {
            assert_eq!(run(command, full(), full()), Some(1), "{command:?}");
        }
    }
    // The results are in files.
    for (nth, out) in [closed(), full()].into_iter().enumerate() {
        let (model, measured) = (path(&format!("model-{nth}")), path(&format!("measured-{nth}")));
        let code = run(&fit(&model), out, Stdio::null());
        assert_eq!(code, Some(if nth == 1 && full_is_there { 1 } else { 0 }));
        assert!(Path::new(&model).join("linear.safetensors").exists(), "{nth}");
        run(&[fit(&measured), only.to_vec()].concat(), closed(), closed());
        for file in ["metrics.json", "ndcg.svg"] {
            assert!(Path::new(&measured).join(file).exists(), "{file}");
        }
    }
}

/// Tests that help and tables fit the width of the terminal.
#[test]
fn help_and_tables_fit_eighty_columns() {
    let narrow = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_glta"))
            .args(arguments)
            .env("COLUMNS", "80")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{arguments:?}: {line}");
        }
        text
    };
    let commands = narrow(&["--help"]);
    let mut seen = 0;
    for line in commands.lines() {
        let Some(name) = line.strip_prefix("  ").and_then(|line| line.split(' ').next()) else {
            continue;
        };
        if name.is_empty() || name.starts_with('-') || name == "help" {
            continue;
        }
        seen += 1;
        let help = narrow(&[name, "--help"]);
        let groups = help.lines().filter(|line| line.ends_with(':') && !line.starts_with(' '));
        let groups: Vec<&str> = groups.filter(|line| !line.starts_with("Usage")).collect();
        // Commands with few flags have no groups.
        let flags = help.lines().filter(|line| line.trim_start().starts_with("--")).count();
        assert!(flags < 6 || groups.len() > 2, "{name}: {groups:?}");
    }
    assert!(seen >= 9, "{commands}");

    let folder = tempfile::tempdir().unwrap();
    let [orders, products] = shop(folder.path());
    let out = folder.path().join("measured");
    let (out, only) = (out.to_str().unwrap(), "run.only=[\"Popularity\",\"EASE\",\"Linear\"]");
    let fit = ["fit", "--interactions", &orders, "--items", &products, "--quiet", "--out", out];
    let table = narrow(&[&fit[..], &["--measure", "--set", only]].concat());
    for table in [table, narrow(&["evaluate", out])] {
        let rows = || table.lines().filter(|line| line.starts_with("Linear  "));
        assert!(table.contains('*') && rows().count() > 0, "{table}");
    }
}

/// Tests that Ctrl-C ends a fit, and that no files remain.
#[cfg(unix)]
#[test]
fn an_interrupted_fit_leaves_no_files() {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;

    let folder = tempfile::tempdir().unwrap();
    // Dense data with many items, where the inverse takes long.
    let mut orders = String::from("user,item\n");
    for user in 0..3000u64 {
        for n in 0..60 {
            let item = (user * 7919 + n * n * 31 + n * user) % 2500;
            writeln!(orders, "u{user},i{item}").unwrap();
        }
    }
    let path = folder.path().join("orders.csv");
    fs::write(&path, orders).unwrap();
    let runs = folder.path().join("runs");
    let mut fit = Command::new(env!("CARGO_BIN_EXE_glta"))
        .args(["fit", "--interactions", path.to_str().unwrap(), "--out"])
        .arg(runs.join("model"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Ctrl-C is sent after the data were read.
    let mut first = String::new();
    BufReader::new(fit.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.contains("3000 users"), "{first}");
    let pid = fit.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert_eq!(fit.wait().unwrap().code(), Some(130));
    let left = fs::read_dir(&runs).map_or(0, Iterator::count);
    assert_eq!(left, 0);
}

#[test]
fn own_tables_are_measured() {
    let folder = tempfile::tempdir().unwrap();
    let [orders, products] = shop(folder.path());
    let out = folder.path().join("measured");
    let table = succeeds(&[
        "fit",
        "--interactions",
        &orders,
        "--items",
        &products,
        "--text",
        "name,brand",
        "--measure",
        "--quiet",
        "--out",
        out.to_str().unwrap(),
        "--set",
        "run.only=[\"Popularity\",\"EASE\",\"text-kNN\",\"Linear\"]",
    ]);
    for system in ["Popularity", "EASE", "text-kNN", "Linear"] {
        assert!(table.contains(system), "{table}");
    }
    let metrics = fs::read_to_string(out.join("metrics.json")).unwrap();
    let metrics: Value = serde_json::from_str(&metrics).unwrap();
    assert_eq!(metrics["protocol"]["split"], "temporal");
    let missing = folder.path().join("order.csv");
    let invalid = ["fit", "--interactions", missing.to_str().unwrap(), "--out", "x"];
    let error = fails(1, &invalid);
    assert!(
        error.contains("order.csv") && error.contains("similar names are orders.csv"),
        "{error}"
    );
    let column = ["fit", "--interactions", &orders, "--user", "customer", "--out", "x"];
    let errors = fails(1, &column);
    assert!(errors.contains("customer_id"), "{errors}");
}
