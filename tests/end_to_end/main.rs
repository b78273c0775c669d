//! End to end: checkpoints through the built binaries, held against what an independent implementation computed.
//!
//! | file | what it shows |
//! |---|---|
//! | `tiny`        | every architecture gives the reference's logits and tokens, in both element types |
//! | `steps`       | neither the batch, nor the threads, nor the cutting of a prompt changes a result |
//! | `context`     | contexts that are tiny or full |
//! | `support`     | models, binaries and numbers for all of them |

mod context;
mod steps;
mod support;
mod tiny;
