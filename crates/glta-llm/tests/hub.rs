//! Tests complete and interrupted downloads from a hub on the loopback interface.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/hub.rs"]
mod server;
mod support;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use candle_core::Device;
use glta_llm::hub::{HubEvent, HubOptions, download, download_with};
use glta_llm::{Error, Llama, LlamaOptions};
use tempfile::TempDir;

use server::{ID, Reply, Request, Server, TOKEN, sha256};
use support::Spec;

const MAIN: &str = "1111111111111111111111111111111111111111";
const OTHER: &str = "2222222222222222222222222222222222222222";

type Files = BTreeMap<String, Vec<u8>>;

/// Returns a tiny GPTQ checkpoint in one file.
fn single(seed: u64) -> Files {
    let spec = Spec { seed, ..Spec::default() };
    let (tensors, _) = support::tensors(&spec);
    let mut files = Files::new();
    files.insert("config.json".into(), support::plain_config(&spec).to_string().into_bytes());
    let quantization = &support::quantized_config(&spec)["quantization_config"];
    files.insert("quantize_config.json".into(), quantization.to_string().into_bytes());
    files.insert("model.safetensors".into(), support::serialize(&tensors));
    files.insert("tokenizer.json".into(), b"{\"version\": \"1.0\"}".to_vec());
    files.insert("generation_config.json".into(), b"{}".to_vec());
    for unwanted in ["README.md", "pytorch_model.bin", "other.safetensors", "onnx/config.json"] {
        files.insert(unwanted.into(), b"not to be fetched".to_vec());
    }
    files
}

/// Returns the same checkpoint in two shards.
fn sharded() -> Files {
    let mut files = single(1);
    files.remove("model.safetensors");
    let (mut first, _) = support::tensors(&Spec { seed: 1, ..Spec::default() });
    let second = first.split_off("model.layers.1");
    let mut map = serde_json::Map::new();
    for (name, tensors) in [("a 1.safetensors", first), ("b.safetensors", second)] {
        map.extend(tensors.keys().map(|tensor| (tensor.clone(), name.into())));
        files.insert(name.into(), support::serialize(&tensors));
    }
    let index = serde_json::json!({"weight_map": map}).to_string();
    files.insert("model.safetensors.index.json".into(), index.into_bytes());
    files
}

fn write(files: &Files) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files.iter().filter(|(name, _)| !name.contains('/')) {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    dir
}

/// A hub with one revision and an empty cache.
struct Scene {
    server: Server,
    files: Files,
    options: HubOptions,
    cache: TempDir,
}

impl Scene {
    fn new(files: Files) -> Self {
        let server = Server::start(vec![("main".into(), MAIN.into(), files.clone())]);
        let cache = tempfile::tempdir().unwrap();
        let mut options = HubOptions::new(cache.path());
        options.endpoint = server.endpoint();
        options.timeout = Duration::from_secs(5);
        Self { server, files, options, cache }
    }

    fn get(&self) -> Result<PathBuf, Error> {
        self.revision("main")
    }

    fn revision(&self, revision: &str) -> Result<PathBuf, Error> {
        download(ID, revision, &self.options)
    }

    fn error(&self) -> String {
        self.get().unwrap_err().to_string()
    }

    fn repo(&self) -> PathBuf {
        self.cache.path().join("models--owner--tiny")
    }

    /// Checks that the snapshot contains complete files only.
    fn check_snapshot(&self) {
        let Ok(entries) = std::fs::read_dir(self.repo().join("snapshots").join(MAIN)) else {
            return;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(std::fs::read(&path).unwrap() == self.files[name], "{name}");
        }
    }

    fn check_complete(&self, dir: &Path, names: &[&str]) {
        self.check_snapshot();
        let mut found: Vec<String> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        found.sort();
        assert_eq!(found, names);
        let left = std::fs::read_dir(self.repo().join("blobs")).unwrap().flatten();
        for entry in left {
            assert!(!entry.file_name().to_string_lossy().contains('.'), "{entry:?}");
        }
    }
}

const SINGLE: [&str; 5] = [
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "quantize_config.json",
    "tokenizer.json",
];

fn load(dir: &Path) -> Llama {
    Llama::load(dir, &LlamaOptions::default(), &Device::Cpu).unwrap()
}

