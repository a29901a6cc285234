//! Wall time, calls and bytes of each part of a run, for comparing numbers of ranks.
//!
//! ```text
//! cargo bench -p glta --features mpi --bench ranks --no-run     # prints PROGRAM
//! mpirun -n 1 PROGRAM DATA LLM OUT       # then -n 2, with another OUT
//! ```
//!
//! DATA is the folder or archive of MovieLens 100K, LLM the folder of a checkpoint, OUT a new
//! folder that all ranks can access. On one machine `mpirun` binds one thread per rank; set
//! `RAYON_NUM_THREADS=1` if it does not bind.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use candle_core::Device;
use glta::comm::{Communicator, Metered, Traffic};
use glta::data::readers;
use glta::llm::LlamaOptions;
use glta::prelude::*;

#[cfg(feature = "mpi")]
fn ranks() -> Arc<dyn Communicator> {
    Arc::new(glta::comm::Mpi::start().expect("MPI"))
}

#[cfg(not(feature = "mpi"))]
fn ranks() -> Arc<dyn Communicator> {
    Arc::new(glta::comm::Alone)
}

/// Cost of a part of the run.
#[derive(Default)]
struct Part {
    name: String,
    pieces: u64,
    seconds: f64,
    waited: f64,
    calls: u64,
    bytes: u64,
}

struct Clock {
    comm: Arc<Metered>,
    last: (Instant, Traffic),
    parts: Vec<Part>,
}

impl Clock {
    /// Adds the cost since the last call to a part.
    fn book(&mut self, name: &str) {
        let (start, before) = self.last;
        let now = self.comm.traffic();
        self.last = (Instant::now(), now);
        let at = self.parts.iter().position(|part| part.name == name).unwrap_or_else(|| {
            self.parts.push(Part { name: name.to_owned(), ..Part::default() });
            self.parts.len() - 1
        });
        let part = &mut self.parts[at];
        part.pieces += 1;
        part.seconds += start.elapsed().as_secs_f64();
        part.waited += (now.time - before.time).as_secs_f64();
        part.calls += now.calls - before.calls;
        part.bytes += now.bytes - before.bytes;
    }
}

fn main() {
    let paths: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let [data, llm, out] = &paths[..] else {
        println!("ranks: needs DATA, LLM and OUT; see the top of the file");
        return;
    };
    let comm = Arc::new(Metered::new(ranks()));
    let mut config = Config::preset(Preset::Full, Density::Dense);
    config.llm = LlamaOptions { layers: Some(4), ..LlamaOptions::default() };
    config.graph.epochs = 20;
    config.item_stage.train.epochs = 1;
    config.user_stage.train.epochs = 1;
    config.texts.profile = true;
    config.texts.prediction = false;
    config.texts.max_tokens = 16;
    let dataset = readers::movielens(data).expect("MovieLens");
    let split = Split::new(&dataset, &SplitConfig::default()).expect("a split");
    let data = RunData::new(&dataset, &split, &TextConfig::default()).expect("data");
    let language = LanguageModel::load(llm, &config.llm, &Device::Cpu).expect("a checkpoint");
    let all: Arc<dyn Communicator> = Arc::<Metered>::clone(&comm);
    let run = Run::create_on(all, out, data, config).expect("a new folder");
    comm.barrier().expect("all ranks");
    let last = (Instant::now(), comm.traffic());
    let mut clock = Clock { comm: Arc::clone(&comm), last, parts: Vec::new() };
    let fitted = run.fit_with(Some(&language), &mut |event: &Event| {
        match event {
            Event::Graph(_) => clock.book("LightGCN, epochs"),
            Event::TextVectors { .. } => clock.book("text vectors"),
            Event::Linear { .. } => clock.book("linear model (one rank)"),
            Event::Texts { done: 0, .. } => clock.book("loading"),
            Event::Texts { .. } => clock.book("text generation"),
            Event::Step { stage, .. } => clock.book(&format!("{stage} stage, steps")),
            Event::Evaluated { stage, .. } => clock.book(&format!("{stage} stage, evaluation")),
            _ => {}
        }
        ControlFlow::Continue(())
    });
    let (_, report) = fitted.expect("a run");
    clock.book("mixing, saving");
    if comm.is_root() {
        println!("{} ranks, {} threads each", comm.size(), rayon::current_num_threads());
        println!(
            "{:<26} {:>7} {:>9} {:>9} {:>7} {:>12}",
            "part", "pieces", "seconds", "waiting", "calls", "bytes"
        );
        for part in &clock.parts {
            println!(
                "{:<26} {:>7} {:>9.2} {:>9.2} {:>7} {:>12}",
                part.name, part.pieces, part.seconds, part.waited, part.calls, part.bytes
            );
        }
        println!(
            "losses {:?}, validation {:?}",
            report.user_stage.as_ref().map(|stage| &stage.losses),
            report.validation()
        );
    }
}
