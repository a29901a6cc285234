#![allow(missing_docs, clippy::all, clippy::unwrap_used, clippy::print_stdout)]
use glta_data::Interactions;
use glta_graph::*;
use glta_metrics::*;
use std::ops::ControlFlow;
fn read(p: &str) -> Vec<(u32, u32)> {
    std::fs::read_to_string(p)
        .unwrap()
        .lines()
        .map(|l| {
            let mut a = l.split(' ');
            (a.next().unwrap().parse().unwrap(), a.next().unwrap().parse().unwrap())
        })
        .collect()
}
fn cpu() -> f64 {
    let s = std::fs::read_to_string("/proc/self/stat").unwrap();
    let a: Vec<&str> = s.rsplit(')').next().unwrap().split_whitespace().collect();
    (a[11].parse::<f64>().unwrap() + a[12].parse::<f64>().unwrap()) / 100.0
}
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let name = &args[1];
    let (tr, va, te) = (
        read(&format!("/tmp/{name}.train")),
        read(&format!("/tmp/{name}.valid")),
        read(&format!("/tmp/{name}.test")),
    );
    let nu = tr.iter().chain(&va).chain(&te).map(|p| p.0).max().unwrap() as usize + 1;
    let ni = tr.iter().chain(&va).chain(&te).map(|p| p.1).max().unwrap() as usize + 1;
    let (tr, va, te) = (
        Interactions::from_pairs(nu, ni, tr).unwrap(),
        Interactions::from_pairs(nu, ni, va).unwrap(),
        Interactions::from_pairs(nu, ni, te).unwrap(),
    );
    let config: LightGcnConfig = toml::from_str(&args[2..].join("\n")).unwrap();
    println!("{config:?}");
    let mut c0 = cpu();
    let t = LightGcn::new(config)
        .unwrap()
        .train(&tr, (!va.is_empty()).then_some(&va), &mut |e| {
            let c = cpu();
            if e.validation.is_some() || e.epoch < 4 {
                println!(
                    "{} loss {:.5} wall {:.3} cpu {:.2} valid {:?} {}",
                    e.epoch,
                    e.loss,
                    e.seconds,
                    c - c0,
                    e.validation,
                    e.best
                );
            }
            c0 = c;
            ControlFlow::Continue(())
        })
        .unwrap();
    let r =
        evaluate(&t.embeddings.scorer(), &te, &[&tr, &va], &EvaluationConfig::default()).unwrap();
    println!(
        "best {} P@5 {:.4} P@10 {:.4} N@10 {:.4} R@20 {:.4} N@20 {:.4}",
        t.best_epoch,
        r.get(Metric::Precision, 5).unwrap(),
        r.get(Metric::Precision, 10).unwrap(),
        r.get(Metric::Ndcg, 10).unwrap(),
        r.get(Metric::Recall, 20).unwrap(),
        r.get(Metric::Ndcg, 20).unwrap()
    );
}
