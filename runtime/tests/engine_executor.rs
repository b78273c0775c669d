//! The executor on real (if tiny) native code: results, program choice, threads, bad steps.

mod support;

use llmrt::device::DeviceChoice;
use llmrt::executor::{Executor, ExecutorError, ExecutorOptions, SampleRows, Step, StepSequence};
use std::sync::Arc;
use support::*;

/// Part of a step for `tokens[start..end]` with blocks `first_block, first_block + 1, ...`.
fn part(tokens: &[u32], start: usize, end: usize, first_block: u32, sample: SampleRows) -> StepSequence {
    StepSequence {
        tokens: tokens[start..end].to_vec(),
        start_position: start as u32,
        // Not in order, so that a wrong table shows.
        block_table: (first_block..first_block + BLOCKS as u32).rev().collect(),
        sample,
    }
}

fn run(executor: &mut Executor, sequences: Vec<StepSequence>) -> Vec<Vec<f32>> {
    let step = Step { sequences };
    let logits = executor.run(&step).unwrap();
    (0..logits.rows()).map(|row| logits.row(row).to_vec()).collect()
}

fn argmax(row: &[f32]) -> u32 {
    (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap() as u32
}

#[test]
fn rows_come_in_order_and_see_their_own_sequence() {
    let mut executor = executor(2);
    let (a, b, c) = (prompt(70, 1), prompt(70, 2), prompt(70, 3));
    run(&mut executor, vec![part(&a, 0, 35, 0, SampleRows::None), part(&b, 0, 5, 8, SampleRows::Last)]);
    run(&mut executor, vec![part(&a, 35, 37, 0, SampleRows::None), part(&b, 5, 40, 8, SampleRows::None)]);
    let rows = run(
        &mut executor,
        vec![
            part(&a, 37, 40, 0, SampleRows::All),
            part(&c, 0, 20, 16, SampleRows::None),
            part(&b, 40, 41, 8, SampleRows::Last),
        ],
    );
    let expected = [&a[..38], &a[..39], &a[..40], &b[..41]].map(next_token);
    assert_eq!(rows.iter().map(|row| argmax(row)).collect::<Vec<_>>(), expected);
    assert_eq!(rows[0][50], 0.05, "the bias comes from the weight table");
}

#[test]
fn the_tightest_program_runs() {
    let mut executor = executor(1);
    let a = prompt(70, 1);
    let program = |rows: &[Vec<f32>]| rows[0][VOCAB - 1];
    assert_eq!(program(&run(&mut executor, vec![part(&a, 0, 1, 0, SampleRows::Last)])), DECODE);
    assert_eq!(program(&run(&mut executor, vec![part(&a, 1, 3, 0, SampleRows::Last)])), PREFILL);
    let decode = |block: u32| part(&a, 0, 1, block * 8, SampleRows::Last);
    assert_eq!(program(&run(&mut executor, (0..6).map(decode).collect())), DECODE);
    // Nothing to sample from one of them: not what a decode program was promised.
    let rows = run(&mut executor, vec![decode(0), part(&a, 0, 1, 8, SampleRows::None)]);
    assert_eq!((rows.len(), program(&rows)), (1, PREFILL));
    assert_eq!(run(&mut executor, vec![part(&a, 0, 30, 0, SampleRows::None)]).len(), 0);
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let a = prompt(40, 5);
    let results = [1, 2, 3, 16].map(|threads| {
        let mut executor = executor(threads);
        assert_eq!(executor.threads(), Some(threads));
        let mut rows = run(&mut executor, vec![part(&a, 0, 20, 0, SampleRows::All)]);
        for end in 21..40 {
            rows.extend(run(&mut executor, vec![part(&a, end - 1, end, 0, SampleRows::Last)]));
        }
        rows
    });
    for other in &results[1..] {
        assert_eq!(other, &results[0]);
    }
}

#[test]
fn steps_that_fit_no_program_are_refused() {
    let mut executor = executor(1);
    assert_eq!(executor.max_step_tokens(), CHUNK);
    let a = prompt(200, 1);
    let too_long = Step { sequences: vec![part(&a, 0, CHUNK + 1, 0, SampleRows::Last)] };
    let error = executor.run(&too_long).unwrap_err();
    assert!(matches!(error, ExecutorError::TooLarge { tokens: 41, .. }));
    assert!(error.to_string().contains("prefill: 40 tokens, 20 rows, 6 sequences"), "{error}");
    let too_many_rows = Step { sequences: vec![part(&a, 0, SAMPLES + 1, 0, SampleRows::All)] };
    assert!(matches!(executor.run(&too_many_rows), Err(ExecutorError::TooLarge { .. })));
    let bad_token = Step { sequences: vec![part(&[VOCAB as u32], 0, 1, 0, SampleRows::Last)] };
    assert!(executor.run(&bad_token).unwrap_err().to_string().contains("token id 101"));
}

#[test]
fn nan_is_reported_and_its_blocks_can_be_wiped() {
    let mut executor = executor(2);
    let good = prompt(10, 1);
    let bad = [1, 2, POISON, 3];
    let step = Step {
        sequences: vec![
            part(&good, 0, 10, 0, SampleRows::All),
            part(&bad, 0, 2, 8, SampleRows::Last),
            part(&bad, 0, 4, 16, SampleRows::Last),
        ],
    };
    let error = executor.run(&step).unwrap_err();
    assert!(matches!(error, ExecutorError::NonFinite { sequence: 2, value } if value.is_nan()), "{error}");
    executor.wipe_blocks(&[23]).unwrap();
    // The blocks of the third sequence were in reverse: its token 2 was in block 23.
    let clean = [1, 2, 0, 3, 4];
    let rows = run(&mut executor, vec![part(&clean, 4, 5, 16, SampleRows::Last)]);
    assert_eq!(argmax(&rows[0]), next_token(&[0, 0, 0, 0, 4]));
}

#[test]
fn several_models_are_loaded_side_by_side() {
    let mut executors: Vec<Executor> = (0..3).map(|_| executor(2)).collect();
    executors.remove(1);
    executors.push(executor(1));
    let a = prompt(9, 4);
    for executor in &mut executors {
        let rows = run(executor, vec![part(&a, 0, 9, 0, SampleRows::Last)]);
        assert_eq!(argmax(&rows[0]), next_token(&a));
    }
}

#[test]
fn what_this_machine_cannot_run_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let open = |features: &[&str], code: &[u8], options| {
        let artifact = Arc::new(artifact(directory.path(), features, code));
        Executor::new(artifact, options).err().unwrap().to_string()
    };
    let options = ExecutorOptions {
        device: DeviceChoice::Host,
        threads: Some(1),
        kv_blocks: Some(BLOCKS),
        ..ExecutorOptions::default()
    };
    let error = open(&["sse2", "avx9000", "amx-coffee"], shared_object(), options);
    assert!(
        error.contains("toy needs avx9000, amx-coffee") && error.contains("llmc compile --target x86-64"),
        "{error}"
    );
    let error = open(&["sse2"], b"not an ELF file", options);
    assert!(error.contains("cannot load the code for toy"), "{error}");
    let error =
        open(&["sse2"], shared_object(), ExecutorOptions { device: DeviceChoice::Host, threads: Some(0), ..options });
    assert!(error.contains("0 threads"), "{error}");
    let error = open(&["sse2"], shared_object(), ExecutorOptions { kv_blocks: Some(BLOCKS - 1), ..options });
    assert!(error.contains("room for 7 blocks") && error.contains("needs 8"), "{error}");
}

#[test]
fn defaults_suit_the_machine() {
    let directory = tempfile::tempdir().unwrap();
    let artifact = Arc::new(artifact(directory.path(), &["sse2"], shared_object()));
    let executor = Executor::new(artifact, ExecutorOptions::default()).unwrap();
    assert_eq!(executor.kv_blocks(), BATCH * BLOCKS);
    assert!(executor.threads() >= Some(1));
    assert_eq!(executor.target(), "toy");
}
