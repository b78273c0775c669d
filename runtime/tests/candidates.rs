//! The kernel that finds the largest logits, on the PTX emulator, and lists as the threads of a CPU make them: the host
//! chooses from them the token that it would choose from the whole row, with the same random numbers, or notices that it takes
//! the row.

use llmc_ir::abi::Listed;
use llmc_ptx_emulator::{Argument, LaunchConfig, Memory, Module, launch};
use llmrt::sampler::{Finds, Found, PART, Sampler, SamplingParams, TOTAL_ERROR, words};

const PTX: &str = include_str!("../src/device/cuda/candidates.ptx");

/// What the kernel finds of rows of equal length, with a scale for each.
fn find(rows: &[Vec<f32>], scales: &[f32]) -> Vec<Option<Found>> {
    let module = Module::parse(PTX).unwrap();
    let mut memory = Memory::new();
    let vocab = rows[0].len();
    let upload = |memory: &mut Memory, floats: &mut dyn Iterator<Item = f32>| {
        let bytes: Vec<u8> = floats.flat_map(f32::to_le_bytes).collect();
        let address = memory.allocate(bytes.len() as u64);
        memory.write(address, &bytes).unwrap();
        address
    };
    let logits = upload(&mut memory, &mut rows.iter().flatten().copied());
    let exponents = upload(&mut memory, &mut scales.iter().map(|scale| scale * std::f32::consts::LOG2_E));
    let results = memory.allocate(4 * (rows.len() * words(vocab)) as u64);
    let arguments = [logits, exponents, results, vocab as u64].map(Argument::from);
    let config = LaunchConfig::new([vocab.div_ceil(PART) as u32, rows.len() as u32, 1], [1024, 1, 1], 0);
    launch(&module, "candidates", config, &arguments, &mut memory).unwrap();
    let found = memory.read(results, 4 * (rows.len() * words(vocab)) as u64).unwrap();
    let found: Vec<u32> = found.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect();
    let rows = found.chunks(words(vocab)).zip(scales);
    rows.map(|(words, &scale)| Found::of_parts(words, vocab, scale)).collect()
}

/// What so many threads list of a row, of which each looks at every so many blocks of 64.
fn list(row: &[f32], threads: usize) -> Option<Found> {
    let empty = Listed {
        logits: [[f32::NEG_INFINITY; Listed::LANES]; Listed::DEPTH],
        tokens: [[i32::MAX; Listed::LANES]; Listed::DEPTH],
    };
    let mut lists = vec![empty; threads];
    for (thread, list) in lists.iter_mut().enumerate() {
        for lane in 0..Listed::LANES {
            let own = (lane..row.len()).step_by(Listed::LANES).filter(|token| token / 64 % threads == thread);
            let mut own: Vec<(f32, i32)> = own
                .map(|token| if row[token].is_finite() { (row[token], token as i32) } else { (f32::INFINITY, -1) })
                .collect();
            own.sort_by(|a, b| b.0.partial_cmp(&a.0).unwrap());
            for (depth, (logit, token)) in own.into_iter().take(Listed::DEPTH).enumerate() {
                (list.logits[depth][lane], list.tokens[depth][lane]) = (logit, token);
            }
        }
    }
    Found::of_lists(lists.iter(), row.len())
}

/// Numbers that are distributed like logits: most are small and a few stand out. Every so many are equal.
fn row(length: usize, seed: u64, distinct: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 + 0.5) / (1u64 << 24) as f32
    };
    let scale = distinct as f32;
    (0..length).map(|_| ((-2.0 * uniform().ln()).sqrt() * 3.0 * (uniform() - 0.4) * scale).round() / scale).collect()
}

fn params(temperature: f32) -> SamplingParams {
    SamplingParams { temperature, ..SamplingParams::default() }
}

