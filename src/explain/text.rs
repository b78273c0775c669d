//! The report for a terminal: phases, equality saturation, programs with their dearest kernels, memory.

use super::report::{Bracket, Form, Grid, Kernel, Pass, Program, Report, Saturation, Size};
use llmc_passes::eqsat::explain::quantity;
use std::fmt::{self, Write};

/// Kernels that are listed of each program: those that take most of its time.
const LISTED_KERNELS: usize = 6;

/// Names of weights that are listed.
const LISTED_WEIGHTS: usize = 8;

/// The report as text. Times are left out if `timing` of the report is empty.
///
/// # Errors
/// Never: text grows.
pub fn text(report: &Report) -> Result<String, fmt::Error> {
    let mut out = String::new();
    head(&mut out, report)?;
    phases(&mut out, report)?;
    saturation(&mut out, report)?;
    programs(&mut out, report)?;
    gpus(&mut out, report)?;
    memory(&mut out, report)?;
    Ok(out)
}

fn head(out: &mut String, report: &Report) -> fmt::Result {
    let Report { model, machines, .. } = report;
    let size = report.bytes.map_or("shapes only".to_owned(), |bytes| quantity(bytes as f64, "B"));
    writeln!(out, "{}: {size}, llmc {}", report.artifact, report.compiler_version)?;
    writeln!(
        out,
        "model    {}, {} parameters, {}, {} layers, hidden {}, vocabulary {}",
        model.architecture,
        quantity(model.parameters as f64, ""),
        model.dtype,
        model.layers,
        model.hidden,
        model.vocab
    )?;
    for machine in machines.iter() {
        writeln!(
            out,
            "machine  {}: {}/s memory, {}/s bf16 and {}/s f32 products, {}/s elementwise, {} per launch",
            machine.name,
            quantity(machine.memory_bandwidth, "B"),
            quantity(machine.matrix_flops.bf16, "FLOP"),
            quantity(machine.matrix_flops.f32, "FLOP"),
            quantity(machine.vector_flops, "FLOP"),
            seconds(machine.launch_seconds)
        )?;
        writeln!(out, "         {}", machine.source)?;
    }
    report.notes.iter().try_for_each(|note| writeln!(out, "note     {note}"))
}

fn phases(out: &mut String, report: &Report) -> fmt::Result {
    writeln!(out, "\nPASSES")?;
    let columns = ["phase", "pass", "nodes", "new", "dots", "regions", "time"];
    let line = |out: &mut String, [phase, pass, nodes, new, dots, regions, time]: [&str; 7]| {
        let text = format!("  {phase:<12} {pass:<11} {nodes:<14} {new:>5}  {dots:<10} {regions:<9} {time:>9}");
        writeln!(out, "{}", text.trim_end())
    };
    line(out, columns)?;
    let mut times = report.timing.passes.iter();
    for phase in &report.phases {
        for (index, pass) in phase.passes.iter().enumerate() {
            let Pass { before, after, new_nodes, .. } = pass;
            let change = |of: fn(&Size) -> usize| match (of(before), of(after)) {
                (before, after) if before == after => after.to_string(),
                (before, after) => format!("{before} -> {after}"),
            };
            let name = if index == 0 { phase.name } else { "" };
            let new = new_nodes.map(|new| if new == 0 { "-".to_owned() } else { new.to_string() }).unwrap_or_default();
            let (nodes, dots, regions) =
                (change(|size| size.nodes), change(|size| size.dots), change(|size| size.regions));
            let time = times.next().map(|time| seconds(time.seconds)).unwrap_or_default();
            line(out, [name, pass.name, &nodes, &new, &dots, &regions, &time])?;
        }
    }
    if !report.timing.passes.is_empty() {
        writeln!(out, "  all of it, verified after each pass: {}", seconds(report.timing.total_seconds))?;
    }
    Ok(())
}

