//! Would the tests of the runtime's own kernels notice a defect? Seeded ones change what a kernel says of some row, or stop it.

use llmc_ptx_emulator::mutate::{Mutant, mutants, sample};
use llmc_ptx_emulator::{Argument, LaunchConfig, LaunchError, Memory, Module, launch};

/// Defects of one kind that are tried.
const PER_KIND: usize = 4;

/// Logits per row: fewer than a block has threads, some that fill no load, and the beginning of another part.
const VOCABULARIES: [usize; 4] = [70, 2500, 3100, 4200];

/// Defects that are none: of which kind, in which statement, and why.
const NONE: [(&str, &str, &str); 8] = [
    ("bound off by one", "setp.lt.u32 %lower,", "equal ids are the same token"),
    ("comparison inverted", "setp.eq.u32 %first,", "all lanes have come to the same result"),
    ("comparison inverted", "setp.eq.u32 %leader,", "all lanes have come to the same result"),
    ("guard dropped", "@%leader st.shared", "all lanes have come to the same result"),
    ("guard negated", "@%leader st.shared", "all lanes have come to the same result"),
    ("guard dropped", "@%first st.global", "all lanes have come to the same result"),
    ("guard negated", "@%first st.global", "all lanes have come to the same result"),
    ("shift or field off by one", "shr.s32 %sign,", "the sign fills the word either way"),
];

/// What a kernel makes of rows, as bytes.
type Run = fn(&Module, &[Vec<f32>], u64) -> Result<Vec<u8>, LaunchError>;

fn launched(
    module: &Module,
    kernel: &str,
    (grid, limit): ([u32; 3], u64),
    (rows, scales): (&[Vec<f32>], &[f32]),
    bytes: u64,
) -> Result<Vec<u8>, LaunchError> {
    let mut memory = Memory::new();
    let mut upload = |floats: &mut dyn Iterator<Item = &f32>| {
        let bytes: Vec<u8> = floats.flat_map(|float| float.to_le_bytes()).collect();
        let address = memory.allocate(bytes.len() as u64);
        memory.write(address, &bytes).unwrap();
        address
    };
    let logits = upload(&mut rows.iter().flatten());
    let scales = (!scales.is_empty()).then(|| upload(&mut scales.iter()));
    let results = memory.allocate(bytes);
    let vocab = rows[0].len() as u64;
    let addresses = [Some(logits), scales, Some(results), Some(vocab)];
    let arguments: Vec<Argument> = addresses.into_iter().flatten().map(Argument::from).collect();
    let config = LaunchConfig { instruction_limit: limit, ..LaunchConfig::new(grid, [1024, 1, 1], 0) };
    launch(module, kernel, config, &arguments, &mut memory)?;
    Ok(memory.read(results, bytes).map_or_else(|_| Vec::new(), <[u8]>::to_vec))
}

fn likeliest(module: &Module, rows: &[Vec<f32>], limit: u64) -> Result<Vec<u8>, LaunchError> {
    launched(module, "likeliest", ([rows.len() as u32, 1, 1], limit), (rows, &[]), 4 * rows.len() as u64)
}

fn candidates(module: &Module, rows: &[Vec<f32>], limit: u64) -> Result<Vec<u8>, LaunchError> {
    let scales: Vec<f32> = (0..rows.len()).map(|row| 0.5 + row as f32).collect();
    let parts = rows[0].len().div_ceil(4096);
    let grid = [parts as u32, rows.len() as u32, 1];
    launched(module, "candidates", (grid, limit), (rows, &scales), (528 * parts * rows.len()) as u64)
}

/// Rows in which numbers repeat: where the largest is in one place, in several, and where one is not finite.
fn rows(vocab: usize) -> Vec<Vec<f32>> {
    let row = |seed: usize| (0..vocab).map(move |index| ((index * 7919 + seed * 104_729) % 4001) as f32 / 64.0 - 50.0);
    let mut rows: Vec<Vec<f32>> = (0..12).map(|seed| row(seed).collect()).collect();
    for (seed, row) in rows.iter_mut().enumerate() {
        // Once, in other lanes, warps and parts of the row each time; then as one of several.
        let places: Vec<usize> = (0..=seed % 4).map(|turn| (seed * 1361 + turn * 1733) % vocab).collect();
        places.iter().for_each(|&place| row[place] = 99.0);
    }
    rows[3] = vec![-1.5; vocab];
    rows[4][vocab - 1] = 100.0;
    for (row, place) in [(5, 0), (6, vocab - 1), (7, vocab / 2), (8, vocab.saturating_sub(1030)), (9, 777 % vocab)] {
        rows[row][place] = if row % 2 == 0 { f32::NAN } else { f32::NEG_INFINITY };
    }
    rows
}

fn missed(text: &str, run: Run) -> (usize, Vec<Mutant>) {
    let module = Module::parse(text).unwrap();
    let trials = VOCABULARIES.map(rows);
    let trials = trials.map(|rows| (run(&module, &rows, u64::MAX).unwrap(), rows));
    let mut all = sample(mutants(text), PER_KIND);
    let none = |mutant: &Mutant| NONE.iter().any(|(kind, at, _)| mutant.kind == *kind && mutant.before.starts_with(at));
    all.retain(|mutant| !none(mutant));
    let count = all.len();
    let missed = all.into_iter().filter(|mutant| {
        let module = Module::parse(&mutant.apply(text)).unwrap_or_else(|error| panic!("{error}: {}", mutant.text));
        let mut trials = trials.iter();
        trials.all(|(sound, rows)| run(&module, rows, 40_000_000).is_ok_and(|result| result == *sound))
    });
    (count, missed.collect())
}

#[test]
fn seeded_defects_are_found() {
    let kernels: [(&str, Run); 2] = [
        (include_str!("../src/device/cuda/likeliest.ptx"), likeliest),
        (include_str!("../src/device/cuda/candidates.ptx"), candidates),
    ];
    for (text, run) in kernels {
        let (tried, missed) = missed(text, run);
        println!("{} of {tried} are missed", missed.len());
        let list: Vec<String> = missed
            .iter()
            .map(|mutant| format!("{}: {}: {}", mutant.lines.start + 1, mutant.kind, mutant.before))
            .collect();
        assert!(tried >= 30 && 10 * missed.len() <= tried, "of {tried}:\n{}", list.join("\n"));
    }
}
