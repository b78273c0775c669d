//! What equality saturation makes of models: every function that it changes, saturated once, and its cheapest form for a
//! decode step, a batched one and a prompt, with the price of every line. The snapshots are meant to be read.

mod exact;
mod extraction;
mod subjects;

use llmc_ir::machine::Machine;
use llmc_ir::module::Function;
use llmc_ir::text::function_text;
use llmc_models::architecture::Architecture;
use llmc_models::config::ModelConfig;
use llmc_passes::eqsat::compare::{Column, side_by_side};
use llmc_passes::eqsat::cost::Target;
use llmc_passes::eqsat::extract::extract;
use llmc_passes::eqsat::form::form_cost;
use llmc_passes::eqsat::rules::rules;
use llmc_passes::eqsat::saturate::saturate;
use llmc_passes::eqsat::{best_form, explain};
use std::fmt::Write;
use subjects::*;

/// Snapshots lie beside those of the other tests.
macro_rules! assert_report {
    ($($arguments:expr),+) => {
        insta::with_settings!({ snapshot_path => "../snapshots" }, {
            insta::assert_snapshot!($($arguments),+);
        });
    };
}
use assert_report;

/// What every snapshot begins with.
const LEGEND: &str = "\
How to read this. The definition of a model says what a function computes, in one of many ways. Rewrite rules that hold for
all inputs add the other ways to an e-graph, a graph whose nodes are grouped into classes of equal values, until none finds
anything new. A form of the function is a choice of one node for each class that it needs. What it costs depends on the
step: the roofline of the machine prices each node at its bytes over the bandwidth or its operations over the peak,
whichever is longer, and its launches; the cheapest form is taken if it saves 1 % or more. So one e-graph gives one form for
a single token, which waits for weights to be read, and another for a prompt, which waits for arithmetic.

Each function has first its e-graph and the rules that made it. Then a table: a row for whatever takes time, a column for
each step, and in a cell how the kernel divides its work, how long that takes, what bounds it, what it moves and computes,
and what the ways that were not chosen would take (`a | b` is a product with joined weights, `apart` its parts one by one).
Below it each form in full, with what rewriting brought marked by `+`, and the price of every line that has one.
";

/// The report of a model on a machine.
fn report(config: &ModelConfig, machine: &str) -> String {
    let ModelConfig { hidden, heads, kv_heads, head_dim, intermediate, vocab, .. } = config;
    let sizes = format!(
        "hidden {hidden}, {heads} query and {kv_heads} key/value heads of {head_dim}, inside {intermediate}, vocabulary {vocab}"
    );
    let functions = canonical(config, config.windows.len()).functions;
    report_on(&format!("{}: {sizes}", config.architecture), functions, &Machine::named(machine).unwrap())
}

fn report_functions(title: &str, functions: Vec<Function>, machine: &str) -> String {
    report_on(title, functions, &Machine::named(machine).unwrap())
}

fn report_on(title: &str, functions: Vec<Function>, machine: &Machine) -> String {
    let mut out = format!("{title}\non {}\n\n{LEGEND}", describe(machine));
    for original in functions {
        report_function(&mut out, &original, machine).unwrap();
    }
    out
}

fn describe(machine: &Machine) -> String {
    let Machine { name, memory_bandwidth, matrix_flops, vector_flops, launch_seconds, units, .. } = machine;
    format!(
        "{name}: {:.0} GB/s of memory, {:.0} GFLOP/s of bf16 and {:.0} of f32 products, {:.0} elementwise, {units:.0} cores or \
         multiprocessors, {:.1} us to start a kernel",
        memory_bandwidth / 1e9,
        matrix_flops.bf16 / 1e9,
        matrix_flops.f32 / 1e9,
        vector_flops / 1e9,
        launch_seconds * 1e6
    )
}