/// Ways to choose, and whether it must be clear from what is found of rows longer than a part.
fn ways() -> Vec<(SamplingParams, bool)> {
    let (top_k, top_p, min_p) = (Some(40), Some(0.7), Some(0.05));
    let penalty = Some(1.3);
    vec![
        (SamplingParams { top_k, ..params(0.8) }, true),
        (SamplingParams { top_k, top_p, ..params(1.2) }, true),
        (SamplingParams { top_k, top_p, min_p, ..params(0.7) }, true),
        (SamplingParams { top_p, ..params(0.25) }, true),
        (SamplingParams { top_p: Some(0.0), ..params(0.9) }, true),
        (SamplingParams { top_p, min_p, ..params(0.3) }, true),
        (SamplingParams { min_p, ..params(0.5) }, true),
        (SamplingParams { top_k: Some(20), repetition_penalty: penalty, ..params(1.0) }, true),
        (SamplingParams { min_p: Some(0.2), repetition_penalty: penalty, ..params(0.4) }, true),
        (SamplingParams { repetition_penalty: penalty, ..params(0.0) }, true),
        (SamplingParams { top_p: Some(0.999), ..params(4.0) }, false),
        (SamplingParams { top_k: Some(5000), top_p, ..params(0.5) }, false),
        (SamplingParams { min_p: Some(1e-6), ..params(2.0) }, false),
        (SamplingParams { top_p, repetition_penalty: penalty, ..params(1.0) }, false),
        (SamplingParams { top_k, repetition_penalty: Some(0.7), ..params(1.0) }, false),
        (params(1.0), false),
    ]
}

/// Runs every way on a row and counts by way how often it was clear.
fn compare(row: &[f32], seed: u64) -> Vec<bool> {
    let history: Vec<u32> =
        (0..20).map(|index| (index * 7919 + seed as u32) % row.len() as u32).chain([u32::MAX]).collect();
    let ways = ways().into_iter();
    ways.map(|(params, _)| {
        let params = SamplingParams { seed, ..params };
        let mut sampler = Sampler::new(&params);
        let mut by_row = sampler.clone();
        let found = find(&[row.to_vec()], &[sampler.scale()]).remove(0).unwrap();
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let term = |logit: &f32| ((f64::from(*logit) - f64::from(largest)) * f64::from(sampler.scale())).exp();
        let total: f64 = row.iter().map(term).sum();
        let found_total = found.total().unwrap();
        assert!((found_total / total - 1.0).abs() < TOTAL_ERROR, "{found_total} is not {total}");
        draw([&mut sampler, &mut by_row], &found, row, &history)
    })
    .collect()
}

/// Whether it is clear from what is found which tokens are drawn, which then are those of the whole row.
fn draw([sampler, by_row]: [&mut Sampler; 2], found: &Found, row: &[f32], history: &[u32]) -> bool {
    (0..5).all(|_| {
        let token = sampler.sample_found(found, history);
        let expected = token.map(|_| by_row.sample(row, history));
        assert_eq!(token, expected, "of {} logits", row.len());
        token.is_some()
    })
}

#[test]
fn tokens_are_those_of_the_whole_row() {
    for (seed, length) in [(1, 1), (2, 63), (3, 64), (4, 65), (5, 4095), (6, 4096), (7, 4160), (8, 9000), (9, 12288)] {
        for distinct in [3, 1000] {
            let row = row(length, seed, distinct);
            let clear = compare(&row, seed);
            for ((params, must), clear) in ways().into_iter().zip(clear) {
                // Where many are equal, more of them than are found may be the largest.
                let expected = length > PART && distinct > 3 || length <= 64;
                assert!(clear || !must || !expected, "{params:?} of {length} logits should be clear");
                assert!(sampler_tries(&params) || !clear || length <= 64, "{params:?}");
            }
        }
    }
}

/// Whether the engine would ask a GPU for candidates.
fn sampler_tries(params: &SamplingParams) -> bool {
    Sampler::new(params).may_do_with(Finds::Most)
}