fn logits(llama: &Llama) -> Vec<f32> {
    let x = llama.embed(&[1, 5, 9]).unwrap().unsqueeze(0).unwrap();
    let hidden = llama.hidden_states(&x, &[3], &Default::default()).unwrap();
    llama.logits(&hidden.squeeze(0).unwrap()).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn is_weights(request: &Request) -> bool {
    request.cdn && request.method == "GET"
}

/// Interrupts the download of the weights once, after `bytes`, and rejects later requests for them.
fn cut_once(server: &Server, bytes: usize) {
    let mut cut = false;
    server.fault(move |request, reply| match is_weights(request) {
        true if cut => Reply::new(503),
        true => {
            cut = true;
            reply.cut(bytes)
        }
        false => reply,
    });
}

#[test]
fn a_checkpoint_is_fetched_once_and_then_cached() {
    let scene = Scene::new(single(1));
    let dir = scene.get().unwrap();
    scene.check_complete(&dir, &SINGLE);
    assert_eq!(std::fs::read_to_string(scene.repo().join("refs/main")).unwrap(), MAIN);
    let source = write(&scene.files);
    assert_eq!(logits(&load(&dir)), logits(&load(source.path())));

    let bodies = |log: Vec<Request>| log.iter().filter(|r| r.is_body()).count();
    // One file is redirected within the hub, another one to the second server.
    assert_eq!(bodies(scene.server.log()), 5 + 2);
    assert_eq!(scene.get().unwrap(), dir);
    assert_eq!(bodies(scene.server.log()), 0);
}

#[test]
fn only_the_shards_of_the_index_are_fetched() {
    let scene = Scene::new(sharded());
    let dir = scene.get().unwrap();
    let mut names = SINGLE.to_vec();
    names.retain(|name| *name != "model.safetensors");
    names.extend(["a 1.safetensors", "b.safetensors", "model.safetensors.index.json"]);
    names.sort_unstable();
    scene.check_complete(&dir, &names);
    assert_eq!(logits(&load(&dir)), logits(&load(write(&single(1)).path())));
}

#[test]
fn offline_uses_the_cache_or_says_what_is_missing() {
    let mut scene = Scene::new(single(1));
    scene.options.offline = true;
    let empty = scene.error();
    assert!(empty.contains("owner/tiny@main") && empty.contains("no such revision"), "{empty}");
    assert!(empty.contains("HF_HUB_OFFLINE"), "{empty}");
    scene.options.offline = false;
    let dir = scene.get().unwrap();
    scene.server.log();
    scene.options.offline = true;
    assert_eq!(scene.get().unwrap(), dir);
    assert_eq!(scene.revision(MAIN).unwrap(), dir);
    assert!(scene.revision("other").is_err());
    assert!(scene.server.log().is_empty());

    // There is no server, and the mode is not offline.
    scene.options.offline = false;
    scene.options.endpoint = "http://127.0.0.1:1".into();
    assert_eq!(scene.get().unwrap(), dir);

    // Deleting the blob leaves the link.
    scene.options.offline = true;
    let blob = std::fs::canonicalize(dir.join("model.safetensors")).unwrap();
    std::fs::remove_file(blob).unwrap();
    assert!(scene.error().contains("no safetensors weights"), "{}", scene.error());
    std::fs::remove_file(dir.join("config.json")).unwrap();
    std::fs::write(dir.join("model.safetensors.index.json"), r#"{"weight_map": {"x": "y"}}"#)
        .unwrap();
    assert!(scene.error().contains("y, config.json missing"), "{}", scene.error());
}

#[test]
fn what_the_hub_does_not_have_or_refuses_is_told() {
    let mut scene = Scene::new(single(1));
    let get = |id, revision, options: &HubOptions| {
        let result = download(id, revision, options);
        result.unwrap_err().to_string()
    };
    let repo = get("owner/nothing", "main", &scene.options);
    assert!(repo.contains("owner/nothing") && repo.contains("check the id"), "{repo}");
    let revision = get(ID, "v2", &scene.options);
    assert!(revision.contains("no such revision"), "{revision}");

    scene.server.set_private();
    assert!(scene.error().contains("set HF_TOKEN"), "{}", scene.error());
    scene.options.token = Some("wrong".into());
    assert!(scene.error().contains("refused with this HF_TOKEN"), "{}", scene.error());
    assert!(!format!("{:?}", scene.options).contains("wrong"));
    scene.options.token = Some(TOKEN.into());
    // The second server checks that it does not receive the token.
    scene.check_complete(&scene.get().unwrap(), &SINGLE);
}

#[test]
fn repositories_without_usable_weights_are_refused() {
    let without = |edit: &dyn Fn(&mut Files)| {
        let mut files = single(1);
        edit(&mut files);
        let scene = Scene::new(files);
        let error = scene.error();
        assert!(scene.server.log().iter().all(|r| r.cdn || !r.is_body()), "{error}");
        error
    };
    let none = without(&|files| files.retain(|name, _| !name.ends_with(".safetensors")));
    assert!(none.contains("no safetensors weights"), "{none}");
    let config = without(&|files| drop(files.remove("config.json")));
    assert!(config.contains("config.json missing"), "{config}");
    let several = without(&|files| {
        files.remove("model.safetensors");
        files.insert("third.safetensors".into(), Vec::new());
    });
    assert!(several.contains("other.safetensors, third.safetensors"), "{several}");

    let mut files = sharded();
    files.remove("b.safetensors");
    assert!(Scene::new(files).error().contains("b.safetensors missing"));
    let mut files = sharded();
    let index = br#"{"weight_map": {"x": "../b.safetensors"}}"#.to_vec();
    files.insert("model.safetensors.index.json".into(), index);
    assert!(Scene::new(files).error().contains("not a plain file name"));
}

#[test]
fn ids_and_revisions_are_checked_before_they_become_paths() {
    let scene = Scene::new(single(1));
    let get = |id: &str, revision: &str| download(id, revision, &scene.options);
    for id in
        ["tiny", "", "/", "a/", "/b", "a/b/c", "../b", "a/..", "a/b..c", "a/b?c", "a/b c", "a--b/c"]
    {
        assert!(matches!(get(id, "main"), Err(Error::Input(_))), "{id}");
    }
    for revision in ["", "..", "a/../b", "/a", "a/", "a//b", ".a", "a b", "a?b", "a%2e", "a\\b"] {
        assert!(matches!(get(ID, revision), Err(Error::Input(_))), "{revision}");
    }
    assert!(scene.server.log().is_empty());
    assert_eq!(std::fs::read_dir(scene.cache.path()).unwrap().count(), 0);
}

#[test]
fn names_from_the_hub_cannot_leave_the_cache() {
    let scene = Scene::new(single(1));
    scene.server.fault(|request, reply| {
        if request.path.contains("/revision/") {
            Reply::new(200).body(br#"{"sha": "../../../x", "siblings": []}"#)
        } else {
            reply
        }
    });
    assert!(scene.error().contains("is not a commit"), "{}", scene.error());
    scene.server.fault(|_, reply| match reply.status {
        200 => reply.header("ETag", "\"../../../x\""),
        _ => reply,
    });
    assert!(scene.error().contains("cannot name a file"), "{}", scene.error());
    let mut files = single(1);
    files.insert("tokenizer/../../../x".into(), b"x".to_vec());
    let scene = Scene::new(files);
    scene.check_complete(&scene.get().unwrap(), &SINGLE);
}

#[test]
fn a_cut_connection_is_gone_on_with_in_the_next_call() {
    let scene = Scene::new(single(1));
    cut_once(&scene.server, 10_000);
    assert!(scene.error().contains("503"), "{}", scene.error());
    scene.check_snapshot();
    assert!(!scene.repo().join("refs/main").exists());
    scene.server.heal();
    scene.server.log();
    scene.check_complete(&scene.get().unwrap(), &SINGLE);
    let ranges: Vec<_> = scene
        .server
        .log()
        .into_iter()
        .filter(is_weights)
        .map(|r| r.headers.get("range").cloned())
        .collect();
    assert_eq!(ranges, [Some("bytes=10000-".into())]);
}

#[test]
fn cuts_within_a_call_are_gone_on_with() {
    let scene = Scene::new(single(1));
    scene.server.fault(|_, reply| reply.cut(30_000));
    scene.check_complete(&scene.get().unwrap(), &SINGLE);
    // Without a length, an early end cannot be distinguished from the end.
    let scene = Scene::new(single(1));
    scene.server.fault(|request, reply| {
        if is_weights(request) { reply.without("Content-Length").cut(30_000) } else { reply }
    });
    scene.check_complete(&scene.get().unwrap(), &SINGLE);
    let weights = scene.files["model.safetensors"].len();
    let requests = scene.server.log().iter().filter(|r| is_weights(r)).count();
    assert_eq!(requests, weights.div_ceil(30_000));
}

#[test]
fn a_server_without_ranges_starts_again() {
    let scene = Scene::new(single(1));
    cut_once(&scene.server, 10_000);
    scene.get().unwrap_err();
    let weights = scene.files["model.safetensors"].clone();
    scene.server.fault(
        move |request, reply| {
            if is_weights(request) { Reply::new(200).body(&weights) } else { reply }
        },
    );
    scene.check_complete(&scene.get().unwrap(), &SINGLE);
}

#[test]
fn a_server_that_sends_another_range_is_not_believed() {
    let scene = Scene::new(single(1));
    cut_once(&scene.server, 10_000);
    scene.get().unwrap_err();
    let weights = scene.files["model.safetensors"].clone();
    scene.server.fault(move |request, reply| {
        if is_weights(request) && request.headers.contains_key("range") {
            let range = format!("bytes 9000-{}/{0}", weights.len());
            Reply::new(206).body(&weights[9_000..]).header("Content-Range", range)
        } else {
            reply
        }
    });
    scene.check_complete(&scene.get().unwrap(), &SINGLE);
}

#[test]
fn leftovers_of_any_length_and_content_are_repaired() {
    let scene = Scene::new(single(1));
    let weights = &scene.files["model.safetensors"];
    let blobs = scene.repo().join("blobs");
    let blob = blobs.join(sha256(weights));
    let part = blobs.join(format!("{}.incomplete", sha256(weights)));
    let mut invalid = weights.clone();
    invalid[5] ^= 1;
    let long = [&weights[..], b"more"].concat();
    for left in [&weights[..], &invalid, &invalid[..100], &long, b""] {
        let _ = std::fs::remove_dir_all(scene.repo());
        std::fs::create_dir_all(&blobs).unwrap();
        std::fs::write(&part, left).unwrap();
        scene.check_complete(&scene.get().unwrap(), &SINGLE);
    }
    // A tool that does not check lengths leaves a truncated blob with its link.
    std::fs::write(&blob, &weights[..100]).unwrap();
    scene.check_complete(&scene.get().unwrap(), &SINGLE);
    // A small file has no verified hash, so it is downloaded again.
    let config = &scene.files["config.json"];
    std::fs::remove_file(scene.repo().join("snapshots").join(MAIN).join("config.json")).unwrap();
    std::fs::remove_file(blobs.join(&sha256(config)[..40])).unwrap();
    std::fs::write(blobs.join(format!("{}.incomplete", &sha256(config)[..40])), "wrong").unwrap();
    scene.check_complete(&scene.get().unwrap(), &SINGLE);
}

#[test]
fn wrong_lengths_and_contents_never_reach_the_snapshot() {
    let scene = Scene::new(single(1));
    let weights = scene.files["model.safetensors"].clone();
    let size = weights.len();
    let with = |edit: fn(Reply, &[u8]) -> Reply| {
        let weights = weights.clone();
        scene.server.fault(
            move |request, reply| if is_weights(request) { edit(reply, &weights) } else { reply },
        );
        let error = scene.error();
        assert!(error.contains("/blob/") || error.contains("SHA-256"), "{error}");
        scene.check_snapshot();
        assert!(!scene.repo().join("snapshots").join(MAIN).join("model.safetensors").exists());
        error
    };
    let short = with(|reply, weights| reply.body(&weights[..1000]));
    assert!(short.contains("sends 1000 bytes"), "{short}");
    let long = with(|reply, weights| reply.body(&[weights, b"more"].concat()));
    assert!(long.contains(&format!("not {size}")), "{long}");
    let endless =
        with(|reply, weights| reply.body(&[weights, b"more"].concat()).without("Content-Length"));
    assert!(endless.contains("more than the announced"), "{endless}");
    let empty = with(|reply, _| reply.cut(0));
    assert!(empty.contains("/blob/"), "{empty}");
    let flipped = with(|reply, weights| {
        let mut weights = weights.to_vec();
        weights[size_of::<u64>() + 3] ^= 1;
        reply.body(&weights)
    });
    assert!(flipped.contains("SHA-256"), "{flipped}");
    scene.server.heal();
    scene.check_complete(&scene.get().unwrap(), &SINGLE);
}

#[test]
fn a_hub_that_moves_on_or_says_nonsense_is_refused() {
    let scene = Scene::new(single(1));
    scene.server.fault(|request, reply| match request.method.as_str() {
        "HEAD" => reply.header("X-Repo-Commit", OTHER),
        _ => reply,
    });
    assert!(scene.error().contains(OTHER), "{}", scene.error());
    scene.server.fault(|_, reply| reply.without("ETag").without("X-Linked-Etag"));
    assert!(scene.error().contains("no ETag"), "{}", scene.error());
    scene.server.fault(|_, reply| match reply.status {
        307 => reply.without("Location"),
        _ => reply,
    });
    assert!(scene.error().contains("without Location"), "{}", scene.error());
    scene.server.fault(|_, _| Reply::new(200).body(b"<html>log in to this hotel"));
    assert!(scene.error().contains("not a repository's listing"), "{}", scene.error());
}

#[test]
fn redirect_loops_end() {
    let scene = Scene::new(single(1));
    for target in ["/a", "a", "http://localhost:1/a"] {
        let endpoint = scene.server.endpoint();
        let target = target.replace("http://localhost:1", &endpoint);
        scene.server.fault(move |request, reply| {
            if request.path.starts_with("/api/models") {
                reply
            } else {
                Reply::new(302).header("Location", &target)
            }
        });
        assert!(scene.error().contains("more than 10 redirects"), "{}", scene.error());
    }
}

#[test]
fn a_silent_server_is_left() {
    let mut scene = Scene::new(single(1));
    scene.options.timeout = Duration::from_millis(200);
    let mut silent = true;
    scene.server.fault(move |request, mut reply| {
        if is_weights(request) && std::mem::take(&mut silent) {
            reply.cut = Some(10_000);
            reply.stall = Some(Duration::from_secs(20));
        }
        reply
    });
    let start = Instant::now();
    scene.check_complete(&scene.get().unwrap(), &SINGLE);
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn other_revisions_have_their_own_folder_and_share_blobs() {
    let scene = Scene::new(single(1));
    let main = scene.get().unwrap();
    let mut files = single(1);
    files.insert("generation_config.json".into(), b"{\"eos_token_id\": 3}".to_vec());
    scene.server.push(("gptq-4bit/32g.act_True".into(), OTHER.into(), files));
    scene.server.log();
    let other = scene.revision("gptq-4bit/32g.act_True").unwrap();
    assert_ne!(main, other);
    let reference = scene.repo().join("refs/gptq-4bit/32g.act_True");
    assert_eq!(std::fs::read_to_string(reference).unwrap(), OTHER);
    assert_eq!(scene.server.log().iter().filter(|r| r.is_body()).count(), 1);
    // A commit can be requested directly, and gets no ref.
    assert_eq!(scene.revision(OTHER).unwrap(), other);
    assert!(!scene.repo().join("refs").join(OTHER).exists());

    // The branch gets a new commit.
    scene.server.push(("main".into(), "3".repeat(40), single(2)));
    let moved = scene.get().unwrap();
    assert_ne!(moved, main);
    assert_ne!(logits(&load(&moved)), logits(&load(&main)));
}

#[test]
fn progress_sums_up_and_may_stop_the_download() {
    let scene = Scene::new(sharded());
    let total: u64 = [
        "config.json",
        "quantize_config.json",
        "generation_config.json",
        "tokenizer.json",
        "model.safetensors.index.json",
        "a 1.safetensors",
        "b.safetensors",
    ]
    .iter()
    .map(|name| scene.files[*name].len() as u64)
    .sum();
    let run = |stop: u64| {
        let mut seen = Vec::new();
        let result = download_with(ID, "main", &scene.options, &mut |event: &HubEvent<'_>| {
            assert_eq!((event.files, event.total), (7, total));
            seen.push((event.index, event.file.to_owned(), event.done));
            if event.done >= stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(seen.is_sorted_by_key(|(index, _, done)| (*index, *done)), "{seen:?}");
        (result, seen)
    };
    // A shard arrives in several parts.
    scene.server.fault(|_, reply| reply.cut(10_000));
    let (stopped, seen) = run(total / 2);
    assert!(matches!(stopped, Err(Error::Cancelled)));
    scene.check_snapshot();
    let (_, file, done) = seen.last().unwrap();
    assert!(file == "a 1.safetensors" && *done < total);
    scene.server.heal();
    scene.server.log();
    let (dir, seen) = run(u64::MAX);
    assert_eq!(seen.last().unwrap(), &(6, "b.safetensors".to_owned(), total));
    assert_eq!(logits(&load(&dir.unwrap())), logits(&load(write(&single(1)).path())));
    assert!(scene.server.log().iter().any(|r| is_weights(r) && r.headers.contains_key("range")));
    // If everything is cached, there is one event per file.
    let (_, seen) = run(u64::MAX);
    assert_eq!(seen.len(), 7);
}

#[test]
fn downloads_at_the_same_time_share_the_work() {
    let scene = Scene::new(single(1));
    let dirs: Vec<PathBuf> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| scene.get().unwrap())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(dirs.iter().all(|dir| *dir == dirs[0]));
    scene.check_complete(&dirs[0], &SINGLE);
    assert_eq!(scene.server.log().iter().filter(|r| is_weights(r)).count(), 1);
}

#[test]
fn options_come_from_the_environment() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let read = |pairs: &[(&str, &Path)]| {
        HubOptions::from_lookup(|name| {
            pairs.iter().find(|(n, _)| *n == name).map(|(_, value)| OsString::from(value))
        })
    };
    let text = Path::new;
    let plain = read(&[("HOME", home)]).unwrap();
    assert_eq!(plain, HubOptions::new(home.join(".cache/huggingface/hub")));
    assert_eq!(plain.endpoint, "https://huggingface.co");
    let cache = |pairs: &[(&str, &Path)]| read(pairs).unwrap().cache;
    let (home_var, xdg, cache_var) =
        (("HF_HOME", text("/h")), ("XDG_CACHE_HOME", text("/x")), ("HF_HUB_CACHE", text("/c")));
    assert_eq!(cache(&[xdg, ("HOME", home)]), text("/x/huggingface/hub"));
    assert_eq!(cache(&[home_var, xdg]), text("/h/hub"));
    assert_eq!(cache(&[home_var, cache_var]), text("/c"));
    assert!(read(&[]).unwrap_err().to_string().contains("HF_HOME"));

    std::fs::write(home.join("token"), "from-file\n").unwrap();
    let options = read(&[
        ("HF_HOME", home),
        ("HF_ENDPOINT", text("https://mirror.example/")),
        ("HF_HUB_OFFLINE", text("True")),
        ("HF_HUB_DOWNLOAD_TIMEOUT", text("2.5")),
    ])
    .unwrap();
    assert_eq!(options.endpoint, "https://mirror.example/");
    assert_eq!(options.token.as_deref(), Some("from-file"));
    assert!(options.offline);
    assert_eq!(options.timeout, Duration::from_millis(2500));
    let options =
        read(&[("HF_HOME", home), ("HF_TOKEN", text(" direct ")), ("HF_HUB_OFFLINE", text("0"))])
            .unwrap();
    assert_eq!(options.token.as_deref(), Some("direct"));
    assert!(!options.offline);

    // Set variables of other tools and older versions, with their allowed values.
    let old_cache = ("HUGGINGFACE_HUB_CACHE", text("/old"));
    assert_eq!(cache(&[home_var, old_cache]), text("/old"));
    assert_eq!(cache(&[cache_var, old_cache]), text("/c"));
    let user = ("HOME", home);
    assert_eq!(cache(&[user, ("HF_HOME", text("~/hf"))]), home.join("hf/hub"));
    assert_eq!(cache(&[user, ("HF_HOME", text("$HOME/hf"))]), home.join("hf/hub"));
    assert_eq!(cache(&[user, ("HF_HUB_CACHE", text("${HOME}/c"))]), home.join("c"));
    for kept in ["/a/$NONE/b", "/a/~/b", "/a/$", "/a/${HOME", "~other/b"] {
        assert_eq!(cache(&[user, ("HF_HUB_CACHE", text(kept))]), text(kept));
    }
    let (old_token, off) =
        (("HUGGING_FACE_HUB_TOKEN", text("old")), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", text("1")));
    let token = |pairs: &[(&str, &Path)]| read(pairs).unwrap().token;
    assert_eq!(token(&[("HF_HOME", home), old_token]).as_deref(), Some("old"));
    assert_eq!(token(&[user, old_token, ("HF_TOKEN", text("new"))]).as_deref(), Some("new"));
    assert_eq!(token(&[("HF_HOME", home), off]), None);
    assert_eq!(token(&[("HF_HOME", home), old_token, off]), None);
    let offline = |pairs: &[(&str, &Path)]| read(pairs).unwrap().offline;
    let old_offline = ("TRANSFORMERS_OFFLINE", text("1"));
    assert!(offline(&[user, old_offline]));
    assert!(!offline(&[user, old_offline, ("HF_HUB_OFFLINE", text("0"))]));
    for (name, value) in [
        ("HF_TOKEN", "a\nb"),
        ("HF_ENDPOINT", "mirror"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "soon"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "-1"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "1e99"),
    ] {
        let error = read(&[("HOME", home), (name, text(value))]).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }
}
