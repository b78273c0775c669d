//! A plan as text, for people.

use llmc_ir::dim::Symbol;
use llmc_ir::plan::{KV_BLOCK_POSITIONS, Launch, Operand, PackedWeight, Plan, Program, Rounded, WeightLayout};
use llmc_ir::shape::Shape;
use std::fmt::{self, Write};

/// The plan as text: memory, weights, and per program the launches of each function and the calls.
pub fn print_plan(plan: &Plan) -> String {
    let mut text = String::new();
    write_plan(&mut text, plan).expect("text grows");
    text
}

fn write_plan(out: &mut String, plan: &Plan) -> fmt::Result {
    let model = &plan.model;
    writeln!(
        out,
        "plan {} {}: {} layers, hidden {}, vocabulary {}, context <= {}, batch <= {}",
        model.architecture, model.dtype, model.layers, model.hidden, model.vocab, model.max_context, model.max_batch
    )?;
    let kv = &plan.kv;
    writeln!(
        out,
        "kv {} layers of {} x {}, {}: {} bytes per block of {KV_BLOCK_POSITIONS} positions",
        kv.layers,
        kv.heads,
        kv.head_dim,
        kv.dtype,
        kv.block_bytes()
    )?;
    writeln!(out, "\nweights {{ // {} bytes", plan.weights.iter().map(|weight| weight.bytes).sum::<u64>())?;
    let width = plan.weights.iter().map(|weight| weight.name.len()).max().unwrap_or(0);
    for (index, weight) in plan.weights.iter().enumerate() {
        let PackedWeight { name, dtype, shape, layout, bytes } = weight;
        let layout = match layout {
            WeightLayout::RowMajor => "row-major",
            WeightLayout::Panels => "panels",
            WeightLayout::Compressed => "compressed",
            WeightLayout::Rounded => "rounded",
        };
        writeln!(out, "  {index}: {name:width$} {dtype}{} {layout} {bytes}", Shape::of(shape))?;
    }
    writeln!(out, "}}")?;
    plan.programs.iter().try_for_each(|program| write_program(out, plan, program))
}

fn write_program(out: &mut String, plan: &Plan, program: &Program) -> fmt::Result {
    let max = Symbol::ALL.map(|symbol| format!("{symbol} <= {}", program.bounds.max.get(symbol))).join(", ");
    let promise = if program.bounds.one_token_per_sequence { ", tokens = sequences = samples" } else { "" };
    let barriers: usize = program.calls.iter().map(|call| barriers(&program.functions[call.function].launches)).sum();
    let (launches, bytes) = (program.launches_per_step(), program.arena_bytes);
    writeln!(out, "\nprogram @{} {{{max}{promise}}}", program.name)?;
    writeln!(out, "// a step: {launches} launches, {barriers} barriers, {bytes} bytes of arena")?;
    for function in &program.functions {
        writeln!(out, "\nfunc @{} {{", function.name)?;
        for launch in &function.launches {
            if launch.barrier {
                writeln!(out, "  barrier")?;
            }
            let (inputs, outputs) = (operands(&launch.inputs), operands(&launch.outputs));
            writeln!(out, "  {outputs} = {}({inputs})", launch.kernel)?;
        }
        writeln!(out, "}}")?;
    }
    writeln!(out, "\nstep {{")?;
    for call in &program.calls {
        let function = &program.functions[call.function];
        write!(out, "  call @{}", function.name)?;
        if function.launches.iter().any(|launch| launch.inputs.contains(&Operand::Kv)) {
            write!(out, " kv {}", call.kv_layer)?;
        }
        if !call.weights.is_empty() {
            write!(out, " weights {}", ranges(&call.weights))?;
        }
        if let Some(search) = program.search.as_ref().filter(|search| search.function == call.function) {
            match search.rounded {
                Some(Rounded { weight, rows, .. }) => write!(out, ", searches up to {rows} rows by {weight}")?,
                None => write!(out, ", searches")?,
            }
        }
        let first = call.weights.first().and_then(|&index| plan.weights.get(index));
        match first {
            Some(weight) => writeln!(out, " // {}, ...", weight.name)?,
            None => writeln!(out)?,
        }
    }
    writeln!(out, "}}")
}

fn barriers(launches: &[Launch]) -> usize {
    launches.iter().filter(|launch| launch.barrier).count()
}

fn operands(operands: &[Operand]) -> String {
    let text = |operand: &Operand| match operand {
        Operand::Arena { offset, bytes } => format!("arena[{offset} +{bytes}]"),
        Operand::Weight { slot } => format!("weight {slot}"),
        Operand::Step { input } => input.name().to_owned(),
        Operand::Kv => "kv".to_owned(),
        Operand::Logits => "logits".to_owned(),
    };
    operands.iter().map(text).collect::<Vec<_>>().join(", ")
}

/// `1..=4, 7` for 1, 2, 3, 4, 7.
fn ranges(numbers: &[usize]) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &number in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let text = |&(first, last): &(usize, usize)| match last - first {
        0 => first.to_string(),
        _ => format!("{first}..={last}"),
    };
    runs.iter().map(text).collect::<Vec<_>>().join(", ")
}
