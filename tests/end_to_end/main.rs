//! End to end: checkpoints through the built binaries, held against what an independent implementation computed.
//!
//! | file | what it shows |
//! |---|---|
//! | `tiny`        | every architecture gives the reference's logits and tokens, in both element types |
//! | `steps`       | neither the batch, nor the threads, nor the cutting of a prompt changes a result |
//! | `threads`     | any number of threads on any number of CPUs, and what each of them did |
//! | `invariance`  | with `--batch-invariant`, nothing changes a bit, not even another program |
//! | `context`     | contexts that are tiny or full |
//! | `checkpoints` | damaged and hostile checkpoints are refused with one clear error |
//! | `artifacts`   | damaged, hostile and unsuitable artifacts are refused, and prompts that do not fit |
//! | `outputs`     | nothing half-written, whatever happens |
//! | `calibrate`   | what was measured decides, and what is wrong with a stored measurement is said |
//! | `shapes`      | what a config.json alone says of a model |
//! | `tune`        | sizes of kernels from measurements are kept, repeat, and change no bit |
//! | `compile`     | flags, targets, passes and phases of the compiler |
//! | `import`      | `llmc import` rebuilds the original model |
//! | `smollm2`     | a real model gives the reference's logits, tokens and perplexity |
//! | `talk`        | what users and scripts see of a real model |
//! | `gpu`         | on a GPU, which is an emulator here, models say what they say on the host |
//! | `amx`         | with AMX, which is emulated here, models say what the reference says |
//! | `devices`     | choosing a device, and what is said when it does not work |
//! | `support`     | models, binaries and numbers for all of them |

mod amx;
mod artifacts;
mod calibrate;
mod checkpoints;
mod compile;
mod context;
mod devices;
mod gpu;
mod import;
mod invariance;
mod outputs;
mod shapes;
mod smollm2;
mod steps;
mod support;
mod talk;
mod threads;
mod tiny;
mod tune;
