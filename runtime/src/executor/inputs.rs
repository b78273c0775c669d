//! A step as flat arrays, the way compiled code reads it; checked, so that it reads and writes
//! nothing that is not there.

use super::{ExecutorError, Step, StepSequence};
use llmc_ir::dim::Bindings;
use llmc_ir::plan::KV_BLOCK_POSITIONS;

/// What a step is checked against.
#[derive(Clone, Copy, Debug)]
pub(super) struct PoolShape {
    pub kv_blocks: usize,
    pub vocab: usize,
    pub max_context: usize,
}

/// A step's arrays ([`llmc_ir::abi::StepArgs`] says what each is). They are kept from step to
/// step, so that a step allocates nothing.
#[derive(Debug, Default)]
pub struct StepInputs {
    pub(crate) token_ids: Vec<i32>,
    pub(crate) positions: Vec<i32>,
    pub(crate) sample_rows: Vec<i32>,
    pub(crate) slots: Vec<i32>,
    pub(crate) sequence_starts: Vec<i32>,
    pub(crate) block_tables: Vec<i32>,
    pub(crate) block_table_stride: usize,
    /// Per block of the pool: one more than the sequence of this step that writes to it, or 0.
    writers: Vec<u32>,
}

impl StepInputs {
    /// Checks a step and lays it out. Returns its sizes.
    pub(super) fn prepare(&mut self, step: &Step, shape: PoolShape) -> Result<Bindings, ExecutorError> {
        self.token_ids.clear();
        self.positions.clear();
        self.sample_rows.clear();
        self.slots.clear();
        self.sequence_starts.clear();
        self.block_tables.clear();
        self.writers.clear();
        self.writers.resize(shape.kv_blocks, 0);
        let mut context = 0;
        for (index, sequence) in step.sequences.iter().enumerate() {
            let invalid = |detail| ExecutorError::Invalid { sequence: index, detail };
            context = context.max(check(sequence, shape).map_err(invalid)?);
            self.claim_blocks(index, sequence).map_err(invalid)?;
        }
        self.block_table_stride = context.div_ceil(KV_BLOCK_POSITIONS);
        for sequence in &step.sequences {
            self.append(sequence);
        }
        self.sequence_starts.push(self.token_ids.len() as i32);
        if step.sequences.is_empty() {
            return Err(ExecutorError::Invalid { sequence: 0, detail: "a step needs a sequence".to_owned() });
        }
        Ok(Bindings {
            tokens: self.token_ids.len(),
            samples: self.sample_rows.len(),
            sequences: step.sequences.len(),
            context,
        })
    }

    /// Two sequences may read a block (a common prefix) but only one may write to it.
    fn claim_blocks(&mut self, index: usize, sequence: &StepSequence) -> Result<(), String> {
        let start = sequence.start_position as usize;
        let end = start + sequence.tokens.len();
        for &block in &sequence.block_table[start / KV_BLOCK_POSITIONS..end.div_ceil(KV_BLOCK_POSITIONS)] {
            let writer = std::mem::replace(&mut self.writers[block as usize], index as u32 + 1);
            if writer != 0 {
                return Err(format!("block {block} would be written by sequence {} too", writer - 1));
            }
        }
        Ok(())
    }

    fn append(&mut self, sequence: &StepSequence) {
        let first_row = self.token_ids.len();
        let count = sequence.tokens.len();
        self.sequence_starts.push(first_row as i32);
        self.token_ids.extend(sequence.tokens.iter().map(|&token| token as i32));
        for position in (sequence.start_position as usize..).take(count) {
            let block = sequence.block_table[position / KV_BLOCK_POSITIONS] as usize;
            self.positions.push(position as i32);
            self.slots.push((block * KV_BLOCK_POSITIONS + position % KV_BLOCK_POSITIONS) as i32);
        }
        let rows = count - sequence.sample.count(count)..count;
        self.sample_rows.extend(rows.map(|row| (first_row + row) as i32));
        let used = sequence.block_table.len().min(self.block_table_stride);
        self.block_tables.extend(sequence.block_table[..used].iter().map(|&block| block as i32));
        self.block_tables.extend(std::iter::repeat_n(0, self.block_table_stride - used));
    }
}