fn saturation(out: &mut String, report: &Report) -> fmt::Result {
    writeln!(out, "\nEQUALITY SATURATION")?;
    if report.saturation.is_empty() {
        return writeln!(out, "  did not run");
    }
    let (changed, unchanged): (Vec<&Saturation>, Vec<&Saturation>) =
        report.saturation.iter().partition(|saturation| !saturation.fired.is_empty());
    for saturation in changed {
        writeln!(
            out,
            "  @{}: {} -> {} nodes in {} classes, {} after {} iterations",
            saturation.function,
            saturation.nodes_before,
            saturation.nodes,
            saturation.classes,
            saturation.stop,
            saturation.iterations
        )?;
        for (name, count) in &saturation.fired {
            let rule = report.rules.iter().find(|rule| rule.name == *name);
            let (family, equation) = rule.map_or(("", ""), |rule| (rule.family, rule.equation));
            writeln!(out, "    {name} ({family}) fired {}: {equation}", counted(*count, "time"))?;
        }
        saturation.forms.iter().try_for_each(|form| write_form(out, report, saturation, form))?;
    }
    if !unchanged.is_empty() {
        let all = report.programs.len();
        let name = |saturation: &&Saturation| match saturation.forms.len() {
            count if count == all => format!("@{}", saturation.function),
            _ => {
                let programs: Vec<&str> = saturation.forms.iter().map(|form| form.program.as_str()).collect();
                format!("@{} of {}", saturation.function, programs.join(", "))
            }
        };
        let names: Vec<String> = unchanged.iter().map(name).collect();
        writeln!(out, "  no rule applies to {}", names.join("; "))?;
    }
    Ok(())
}

fn write_form(out: &mut String, report: &Report, saturation: &Saturation, form: &Form) -> fmt::Result {
    if !form.changed {
        let reason = "no other form is worth taking";
        return writeln!(out, "    {:<11} {} as it is: {reason}", form.program, seconds(form.seconds));
    }
    let same = saturation.forms.iter().take_while(|other| *other != form).find(|other| {
        let lines = |form: &Form| {
            let nodes = report.graphs.get(form.graph).map(|graph| &graph.nodes[..]).unwrap_or_default();
            nodes.iter().map(|node| node.text.clone()).collect::<Vec<_>>()
        };
        other.changed && lines(other) == lines(form)
    });
    let percent = 100.0 * (1.0 - form.seconds / form.seconds_before);
    let prices = format!("{} -> {} ({percent:.1} % less)", seconds(form.seconds_before), seconds(form.seconds));
    match same {
        Some(other) => writeln!(out, "    {:<11} {prices}: the form of {}", form.program, other.program),
        None => {
            writeln!(out, "    {:<11} {prices}", form.program)?;
            let nodes = report.graphs.get(form.graph).map(|graph| &graph.nodes[..]).unwrap_or_default();
            let made =
                nodes.iter().filter(|node| node.origin == "eqsat" && matches!(node.kind, "dot" | "reduce" | "gather"));
            made.into_iter()
                .try_for_each(|node| writeln!(out, "                + {} = {} : {}", node.name, node.text, node.ty))
        }
    }
}

fn programs(out: &mut String, report: &Report) -> fmt::Result {
    for program in &report.programs {
        let Program { sizes, .. } = program;
        writeln!(out, "\nPROGRAM {} for {}: {}", program.name, program.machine, program.takes)?;
        writeln!(
            out,
            "  a step of {} of {}, context {}: {} predicted, {} launches, {} barriers",
            counted(sizes.tokens, "token"),
            counted(sizes.sequences, "sequence"),
            sizes.context,
            seconds(program.seconds),
            program.launches,
            program.barriers
        )?;
        writeln!(
            out,
            "  moves {}, of which {} cannot be avoided (weights once, cache); {}",
            quantity(program.bytes, "B"),
            quantity(program.floor_bytes, "B"),
            quantity(program.flops, "FLOP")
        )?;
        if program.rounded_rows > 0 {
            let rows = counted(program.rounded_rows, "row");
            writeln!(out, "  greedy steps of up to {rows} find the largest logits by weights rounded to 8 bits")?;
        }
        let mut kernels: Vec<&Kernel> = program.kernels.iter().collect();
        let total = |kernel: &Kernel| kernel.launches as f64 * kernel.price.seconds;
        kernels.sort_by(|a, b| total(b).total_cmp(&total(a)));
        writeln!(out, "  {:<28} {:>8} {:>7} {:>10} {:>10}  bound by", "kernel", "launches", "share", "bytes", "FLOP")?;
        for kernel in kernels.iter().take(LISTED_KERNELS) {
            writeln!(
                out,
                "  {:<28} {:>8} {:>5.1} % {:>10} {:>10}  {}",
                kernel.name,
                kernel.launches,
                100.0 * total(kernel) / program.seconds,
                quantity(kernel.price.bytes, "B"),
                quantity(kernel.price.flops, ""),
                why(kernel)
            )?;
        }
        if let Some(rest) = kernels.get(LISTED_KERNELS..).filter(|rest| !rest.is_empty()) {
            let share: f64 = rest.iter().map(|kernel| 100.0 * total(kernel) / program.seconds).sum();
            writeln!(out, "  {} more: {share:.1} %", rest.len())?;
        }
    }
    Ok(())
}

