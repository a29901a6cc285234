//! Two ranks in threads train LightGCN together, with the same bits as one rank. With `mpirun`, use
//! `glta::comm::Mpi` instead of `in_process`.
//!
//! ```text
//! cargo run --release --example ranks_in_threads
//! ```

#![allow(clippy::print_stdout)]

use glta::comm::{Communicator, in_process};
use glta::data::{Dataset, ShopConfig, Split, SplitConfig};
use glta::graph::{LightGcn, LightGcnConfig, Trained};
use glta::shared::Silent;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let shop = Dataset::shop(&ShopConfig { users: 200, items: 100, ..ShopConfig::default() })?;
    let split = Split::new(&shop, &SplitConfig::default())?;
    let model = LightGcn::new(LightGcnConfig { epochs: 20, ..LightGcnConfig::default() })?;
    let alone = model.train(&split.train, Some(&split.valid))?;

    let train = |rank: &dyn Communicator| -> Result<Trained, glta::graph::Error> {
        println!("rank {} of {}", rank.rank(), rank.size());
        model.train_on(rank, None, &split.train, Some(&split.valid), &mut Silent)
    };
    let ranks = in_process(2);
    let together = std::thread::scope(|scope| {
        let threads: Vec<_> = ranks.iter().map(|rank| scope.spawn(|| train(rank))).collect();
        let ended = threads.into_iter().map(|t| t.join().map_err(|_| "a rank panicked"));
        ended.collect::<Result<Vec<_>, _>>()
    })?;
    for trained in together {
        assert_eq!(trained?.embeddings, alone.embeddings);
    }
    println!("both have the embeddings of a single rank");
    Ok(())
}