/// Checks one sequence; returns its context: positions with the new ones.
fn check(sequence: &StepSequence, shape: PoolShape) -> Result<usize, String> {
    let context = (sequence.start_position as usize).saturating_add(sequence.tokens.len());
    if sequence.tokens.is_empty() {
        return Err("it has no tokens".to_owned());
    }
    if let Some(token) = sequence.tokens.iter().find(|&&token| token as usize >= shape.vocab) {
        return Err(format!("token id {token} is not below the vocabulary's size, {}", shape.vocab));
    }
    if context > shape.max_context {
        return Err(format!("it would have {context} positions, the model was compiled for {}", shape.max_context));
    }
    let blocks = context.div_ceil(KV_BLOCK_POSITIONS);
    let Some(used) = sequence.block_table.get(..blocks) else {
        return Err(format!("its {context} positions need {blocks} blocks, it has {}", sequence.block_table.len()));
    };
    if let Some(block) = used.iter().find(|&&block| block as usize >= shape.kv_blocks) {
        return Err(format!("block {block} is not below the pool's size, {}", shape.kv_blocks));
    }
    Ok(context)
}

#[cfg(test)]
mod tests {
    use super::super::SampleRows;
    use super::*;

    const SHAPE: PoolShape = PoolShape { kv_blocks: 8, vocab: 10, max_context: 100 };

    fn sequence(tokens: &[u32], start_position: u32, block_table: &[u32], sample: SampleRows) -> StepSequence {
        StepSequence { tokens: tokens.to_vec(), start_position, block_table: block_table.to_vec(), sample }
    }

    fn error(sequences: Vec<StepSequence>) -> String {
        StepInputs::default().prepare(&Step { sequences }, SHAPE).unwrap_err().to_string()
    }

    #[test]
    fn rows_follow_each_other() {
        let step = Step {
            sequences: vec![
                sequence(&[1, 2, 3], 31, &[4, 2, 7], SampleRows::All),
                sequence(&[5], 0, &[3], SampleRows::None),
                sequence(&[6, 7], 4, &[0], SampleRows::Last),
            ],
        };
        let mut inputs = StepInputs::default();
        for _ in 0..2 {
            let sizes = inputs.prepare(&step, SHAPE).unwrap();
            assert_eq!(sizes, Bindings { tokens: 6, samples: 4, sequences: 3, context: 34 });
            assert_eq!(inputs.token_ids, [1, 2, 3, 5, 6, 7]);
            assert_eq!(inputs.positions, [31, 32, 33, 0, 4, 5]);
            assert_eq!(inputs.slots, [4 * 32 + 31, 2 * 32, 2 * 32 + 1, 3 * 32, 4, 5]);
            assert_eq!(inputs.sample_rows, [0, 1, 2, 5]);
            assert_eq!(inputs.sequence_starts, [0, 3, 4, 6]);
            assert_eq!((inputs.block_table_stride, inputs.block_tables.as_slice()), (2, &[4, 2, 3, 0, 0, 0][..]));
        }
    }

    #[test]
    fn every_violation_is_named() {
        let last = SampleRows::Last;
        assert!(error(vec![]).contains("needs a sequence"));
        assert!(error(vec![sequence(&[], 0, &[0], last)]).contains("no tokens"));
        assert!(error(vec![sequence(&[10], 0, &[0], last)]).contains("token id 10"));
        assert!(error(vec![sequence(&[1], 100, &[0, 1, 2, 3], last)]).contains("101 positions"));
        assert!(error(vec![sequence(&[1], u32::MAX, &[0], last)]).contains("positions"));
        assert!(error(vec![sequence(&[1], 32, &[0], last)]).contains("need 2 blocks, it has 1"));
        assert!(error(vec![sequence(&[1], 0, &[8], last)]).contains("block 8"));
        let both = vec![sequence(&[1], 33, &[0, 5], last), sequence(&[1], 0, &[5], last)];
        assert!(error(both).contains("sequence 1 of the step is invalid: block 5 would be written by sequence 0"));
        let shared_prefix = vec![sequence(&[1], 33, &[0, 5], last), sequence(&[1], 33, &[0, 6], last)];
        assert!(StepInputs::default().prepare(&Step { sequences: shared_prefix }, SHAPE).is_ok());
        assert!(error(vec![sequence(&[1, 1], 31, &[5, 5], last)]).contains("block 5"));
    }
}
