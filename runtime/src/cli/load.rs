//! Opening a model: the tokenizer is read while the executor gets ready.

use super::options::ModelFlags;
use llmc_artifact::{Artifact, TOKENIZER, TokenizerFacts, VOCABULARY};
use llmc_console::{CliError, output};
use llmc_ir::plan::{KV_BLOCK_POSITIONS, Plan};
use llmrt::chat::ChatTemplate;
use llmrt::device::host::WeightPlace;
use llmrt::device::{Preparation, host};
use llmrt::executor::{Executor, ExecutorOptions};
use llmrt::tokenizer::Tokenizer;
use std::sync::Arc;
use std::time::Instant;

/// A model ready to run.
pub struct Session {
    /// The open file.
    pub artifact: Arc<Artifact>,
    /// Runs its programs.
    pub executor: Executor,
    /// `None`: the artifact has no tokenizer.
    pub text: Option<Text>,
    /// Seconds that the tokenizer took, beside everything else.
    pub tokenizer_seconds: f64,
}

/// What turns text into tokens and back.
pub struct Text {
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    facts: TokenizerFacts,
}

impl Text {
    /// How a conversation becomes text; `None`: the model has no chat template.
    ///
    /// # Errors
    /// When the template is broken. Prompts without it still work.
    pub fn template(&self) -> Result<Option<ChatTemplate>, CliError> {
        ChatTemplate::new(&self.facts).map_err(CliError::failure)
    }
}

/// Opens a model for one sequence at a time. `check` says what about the request does not fit the model, and `usual` where
/// weights lie if the flags do not say.
pub fn open(
    flags: &ModelFlags,
    usual: WeightPlace,
    check: impl FnOnce(&Plan) -> Result<(), CliError>,
) -> Result<Session, CliError> {
    let artifact = open_artifact(flags)?;
    let plan = &artifact.manifest().plan;
    check(plan)?;
    let kv_blocks = one_context(plan);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let started = Instant::now();
            read_text(&artifact).map(|text| (text, started.elapsed().as_secs_f64()))
        });
        let executor = executor(&artifact, flags, usual, kv_blocks);
        let (text, tokenizer_seconds) = match reader.join() {
            Ok(text) => text?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        Ok(Session { artifact: artifact.clone(), executor: executor?, text, tokenizer_seconds })
    })
}

/// Blocks for a single sequence that fills its context. Memory is taken only where it is used.
pub fn one_context(plan: &Plan) -> usize {
    plan.model.max_context.div_ceil(KV_BLOCK_POSITIONS)
}

/// Opens the file alone.
pub fn open_artifact(flags: &ModelFlags) -> Result<Arc<Artifact>, CliError> {
    Ok(Arc::new(Artifact::open(&flags.artifact).map_err(CliError::failure)?))
}

/// Gets the model's programs ready.
pub fn executor(
    artifact: &Arc<Artifact>,
    flags: &ModelFlags,
    usual: WeightPlace,
    kv_blocks: usize,
) -> Result<Executor, CliError> {
    let block = artifact.manifest().plan.kv.block_bytes() as u64;
    let kv_blocks = flags.kv_memory.map_or(kv_blocks, |bytes| usize::try_from(bytes / block).unwrap_or(usize::MAX));
    let options = ExecutorOptions {
        device: flags.device,
        threads: flags.threads.map(Into::into),
        kv_blocks: Some(kv_blocks),
        weights: flags.weights.unwrap_or(usual),
    };
    let mut bar = None;
    let executor = Executor::with_progress(artifact.clone(), options, &mut |event| {
        let bar = bar.get_or_insert_with(|| output::progress(0, "{msg} {wide_bar} {bytes}/{total_bytes}"));
        match event {
            Preparation::Code => bar.set_message("the driver compiles code for the GPU"),
            Preparation::Weights(done, total) => {
                bar.set_message("weights to the GPU");
                bar.set_length(total);
                bar.set_position(done);
            }
        }
    });
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    executor.map_err(CliError::failure)
}

fn read_text(artifact: &Artifact) -> Result<Option<Text>, CliError> {
    let Some(facts) = &artifact.manifest().tokenizer else { return Ok(None) };
    let bytes = artifact.checked_tensor(TOKENIZER).map_err(CliError::failure)?;
    let vocabulary = artifact.tensor(VOCABULARY).map(|_| artifact.checked_tensor(VOCABULARY));
    let tokenizer = match vocabulary.transpose().map_err(CliError::failure)? {
        Some(vocabulary) => Tokenizer::from_parts(bytes, vocabulary),
        None => Tokenizer::from_bytes(bytes),
    };
    let tokenizer = tokenizer.map_err(CliError::failure)?;
    // Reading JSON takes several times the memory that it keeps; weights come next and need room.
    host::give_back_freed();
    Ok(Some(Text { tokenizer, facts: facts.clone() }))
}

impl Session {
    /// Tokens that end a reply: what the checkpoint lists, and its tokenizer's end token.
    pub fn stop_ids(&self) -> Vec<u32> {
        let manifest = self.artifact.manifest();
        let mut ids = manifest.generation.eos_token_ids.clone();
        let name = manifest.tokenizer.as_ref().and_then(|facts| facts.eos_token.as_ref());
        if let (Some(name), Some(text)) = (name, &self.text) {
            ids.extend(text.tokenizer.token_id(name));
        }
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// The tokenizer and the template.
    ///
    /// # Errors
    /// When the model has no tokenizer: `what` needs one.
    pub fn text_for(&self, what: &str) -> Result<&Text, CliError> {
        self.text.as_ref().ok_or_else(|| {
            CliError::Usage(format!(
                "{what} needs a tokenizer and {} has none; give token ids with `llmrt run --prompt-ids 1,2,3`",
                self.artifact.path().display()
            ))
        })
    }
}