fn report_function(out: &mut String, original: &Function, machine: &Machine) -> Result<(), std::fmt::Error> {
    let saturated = saturate(original, &rules()).unwrap();
    if saturated.statistics.fired.is_empty() {
        return writeln!(out, "\n================ @{}: no rule finds another way", original.name);
    }
    writeln!(out, "\n================ @{}\n", original.name)?;
    writeln!(out, "{}", explain::statistics(&saturated.statistics, &rules()))?;
    let targets = STEPS.map(|(_, sizes, promise)| Target { machine, sizes, promise });
    let forms = targets.map(|target| best_form(&saturated, original, &target).unwrap());
    let mut columns: Vec<Column<'_>> = Vec::new();
    for (((name, ..), target), form) in STEPS.iter().zip(&targets).zip(&forms) {
        let [before, after] = [original, form].map(|function| form_cost(function, target));
        let saved = |seconds: f64| format!("{:.1} %", 100.0 * (1.0 - seconds / before.seconds));
        let cheapest = extract(&saturated, target).unwrap().seconds();
        let verdict = match after.is_better_than(&before) {
            true => format!("{:.2} us ({} less)", 1e6 * after.seconds, saved(after.seconds)),
            false if cheapest >= before.seconds => "stays so: nothing is cheaper".to_owned(),
            false => format!("stays so: only {} to save", saved(cheapest)),
        };
        let title = vec![(*name).to_owned(), format!("as it came {:.2} us", 1e6 * before.seconds), verdict];
        columns.push(Column { title, form, target: *target });
    }
    writeln!(out, "{}", side_by_side(&columns))?;
    let mut known: Vec<(&str, String)> = Vec::new();
    for (((name, ..), target), form) in STEPS.iter().zip(&targets).zip(&forms) {
        writeln!(out, "---- @{} for {name}", original.name)?;
        let text = function_text(form);
        match known.iter().find(|(_, other)| *other == text) {
            Some((other, _)) => writeln!(out, "the same form as for {other}\n")?,
            None => writeln!(out, "{}", explain::priced(form, original, target)?)?,
        }
        known.push((name, text));
    }
    Ok(())
}

#[test]
fn tiny_models_on_the_host() {
    for architecture in Architecture::ALL {
        assert_report!(format!("tiny_{}", architecture.model_type()), report(&architecture.tiny(), "host"));
    }
}

#[test]
fn smollm2_on_the_host() {
    assert_report!(report(&smollm2(), "host"));
}

/// Columns are fewer than blocks that run at once: sums are split among them.
#[test]
fn smollm2_on_an_a100() {
    assert_report!(report(&smollm2(), "a100"));
}

#[test]
fn llama3_8b_on_an_a100() {
    assert_report!(report(&llama3_8b(), "a100"));
}

#[test]
fn weights_of_low_rank_on_an_a100() {
    let title = "A square weight and factors of rank 16 beside it, apart and put together; a weight in thin factors";
    assert_report!(report_functions(title, low_rank(), "a100"));
}

#[test]
fn written_out_attention_on_the_host() {
    let title =
        "Attention of 16 heads of 64 in primitives: scores times a constant, a softmax, its product with the values";
    assert_report!(report_functions(title, vec![written_out_attention()], "host"));
}

#[test]
fn latent_attention_on_an_a100() {
    let title = "Scores of multi-head latent attention: 16 heads of 128, keys made of a latent of 512";
    assert_report!(report_functions(title, vec![latent_attention()], "a100"));
}

/// Weights of a bf16 checkpoint under rows of f32.
#[test]
fn smollm2_in_f32_on_the_host() {
    let layer = canonical_in(&smollm2(), 1, wide()).functions.into_iter().filter(|function| function.name == "layer");
    assert_report!(report_functions("SmolLM2-135M's layer in f32, with weights in bf16", layer.collect(), "host"));
}

#[test]
fn smollm2_on_64_cores() {
    let host = Machine::named("host").unwrap();
    let layer = canonical(&smollm2(), 1).functions.into_iter().filter(|function| function.name == "layer");
    assert_report!(report_on("SmolLM2-135M's layer on a server with many cores", layer.collect(), &many_cores(&host)));
}