/// `1 token`, `2 tokens`.
fn counted(count: usize, what: &str) -> String {
    let plural = if what.ends_with("ch") { "es" } else { "s" };
    format!("{count} {what}{}", if count == 1 { "" } else { plural })
}

/// What bounds a kernel, with the number that says so, and how it divides its work rather than otherwise.
fn why(kernel: &Kernel) -> String {
    let reason = format!("{} ({:.2} FLOP per byte)", kernel.price.bound, kernel.intensity);
    let Some(chosen) = kernel.ways.iter().find(|way| way.chosen) else { return reason };
    let others = kernel.ways.iter().filter(|way| !way.chosen).map(|way| {
        let more = 100.0 * (way.seconds / chosen.seconds - 1.0);
        format!("{} {more:+.0} %", way.name)
    });
    let others: Vec<String> = others.collect();
    match others.is_empty() {
        true => format!("{reason}; {}", chosen.name),
        false => format!("{reason}; {}, by price {}", chosen.name, others.join(", ")),
    }
}

fn gpus(out: &mut String, report: &Report) -> fmt::Result {
    for gpu in &report.gpus {
        writeln!(out, "\nGPU CODE {}: {} of PTX", gpu.name, quantity(gpu.bytes as f64, "B"))?;
        writeln!(out, "  times are estimates from data sheets: nothing of this has run on hardware")?;
        for program in &gpu.programs {
            let brackets: Vec<String> = program.brackets.iter().map(bracket).collect();
            writeln!(out, "  program {}: {}", program.name, counted(program.launches, "launch"))?;
            brackets.iter().try_for_each(|bracket| writeln!(out, "    {bracket}"))?;
            for kernel in &program.kernels {
                for Grid { symbol, blocks, threads, shared_bytes } in &kernel.grids {
                    writeln!(
                        out,
                        "    {:>4} x {symbol}: [{blocks}] blocks of {threads} threads, {shared_bytes} B of shared memory",
                        kernel.launches
                    )?;
                }
            }
        }
    }
    Ok(())
}

/// An estimate in words.
pub fn bracket(bracket: &Bracket) -> String {
    let (low, high) = (seconds(bracket.low_seconds), seconds(bracket.high_seconds));
    format!("{}: {low} to {high} (estimate)", bracket.machine)
}

fn memory(out: &mut String, report: &Report) -> fmt::Result {
    writeln!(out, "\nMEMORY")?;
    let bytes: u64 = report.weights.iter().map(|group| group.bytes).sum();
    let elements: u64 = report.weights.iter().map(|group| group.element_bytes).sum();
    let count: usize = report.weights.iter().map(|group| group.count).sum();
    writeln!(
        out,
        "  {count} weights: {}, where their elements alone are {}",
        quantity(bytes as f64, "B"),
        quantity(elements as f64, "B")
    )?;
    for group in report.weights.iter().take(LISTED_WEIGHTS) {
        let shape: Vec<String> = group.shape.iter().map(ToString::to_string).collect();
        writeln!(
            out,
            "  {:>10}  {:>3} x {}[{}] {}  {}",
            quantity(group.bytes as f64, "B"),
            group.count,
            group.dtype,
            shape.join(", "),
            group.layout,
            group.name.escape_debug()
        )?;
    }
    if report.weights.len() > LISTED_WEIGHTS {
        writeln!(out, "  {} more roles", report.weights.len() - LISTED_WEIGHTS)?;
    }
    if let Some(kv) = &report.kv {
        let position = kv.block_bytes() / llmc_ir::plan::KV_BLOCK_POSITIONS;
        writeln!(out, "  cache: {} per position", quantity(position as f64, "B"))?;
    }
    for program in &report.programs {
        let sum: u64 = program.arena.buffers.iter().map(|buffer| buffer.bytes).sum();
        writeln!(
            out,
            "  activations of {}: {} in {} buffers of {} together",
            program.name,
            quantity(program.arena.bytes as f64, "B"),
            program.arena.buffers.len(),
            quantity(sum as f64, "B")
        )?;
    }
    for target in &report.targets {
        writeln!(out, "  code for {}: {}", target.name, quantity(target.bytes as f64, "B"))?;
    }
    Ok(())
}

fn seconds(value: f64) -> String {
    match value {
        value if value >= 1.0 => format!("{value:.2} s"),
        value if value >= 1e-3 => format!("{:.2} ms", value * 1e3),
        value if value >= 1e-6 => format!("{:.1} us", value * 1e6),
        value => format!("{:.0} ns", value * 1e9),
    }
}
