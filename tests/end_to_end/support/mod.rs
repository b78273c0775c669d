//! Models, binaries and numbers for all end-to-end tests.

pub mod binaries;
pub mod broken;
pub mod fake;
pub mod golden;
pub mod logits;
pub mod models;
pub mod resign;
pub mod terminal;
pub mod tiles;
