//! One step on one program, with all that its results are compared with.

use crate::check::Runs;
use crate::enclosure::{Enclosure, State};
use crate::pool::{Batch, Pool};
use llmc_ir::eval::StepInputs;
use llmc_ir::op::KvPart;

/// A step on one program, and what must come out.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Which it is, in words.
    pub place: String,
    /// Index of the program.
    pub program: usize,
    /// The step.
    pub batch: Batch,
    /// The cache before it.
    pub before: Pool,
    /// Its logits.
    pub expected: Enclosure,
    /// The cache behind it.
    pub written: State,
    /// Whether values depend on how many rows are before their own.
    pub row_numbers: bool,
}

impl Trial {
    /// Runs the step in all ways and returns the logits and the cache behind it.
    ///
    /// # Errors
    /// What is wrong with them, and where.
    pub fn check(&self, compiled: &dyn Runs) -> Result<(Vec<f64>, Pool), String> {
        self.try_check(compiled).map_err(|error| format!("{}: {error}", self.place))
    }

    fn try_check(&self, compiled: &dyn Runs) -> Result<(Vec<f64>, Pool), String> {
        let (logits, pool) = self.on(compiled, 0)?;
        let values: Vec<f64> = logits.iter().copied().map(f64::from).collect();
        inside(&self.expected, &values)?;
        self.check_cache(compiled, &pool)?;
        for way in 1..compiled.ways() {
            let (others, other_pool) = self.on(compiled, way)?;
            same_bits(&logits, &others).map_err(|error| format!("run in way {way} instead of 0: {error}"))?;
            if other_pool.bytes() != pool.bytes() {
                return Err(format!("way {way} leaves another KV cache than 0"));
            }
        }
        if self.batch.step.sequence_ids.len() > 1 && !self.row_numbers {
            self.check_alone(compiled, &logits)?;
        }
        Ok((values, pool))
    }

    fn on(&self, compiled: &dyn Runs, way: usize) -> Result<(Vec<f32>, Pool), String> {
        let mut pool = self.before.clone();
        let logits = compiled.run(self.program, &self.batch, &mut pool, way)?;
        Ok((logits, pool))
    }

    /// The cache holds the step's keys and values, and else what it held before.
    fn check_cache(&self, compiled: &dyn Runs, after: &Pool) -> Result<(), String> {
        let (batch, state) = (&self.batch, &self.written);
        let mut untouched = self.before.clone();
        untouched.copy_step(after, &batch.step);
        if untouched.bytes() != after.bytes() {
            return Err("the KV cache was written beside the step's rows".into());
        }
        for layer in 0..compiled.plan().kv.layers {
            let Some(cache) = state.get(&layer) else { continue };
            let parts = [
                (KvPart::Key, &cache.low.keys, &cache.high.keys),
                (KvPart::Value, &cache.low.values, &cache.high.values),
            ];
            for (part, low, high) in parts {
                for (sequence, rows) in batch.step.sequences() {
                    for &position in &batch.step.positions[rows] {
                        let Some((low, high)) = low.get(&sequence).zip(high.get(&sequence)) else { continue };
                        let found = after.row(layer, part, sequence, position as usize);
                        let range = position as usize * found.len()..(position as usize + 1) * found.len();
                        let row = Enclosure {
                            dtype: compiled.plan().kv.dtype,
                            sizes: vec![found.len()],
                            low: low[range.clone()].to_vec(),
                            high: high[range].to_vec(),
                        };
                        inside(&row, &found).map_err(|error| {
                            format!(
                                "{} of layer {layer}, sequence {sequence}, position {position}: {error}",
                                part.name()
                            )
                        })?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Every sequence alone gets the bits that it gets in company.
    fn check_alone(&self, compiled: &dyn Runs, logits: &[f32]) -> Result<(), String> {
        let batch = &self.batch;
        let vocab = compiled.plan().model.vocab;
        let sampled = &batch.step.sample_rows;
        for (id, rows) in batch.step.sequences() {
            let tokens = &batch.step.token_ids[rows.clone()];
            let own = |row: i32| rows.contains(&(row as usize));
            let mut step = StepInputs::batch(&[(id, batch.step.positions[rows.start] as usize, tokens)]);
            step.sample_rows =
                sampled.iter().copied().filter(|&row| own(row)).map(|row| row - rows.start as i32).collect();
            let in_company = sampled.iter().zip(logits.chunks_exact(vocab)).filter(|(row, _)| own(**row));
            let in_company: Vec<f32> = in_company.flat_map(|(_, logits)| logits.iter().copied()).collect();
            let mut pool = self.before.clone();
            let alone = pool.batch(&step);
            let alone = compiled.run(self.program, &alone, &mut pool, 1)?;
            same_bits(&in_company, &alone)
                .map_err(|error| format!("sequence {id} alone instead of in company: {error}"))?;
        }
        Ok(())
    }
}

/// Whether values are in their intervals.
///
/// # Errors
/// Which are not.
pub fn inside(expected: &Enclosure, values: &[f64]) -> Result<(), String> {
    let violations = expected.violations(values);
    let Some(&(at, value, low, high)) = violations.first() else { return Ok(()) };
    let row = expected.sizes.last().copied().unwrap_or(1).max(1);
    Err(format!(
        "{} of {} elements are wrong; the first, row {} column {}, is {value:?} but must be in {low:?} ..= {high:?}",
        violations.len(),
        values.len(),
        at / row,
        at % row,
    ))
}

fn same_bits(a: &[f32], b: &[f32]) -> Result<(), String> {
    assert_eq!(a.len(), b.len(), "as many values");
    let differing = a.iter().zip(b).position(|(a, b)| a.to_bits() != b.to_bits());
    match differing {
        Some(at) => Err(format!("element {at} of {} is {:?}, not {:?}", a.len(), b[at], a[at])),
        None => Ok(()),
    }
}
