//! LightGCN on a CPU: interaction graph, propagation and BPR training
