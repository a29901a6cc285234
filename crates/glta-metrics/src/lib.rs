//! Ranking metrics and full-ranking evaluation for recommenders
