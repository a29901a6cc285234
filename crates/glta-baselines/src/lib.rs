//! Recommenders that GLTA is compared with: popularity, EASE and graph baselines
