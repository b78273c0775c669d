//! Neither a sequence's neighbours in a step nor the number of threads changes a bit of its logits.

use super::support::golden::of_tiny;
use super::support::logits::{executor, part};
use super::support::models::{artifact, tiny};
use llmrt::executor::{Executor, SampleRows, Step};
use std::path::Path;

/// One with a sliding window and one without.
const MODELS: [&str; 2] = ["llama", "mistral"];
/// Fewer than CPUs, as many, more, and more than a single level of barriers takes.
const THREADS: [usize; 4] = [1, 2, 3, 5];
/// Blocks from one sequence's first to the next one's.
const STRIDE: usize = 8;
/// Which sequences share a step.
const COMPANIES: [&[usize]; 4] = [&[0, 1, 2, 3, 4, 5], &[5, 4, 3, 2, 1, 0], &[5, 0, 3], &[1, 4]];

/// Sequences of different lengths out of the golden prompts.
fn sequences(name: &str) -> Vec<Vec<u32>> {
    let [short, middle, long] = of_tiny(name).try_into().unwrap();
    let tail = long.ids[77..].to_vec();
    vec![long.ids.clone(), short.ids, tail, middle.ids, long.ids[..1].to_vec(), long.ids[..33].to_vec()]
}

/// Steps of the last `new` tokens of sequences (of all tokens where there are fewer).
struct Steps<'a> {
    executor: Executor,
    sequences: &'a [Vec<u32>],
    new: usize,
}

impl Steps<'_> {
    fn start(&self, sequence: usize) -> usize {
        self.sequences[sequence].len().saturating_sub(self.new)
    }

    /// Reads what comes before the new tokens.
    fn fill(&mut self) {
        for (index, tokens) in self.sequences.iter().enumerate() {
            let start = self.start(index);
            if start > 0 {
                let before = part(&tokens[..start], 0, STRIDE * index, SampleRows::None);
                self.executor.run(&Step { sequences: vec![before] }).unwrap();
            }
        }
    }

    /// The bits of the last logits of each of `company`, in one step.
    fn run(&mut self, company: &[usize]) -> Vec<Vec<u32>> {
        let new = |&index: &usize| {
            let start = self.start(index);
            part(&self.sequences[index][start..], start, STRIDE * index, SampleRows::Last)
        };
        let step = Step { sequences: company.iter().map(new).collect() };
        let logits = self.executor.run(&step).unwrap();
        (0..logits.rows()).map(|row| logits.row(row).iter().map(|logit| logit.to_bits()).collect()).collect()
    }
}

/// Alone and in any company, with any number of threads, each sequence gets the same bits.
fn assert_alike(artifact: &Path, sequences: &[Vec<u32>], new: usize) {
    let mut known: Vec<Option<Vec<u32>>> = vec![None; sequences.len()];
    for threads in THREADS {
        let mut steps = Steps { executor: executor(artifact, threads), sequences, new };
        steps.fill();
        // A step of one token alone is the decode program's; with longer neighbours it is the prefill program's.
        let alone = (0..sequences.len()).filter(|&index| new == 1 || sequences[index].len() > 1);
        for company in alone.map(|index| vec![index]).chain(COMPANIES.map(<[usize]>::to_vec)) {
            for (logits, &index) in steps.run(&company).into_iter().zip(&company) {
                let what = format!("{}, {new} new tokens, {threads} threads", artifact.display());
                let same = *known[index].get_or_insert_with(|| logits.clone()) == logits;
                assert!(same, "{what}: sequence {index} differs in {company:?}");
            }
        }
    }
}

#[test]
fn f32_does_not_depend_on_company_or_threads() {
    for name in MODELS {
        let artifact = artifact(&tiny(name), &["--dtype", "f32"]);
        // Single tokens are for the decode program, several for the prefill program.
        [1, 2, 200].into_iter().for_each(|new| assert_alike(&artifact, &sequences(name), new));
    }
}

#[test]
fn bf16_does_not_depend_on_company_or_threads() {
    for name in MODELS {
        let artifact = artifact(&tiny(name), &["--dtype", "bf16"]);
        [1, 2, 200].into_iter().for_each(|new| assert_alike(&artifact, &sequences(name), new));
    }
}
