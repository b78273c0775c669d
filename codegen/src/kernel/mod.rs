//! What the templates know of a region before code is written, the same for every target.

pub mod domain;