#[test]
fn lists_of_threads_are_enough() {
    let penalty = Some(1.3);
    let ways = [
        (SamplingParams { top_k: Some(40), ..params(0.8) }, true),
        (SamplingParams { top_k: Some(40), top_p: Some(0.7), min_p: Some(0.05), ..params(1.2) }, true),
        (SamplingParams { top_k: Some(20), repetition_penalty: penalty, ..params(1.0) }, true),
        (SamplingParams { repetition_penalty: penalty, ..params(0.0) }, true),
        (SamplingParams { top_k: Some(1), ..params(1.0) }, true),
        (SamplingParams { top_k: Some(41), ..params(1.0) }, false),
        (SamplingParams { top_k: Some(21), repetition_penalty: penalty, ..params(1.0) }, false),
        (SamplingParams { top_k: Some(40), repetition_penalty: Some(0.7), ..params(1.0) }, false),
        (SamplingParams { top_k: Some(0), ..params(1.0) }, false),
        (SamplingParams { top_p: Some(0.7), ..params(0.25) }, false),
        (SamplingParams { min_p: Some(0.05), ..params(0.5) }, false),
        (params(1.0), false),
    ];
    let (mut tried, mut clear) = (0, 0);
    for length in [1, 15, 16, 100, 128, 129, 1000, 49152] {
        for (seed, threads) in (0..10).flat_map(|seed| [1, 2, 5].map(|threads| (seed, threads))) {
            let row = row(length, seed, if seed % 3 == 0 { 5 } else { 1000 });
            let found = list(&row, threads).unwrap();
            assert_eq!(found.total(), None);
            let history: Vec<u32> = (0..20).map(|index| index * 7919 % length as u32).collect();
            for (params, tries) in &ways {
                let params = SamplingParams { seed, ..params.clone() };
                let mut sampler = Sampler::new(&params);
                let mut by_row = sampler.clone();
                assert_eq!(sampler.may_do_with(Finds::Some { most: 40 }), *tries, "{params:?}");
                let is_clear = draw([&mut sampler, &mut by_row], &found, &row, &history);
                if *tries && length > 1000 && seed % 3 != 0 {
                    tried += 1;
                    clear += usize::from(is_clear);
                }
            }
        }
    }
    assert!(clear * 50 > tried * 49, "{clear} of {tried} were clear");
}

#[test]
fn lists_with_logits_that_are_not_finite_are_none() {
    for (length, at) in [(1, 0), (40, 39), (9000, 8999), (9000, 4096)] {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut row = row(length, 7, 9);
            assert!(list(&row, 3).is_some());
            row[at] = value;
            assert_eq!(list(&row, 3), None, "{value} at {at} of {length}");
        }
    }
}

#[test]
fn extreme_rows() {
    let mut peak = vec![-1e30; 5000];
    peak[4999] = 1e30;
    let zeros: Vec<f32> = (0..5000).map(|index| if index % 3 == 0 { -0.0 } else { 0.0 }).collect();
    let falling: Vec<f32> = (0..5000).map(|index| -(index as f32)).collect();
    for row in [peak, zeros, falling, vec![f32::MIN; 70], vec![f32::MAX; 64]] {
        compare(&row, 3);
    }
}

#[test]
fn rows_that_are_not_finite_are_told_apart() {
    for (length, at) in [(1, 0), (40, 39), (9000, 8999), (9000, 4096)] {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut rows: Vec<Vec<f32>> = (0..3).map(|seed| row(length, seed, 9)).collect();
            rows[1][at] = value;
            let found = find(&rows, &[1.0; 3]);
            assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, true], "{value} at {at}");
        }
    }
}

#[test]
fn each_row_has_its_own_scale() {
    let rows: Vec<Vec<f32>> = (0..3).map(|seed| row(9000, seed, 100)).collect();
    let scales = [0.5, 1.0, 3.0];
    let together = find(&rows, &scales);
    for (index, row) in rows.iter().enumerate() {
        assert_eq!(together[index], find(std::slice::from_ref(row), &scales[index..=index])[0]);
    }
}
