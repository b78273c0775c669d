//! The quality of code for CPUs that multiply bf16, seen without one: the instructions of the loops that multiply, in a model
//! of real size.
//!
//! A product of tiles takes 16 cycles, so a loop is as fast as it can be if it has little else to do: four products need four
//! loads, and a few instructions that count and prefetch.

#[path = "gpu_code/models.rs"]
mod models;

use llmc_codegen::compile_host;
use llmc_codegen::disassemble::{disassemble, kernel_sizes};
use llmc_codegen::host::HostTarget;
use llmc_ir::dtype::DType;
use llmc_ir::machine::Machine;
use std::fmt::Write;

/// Instructions of a loop by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    products: usize,
    /// In f32.
    multiply_adds: usize,
    /// Of tiles.
    loads: usize,
    vector_loads: usize,
    /// Arithmetic and stores of vectors.
    vectors: usize,
    prefetches: usize,
    /// Addresses, counters and jumps.
    others: usize,
    /// What of the others reads or writes the stack: addresses that found no register.
    on_stack: usize,
}

impl Counts {
    fn add(&mut self, instruction: &str) {
        match instruction.split(' ').next().unwrap_or_default() {
            "tdpbf16ps" | "vdpbf16ps" | "vpmaddwd" => self.products += 1,
            "tileloadd" | "tileloaddt1" => self.loads += 1,
            "vbroadcastss" | "vpbroadcastd" | "vmovaps" | "vmovups" | "vmovdqa" => self.vector_loads += 1,
            "prefetcht0" | "prefetcht1" => self.prefetches += 1,
            name if name.starts_with('v') => {
                self.vectors += 1;
                self.multiply_adds += usize::from(name.starts_with("vfmadd"));
            }
            _ => self.others += 1,
        }
        self.on_stack += usize::from(instruction.contains("(%rsp"));
    }
}

/// The multiply functions of some code whose names have a part.
fn multiplies(code: &[u8], part: &str) -> Vec<String> {
    let is_one = |name: &String| name.starts_with("multiply_") && name.contains(part);
    kernel_sizes(code).unwrap().into_keys().filter(is_one).collect()
}

/// The innermost of the loops of a function that have some of a kind of instruction, in order.
fn loops(listing: &str, function: &str, some: impl Fn(&Counts) -> usize) -> Vec<Counts> {
    let lines = listing.lines().skip(1).map(|line| {
        let (offset, text) = line.trim_start().split_once("  ").expect("an offset and an instruction");
        (usize::from_str_radix(offset, 16).expect("an offset"), text)
    });
    let lines: Vec<(usize, &str)> = lines.collect();
    // Jumps back, and where to.
    let own = format!("# {function}+0x");
    let mut spans: Vec<(usize, usize)> = lines
        .iter()
        .filter_map(|&(offset, text)| {
            let target = text.split_once(&own).and_then(|(_, target)| usize::from_str_radix(target, 16).ok())?;
            (text.starts_with('j') && target <= offset).then_some((target, offset))
        })
        .collect();
    spans.sort_unstable();
    let all: Vec<((usize, usize), Counts)> = spans
        .iter()
        .map(|&(start, end)| {
            let mut counts = Counts::default();
            lines.iter().filter(|(offset, _)| (start..=end).contains(offset)).for_each(|(_, text)| counts.add(text));
            ((start, end), counts)
        })
        .filter(|(_, counts)| some(counts) > 0)
        .collect();
    let is_innermost = |&&((start, end), _): &&((usize, usize), Counts)| {
        !all.iter().any(|&((s, e), _)| (s, e) != (start, end) && s >= start && e <= end)
    };
    all.iter().filter(is_innermost).map(|&(_, counts)| counts).collect()
}

#[test]
fn loops_over_tiles_do_little_else() {
    let (_, planned) = models::all("host").into_iter().find(|(name, _)| *name == "d64").unwrap();
    let code = compile_host(&planned, &HostTarget::named("sapphirerapids").unwrap()).unwrap().shared_object;
    let mut table =
        String::from("kernel: products, loads, prefetches, vector instructions, others, any on the stack\n");
    let mut whole_blocks = 0;
    for function in kernel_sizes(&code).unwrap().into_keys() {
        let found = loops(&disassemble(&code, &function).unwrap(), &function, |counts| counts.products);
        for counts in found {
            let Counts { products, loads, vector_loads, vectors, prefetches, others, on_stack, .. } = counts;
            let beside = vector_loads + vectors;
            writeln!(table, "{function}: {products}, {loads}, {prefetches}, {beside}, {others}, {on_stack}").unwrap();
            assert!(matches!((products, loads), (2, 3) | (4, 4)), "{function}: {counts:?}");
            whole_blocks += usize::from(products == 4);
            // Where rows are worked on beside the products, they have addresses of their own; four products take 64 cycles.
            let is_alone = function.starts_with("tiles_");
            let most = if is_alone { (16, 2) } else { (40, 16) };
            assert!(others <= most.0 && on_stack <= most.1 && prefetches <= 32, "{function}: {counts:?}");
        }
    }
    assert!(whole_blocks >= 6, "too few loops have four products:\n{table}");
    insta::assert_snapshot!("loops_over_tiles", table);
}

