//! Ctrl-C while chatting.

use llmc_console::CliError;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// Ctrl-C: stops a reply, or the program while none is being written.
pub struct Interrupt {
    state: Arc<AtomicU8>,
}

/// No reply is being written.
const IDLE: u8 = 0;
/// A reply is being written.
const REPLYING: u8 = 1;
/// It should end.
const STOP: u8 = 2;

impl Interrupt {
    /// Starts listening.
    pub fn install() -> Result<Self, CliError> {
        let state = Arc::new(AtomicU8::new(IDLE));
        let shared = state.clone();
        let handler = move || {
            if shared.swap(STOP, Ordering::SeqCst) == IDLE {
                std::process::exit(130);
            }
        };
        let cannot = |error| CliError::Failure(format!("cannot handle Ctrl-C: {error}"));
        ctrlc::set_handler(handler).map_err(cannot)?;
        Ok(Interrupt { state })
    }

    /// From now on Ctrl-C stops the reply.
    pub fn start_reply(&self) {
        self.state.store(REPLYING, Ordering::SeqCst);
    }

    /// Whether the reply is to stop.
    pub fn requested(&self) -> bool {
        self.state.load(Ordering::SeqCst) == STOP
    }

    /// From now on Ctrl-C stops the program.
    pub fn end_reply(&self) {
        self.state.store(IDLE, Ordering::SeqCst);
    }
}
