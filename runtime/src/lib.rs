//! llmrt: the runtime that executes what `llmc` compiles.
//!
//! A step of generation goes through these modules:
//!
//! 1. [`engine`]: the loop; it holds one of each of the following and turns requests into events;
//! 2. [`scheduler`]: which tokens of which sequences the next step computes (pure data);
//! 3. [`kv`]: which blocks of the KV cache a sequence owns or shares (pure data);
//! 4. [`executor`]: picks the compiled program that fits the step, checks inputs and results;
//! 5. [`device`]: memory, code and threads of the CPU;
//! 6. [`sampler`]: the next token from the logits.
//!
//! [`tokenizer`] and [`chat`] stand between text and token ids. Nothing here knows a model: all facts
//! come from the plan in the artifact ([`llmc_artifact`]).

pub mod chat;
pub mod conversation;
pub mod device;
pub mod engine;
pub mod executor;
pub mod kv;
pub mod sampler;
pub mod scheduler;
pub mod tokenizer;
