//! What runs a compiled model's programs: this machine's CPU, or an NVIDIA GPU.

mod choice;
pub mod cuda;
pub mod host;

pub use choice::{Chosen, DeviceChoice};

use crate::executor::StepInputs;
use crate::sampler::{Finds, Found};
use cuda::CudaError;
use host::HostError;
use llmc_artifact::Artifact;
use llmc_ir::plan::{Goal, Plan};
use thiserror::Error;

/// A model ready to run somewhere: its code, weights, activations and KV pool there.
pub trait Device: Send {
    /// The name of the code that runs: `x86-64-v4`, `cuda:sm_80`, ...
    fn target(&self) -> &str;

    /// That and where it runs, for people: `x86-64-v4, 8 threads`.
    fn describe(&self) -> String;

    /// What it runs: the artifact's plan with the programs that are for such a device.
    fn plan(&self) -> &Plan;

    /// Threads of this process that run a step; `None`: it runs on a device of its own.
    fn threads(&self) -> Option<usize>;

    /// Blocks in the KV pool.
    fn kv_blocks(&self) -> usize;

    /// Runs one step of a program (an index into [`Device::plan`]'s) and returns `f32[samples, vocab]`. The inputs must have been
    /// made for that program and for a pool of this size.
    ///
    /// # Errors
    /// If the device fails. It is lost then: every later step fails too.
    fn run(&mut self, program: usize, inputs: &StepInputs) -> Result<&[f32], DeviceError>;

    /// Runs one step like [`Device::run`] and returns the first of the largest logits of each row, `i32[samples]`, with -1
    /// where one of the row is not finite. `None`, and nothing was run, if this device has no better way to find them than
    /// to look at all logits.
    ///
    /// # Errors
    /// As [`Device::run`].
    fn likeliest(&mut self, program: usize, inputs: &StepInputs) -> Result<Option<&[i32]>, DeviceError>;

    /// What [`Device::likeliest`] runs a step of a program with so many rows of logits for.
    fn greedy_goal(&self, program: usize, rows: usize) -> Goal;

    /// Runs one step as [`Device::likeliest`] does, or else [`Device::run`], and returns what each thread did when. `None`, and nothing was run, if this
    /// device cannot tell.
    ///
    /// # Errors
    /// As [`Device::run`].
    fn trace(&mut self, program: usize, inputs: &StepInputs) -> Result<Option<Trace>, DeviceError>;

    /// What [`Device::candidates`] finds.
    fn finds(&self) -> Finds;

    /// Runs one step like [`Device::run`] and returns what it finds of each row of logits, given a scale for each; `None`
    /// where one of the row is not finite. `None`, and nothing was run, as for [`Device::likeliest`].
    ///
    /// # Errors
    /// As [`Device::run`].
    fn candidates(
        &mut self,
        program: usize,
        inputs: &StepInputs,
        scales: &[f32],
    ) -> Result<Option<Vec<Option<Found>>>, DeviceError>;

    /// One row of the last step's logits, `f32[vocab]`, given what it was run with: where they were not written, it is run
    /// again.
    ///
    /// # Errors
    /// As [`Device::run`].
    fn row(&mut self, program: usize, inputs: &StepInputs, row: usize) -> Result<&[f32], DeviceError>;

    /// Runs one step like [`Device::run`], for what it writes into the KV pool alone.
    ///
    /// # Errors
    /// As [`Device::run`].
    fn compute(&mut self, program: usize, inputs: &StepInputs) -> Result<(), DeviceError>;

    /// Zeroes blocks of the KV pool.
    ///
    /// # Errors
    /// If the device fails.
    fn wipe_blocks(&mut self, blocks: &[u32]) -> Result<(), DeviceError>;
}

/// A step as its threads saw it.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// What each thread did, in order.
    pub threads: Vec<Vec<Span>>,
    /// How often they called the system, which they do only to wait long or to wake who does.
    pub system_calls: u32,
}

/// Something that a thread did in a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// What.
    pub activity: Activity,
    /// Seconds since the step's start.
    pub start: f64,
    /// The same.
    pub end: f64,
}

/// What a thread of a step is busy with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// A launch: how many there were before it in the step.
    Launch(usize),
    /// Waiting for the other threads.
    Wait,
}

/// What a device is busy with while a model is made ready to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preparation {
    /// A GPU's driver compiles the code, which it keeps for the next time.
    Code,
    /// Weights are on their way to a GPU: bytes done and in all.
    Weights(u64, u64),
}

/// Why a device cannot run a model, or does not any more.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// The CPU.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A GPU, and what else to do where the artifact has code for a CPU.
    #[error("{0}{1}")]
    Cuda(CudaError, &'static str),
}

impl From<CudaError> for DeviceError {
    fn from(error: CudaError) -> DeviceError {
        DeviceError::Cuda(error, "")
    }
}

impl DeviceError {
    /// An error of a GPU that was to run an artifact.
    pub fn of_gpu(error: CudaError, artifact: &Artifact) -> DeviceError {
        let other = error.is_about_the_device() && !artifact.manifest().targets.is_empty();
        DeviceError::Cuda(error, if other { ", or run on the CPU with --device host" } else { "" })
    }
}