/// Softmax beside the products of attention has few instructions, since most of them wait for the same two ports: behind the
/// largest score 17 for 32 scores of a row, besides loads and stores.
#[test]
fn softmax_beside_tiles_is_short() {
    let (_, planned) = models::all("host").into_iter().find(|(name, _)| *name == "d64").unwrap();
    let code = compile_host(&planned, &HostTarget::named("sapphirerapids").unwrap()).unwrap().shared_object;
    let functions: Vec<String> =
        kernel_sizes(&code).unwrap().into_keys().filter(|name| name.starts_with("soften_")).collect();
    assert_eq!(functions.len(), 1, "{functions:?}");
    let listing = disassemble(&code, &functions[0]).unwrap();
    // Instructions by name between the first that takes a fraction and the jump back.
    let names = listing.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1));
    let hot: Vec<&str> =
        names.skip_while(|name| *name != "vreduceps").take_while(|name| !name.starts_with('j')).collect();
    let count = |prefix: &str| hot.iter().filter(|name| name.starts_with(prefix)).count();
    // Two vectors of each of four rows.
    assert_eq!((count("vreduceps"), count("vscalefps"), count("vcvtne2ps2bf16")), (8, 8, 4), "{listing}");
    // One multiply-add is before the first fraction.
    assert_eq!((count("vfmadd"), count("vaddps"), count("vmulps")), (8 * 5 - 1, 8, 0), "{listing}");
}

/// A block of 12 rows and two tiles loads as little as it can: a line of each tile, and a pair of each row, for 24 products.
/// Nothing goes through the stack, and nothing is made f32.
#[test]
fn loops_over_pairs_do_little_else() {
    let (_, planned) = models::all("host").into_iter().find(|(name, _)| *name == "d64").unwrap();
    let code = compile_host(&planned, &HostTarget::named("znver4").unwrap()).unwrap().shared_object;
    let functions = multiplies(&code, "_pairs_");
    let mut whole_blocks = 0;
    for function in &functions {
        let found = loops(&disassemble(&code, function).unwrap(), function, |counts| counts.products);
        assert!(!found.is_empty(), "{function} multiplies nothing");
        for counts in found {
            let Counts { products, vector_loads, vectors, prefetches, others, on_stack, .. } = counts;
            assert!(vector_loads <= products + 4 && vectors + others <= 8 && on_stack == 0, "{function}: {counts:?}");
            if (products, prefetches) == (24, 2) {
                assert_eq!(vector_loads, 14, "{function}: {counts:?}");
                whole_blocks += 1;
            }
        }
    }
    assert!(whole_blocks >= 3, "too few loops have whole blocks: {functions:?}");
}

/// Where registers are few, the sums of six rows of 16 columns take all but four, and a store costs as much time as a multiply-add.
/// So nothing goes through the stack, and eight k have, beside 96 multiply-adds, a load for each element of the rows and some of weights
/// and as few instructions as make weights f32.
#[test]
fn sums_in_few_registers_stay_there() {
    let (_, planned) = models::all("host").into_iter().find(|(name, _)| *name == "d64").unwrap();
    let code = compile_host(&planned, &HostTarget::named("x86-64-v3").unwrap()).unwrap().shared_object;
    let functions = multiplies(&code, "_turns");
    for function in &functions {
        let found = loops(&disassemble(&code, function).unwrap(), function, |counts| counts.multiply_adds);
        assert!(found.iter().all(|counts| counts.on_stack == 0), "{function}: {found:?}");
        let whole: Vec<&Counts> = found.iter().filter(|counts| counts.multiply_adds == 96).collect();
        let &[counts] = &whole[..] else { panic!("{function} has no block of six rows: {found:?}") };
        assert!(counts.vectors - counts.multiply_adds <= 24 && counts.vector_loads <= 58, "{function}: {counts:?}");
    }
    assert!(!functions.is_empty());
}

/// The same of sums of integers in block floating point: four k have 24 products, of two k each, and as many additions. What a block of
/// 64 k takes besides goes through registers as well.
#[test]
fn sums_of_integers_in_few_registers_stay_there() {
    let target = HostTarget::named("x86-64-v3").unwrap();
    let machine = Machine { block_float: target.block_float(), ..Machine::named("host").unwrap() };
    let planned = models::planned(models::sizes(2048, (32, 8, 64), 8192), DType::BF16, machine);
    let code = compile_host(&planned, &target).unwrap().shared_object;
    let functions = multiplies(&code, "_blocks_");
    for function in &functions {
        let listing = disassemble(&code, function).unwrap();
        let found = loops(&listing, function, |counts| counts.products);
        let whole: Vec<&Counts> = found.iter().filter(|counts| counts.products == 24).collect();
        assert!(!whole.is_empty(), "{function} has no block of six rows: {found:?}");
        for counts in whole {
            let Counts { vector_loads, vectors, others, on_stack, .. } = *counts;
            assert!(vectors == 24 && vector_loads == 16 && others <= 8 && on_stack == 0, "{function}: {counts:?}");
        }
        assert!(!listing.lines().any(|line| line.contains("ymm") && line.contains("(%rsp")), "{listing}");
    }
    assert!(!functions.is_empty());
}
