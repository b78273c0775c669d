//! What a step brings along, and the sequences that its rows belong to.

use super::value::Tensor;
use crate::dim::Bindings;
use crate::plan::StepInput;
use std::collections::BTreeSet;
use std::ops::Range;

/// The inputs of one step: rows of several sequences, sequence after sequence, as in [`crate::abi::StepArgs`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepInputs {
    /// The token of each row.
    pub token_ids: Vec<i32>,
    /// The position of each row in its sequence.
    pub positions: Vec<i32>,
    /// The rows whose logits are wanted.
    pub sample_rows: Vec<i32>,
    /// First row of each sequence; its rows end where the next one's start.
    pub sequence_starts: Vec<usize>,
    /// Under which number the KV cache keeps each sequence.
    pub sequence_ids: Vec<u64>,
}

impl StepInputs {
    /// Tokens of several sequences, each given by its number in the cache, the position of its first token and its
    /// tokens. Logits are wanted for the last row of each.
    pub fn batch(sequences: &[(u64, usize, &[i32])]) -> StepInputs {
        let mut step = StepInputs::default();
        for &(id, start, tokens) in sequences {
            step.sequence_ids.push(id);
            step.sequence_starts.push(step.token_ids.len());
            step.token_ids.extend(tokens);
            // Positions that do not fit i32 saturate, and are refused as not consecutive or not negative.
            let position = |offset| i32::try_from(start + offset).unwrap_or(i32::MAX);
            step.positions.extend((0..tokens.len()).map(position));
            step.sample_rows.push(i32::try_from(step.token_ids.len()).unwrap_or(i32::MAX) - 1);
        }
        step
    }

    /// Tokens of sequence 0 from position `start`; logits are wanted for the last.
    pub fn one_sequence(start: usize, tokens: &[i32]) -> StepInputs {
        StepInputs::batch(&[(0, start, tokens)])
    }

    /// What is wrong with these inputs, if anything.
    pub fn check(&self) -> Result<(), String> {
        let rows = self.token_ids.len();
        if self.positions.len() != rows {
            return Err(format!("{rows} token ids but {} positions", self.positions.len()));
        }
        if let Some(row) = self.sample_rows.iter().find(|&&row| usize::try_from(row).map_or(true, |row| row >= rows)) {
            return Err(format!("sample row {row} is outside 0..{rows}"));
        }
        if self.sequence_starts.len() != self.sequence_ids.len() {
            let (starts, ids) = (self.sequence_starts.len(), self.sequence_ids.len());
            return Err(format!("{starts} sequence starts but {ids} sequence ids"));
        }
        let increasing = self.sequence_starts.windows(2).all(|pair| pair[0] < pair[1]);
        let covered = match (self.sequence_starts.first(), self.sequence_starts.last()) {
            (Some(&first), Some(&last)) => first == 0 && last < rows,
            _ => rows == 0,
        };
        if !increasing || !covered {
            let starts = &self.sequence_starts;
            return Err(format!("sequence starts {starts:?} do not divide rows 0..{rows} into non-empty parts"));
        }
        if self.sequence_ids.iter().collect::<BTreeSet<_>>().len() != self.sequence_ids.len() {
            return Err(format!("a sequence occurs twice in {:?}", self.sequence_ids));
        }
        for (id, rows) in self.sequences() {
            let positions = &self.positions[rows];
            let consecutive = positions.windows(2).all(|pair| i64::from(pair[1]) == i64::from(pair[0]) + 1);
            if positions[0] < 0 || !consecutive {
                return Err(format!("positions of sequence {id} must be consecutive from 0 or more: {positions:?}"));
            }
        }
        Ok(())
    }

    /// Each sequence's number in the cache and its rows. The inputs must pass [`check`](Self::check).
    pub fn sequences(&self) -> impl Iterator<Item = (u64, Range<usize>)> {
        let ends = self.sequence_starts.iter().skip(1).copied().chain([self.token_ids.len()]);
        let rows = self.sequence_starts.iter().zip(ends).map(|(&start, end)| start..end);
        self.sequence_ids.iter().copied().zip(rows)
    }

    /// The value of each symbol; the context is the longest of any sequence.
    pub fn bindings(&self) -> Bindings {
        let last = self.positions.iter().copied().max().unwrap_or(-1);
        Bindings {
            tokens: self.token_ids.len(),
            samples: self.sample_rows.len(),
            sequences: self.sequence_ids.len(),
            context: usize::try_from(i64::from(last) + 1).unwrap_or(0),
        }
    }

    /// One of the inputs as a tensor.
    pub fn tensor(&self, input: StepInput) -> Tensor {
        Tensor::integers(match input {
            StepInput::TokenIds => &self.token_ids,
            StepInput::Positions => &self.positions,
            StepInput::SampleRows => &self.sample_rows,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_lays_sequences_out_one_after_the_other() {
        let step = StepInputs::batch(&[(7, 3, &[10, 11]), (5, 0, &[12])]);
        step.check().unwrap();
        assert_eq!(step.positions, [3, 4, 0]);
        assert_eq!(step.sample_rows, [1, 2]);
        assert_eq!(step.sequences().collect::<Vec<_>>(), [(7, 0..2), (5, 2..3)]);
        let bindings = step.bindings();
        assert_eq!((bindings.tokens, bindings.samples, bindings.sequences, bindings.context), (3, 2, 2, 5));
    }

    #[test]
    fn mistakes_are_named() {
        let good = StepInputs::batch(&[(7, 3, &[10, 11]), (5, 0, &[12])]);
        let broken = |change: fn(&mut StepInputs), word: &str| {
            let mut step = good.clone();
            change(&mut step);
            let error = step.check().unwrap_err();
            assert!(error.contains(word), "{error}");
        };
        broken(|s| s.positions.truncate(1), "positions");
        broken(|s| s.positions[1] = 9, "consecutive");
        broken(|s| s.positions = vec![-2, -1, 0], "consecutive");
        broken(|s| s.sample_rows[0] = 3, "sample row 3");
        broken(|s| s.sample_rows[0] = -1, "sample row -1");
        broken(|s| s.sequence_starts = vec![0], "sequence ids");
        broken(|s| s.sequence_starts = vec![0, 3], "non-empty");
        broken(|s| s.sequence_starts = vec![1, 2], "non-empty");
        broken(|s| s.sequence_ids = vec![4, 4], "twice");
        assert!(StepInputs::batch(&[(0, 0, &[])]).check().is_err());
    }
}
