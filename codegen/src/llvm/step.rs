//! The entry point of a program: the whole step as one function that every thread runs, with barriers where data
//! crosses threads. Calls of one function in a row become a loop over tables of weights, so that the size of the
//! code does not depend on the depth of the model.

use super::memory::load_index;
use super::step_args::{barrier, pointer, step_input, trace};
use super::text::{FunctionText, I32, I64, ModuleText, PTR, Role, Value, int};
use super::{MatrixUnit, ahead_symbol, amx, deal, goal_symbol, kernel_symbol};
use llmc_ir::abi::StepArgs;
use llmc_ir::plan::{Goal, Launch, Operand, Plan, PlannedCall, PlannedFunction, Program};
use std::collections::BTreeSet;
use std::mem::offset_of;

/// Where things lie in a thread's working memory, in bytes. Kernels' own is between the two.
#[derive(Clone, Copy)]
pub struct Layout {
    /// Bytes that all threads share: the first thread's.
    pub workspace: usize,
    /// Where counters begin.
    pub counters: usize,
}

/// What the launches of one call need.
struct Frame<'a> {
    program: &'a Program,
    goal: Goal,
    /// Kernels that have something prefetched before they begin.
    dots: &'a BTreeSet<&'a str>,
    args: Value,
    thread: Value,
    threads: Value,
    scratch: Value,
    workspace: Value,
    /// The first thread's counters.
    counters: Value,
    arena: Value,
    weights: Value,
    logits: Value,
    /// Who is told of launches, and how often: once, or not at all.
    trace: Value,
    traced: Value,
}

/// A launch where a step has it.
struct Site<'a> {
    launch: &'a Launch,
    goal: Goal,
    /// Which counters are its own.
    counter: usize,
    /// The number of the call in the step, from 1 on.
    call: Value,
}

impl<'a> Frame<'a> {
    /// The address of the weight of a number.
    fn weight(&self, f: &mut FunctionText, number: &Value) -> Value {
        let address = f.element(&self.weights, number, 8);
        f.load(PTR, &address, 8)
    }

    /// What a launch of a function is run for.
    fn goal_of(&self, function: usize, launch: usize) -> Goal {
        let head = self.program.search.as_ref().map(|search| (search.function, search.launch));
        if head == Some((function, launch)) { self.goal } else { Goal::Logits }
    }

    /// A launch of a function, in the call of a number.
    fn site(&self, function: usize, number: usize, call: &Value) -> Site<'a> {
        let before = launches(&self.program.functions[..function]);
        let launch = &self.program.functions[function].launches[number];
        Site { launch, goal: self.goal_of(function, number), counter: before + number, call: call.clone() }
    }

    /// The first launch of a function, from one of a number on, that has something prefetched. Rounded weights have not.
    fn dot_of(&self, function: usize, from: usize, call: &Value) -> Option<Site<'a>> {
        let launches = self.program.functions[function].launches.iter().enumerate().skip(from);
        let mut dots = launches.filter(|(_, launch)| self.dots.contains(launch.kernel.as_str()));
        let (number, _) = dots.next()?;
        Some(self.site(function, number, call)).filter(|site| site.goal != Goal::Search)
    }

    /// Whether items are dealt out before all threads have met for the first time.
    fn deals_before_barriers(&self) -> bool {
        let launches = self.program.calls.iter().flat_map(|call| &self.program.functions[call.function].launches);
        let mut first = launches.take_while(|launch| !launch.barrier);
        first.any(|launch| self.dots.contains(launch.kernel.as_str()))
    }
}

/// Writes the entry point of a program for a goal, `llmc_<program>(args, thread, threads)` for logits. A thread whose kernels
/// use tiles has them from here to the end of the step. Returns the bytes of a thread's counters.
pub fn emit(
    module: &mut ModuleText,
    plan: &Plan,
    program: &Program,
    layout: Layout,
    (used, dots): (MatrixUnit, &BTreeSet<&str>),
    goal: Goal,
) -> usize {
    let params = [(PTR, "args"), (I32, "thread"), (I32, "threads")];
    let (mut f, values) = FunctionText::new(Role::Entry, &program.entry_symbol(goal), &params);
    let [args, thread, threads] = values.try_into().expect("three parameters");
    let thread = f.cast("zext", &thread, I64);
    let threads = f.cast("zext", &threads, I64);
    let workspace = pointer(&mut f, &args, offset_of!(StepArgs, scratch));
    let stride = super::step_args::integer(&mut f, &args, offset_of!(StepArgs, scratch_stride));
    let own = f.binary("mul nsw", &thread, &stride);
    let own = f.offset(&workspace, &own);
    let scratch = f.offset(&own, &int(layout.workspace as i64));
    let counters = f.offset(&workspace, &int(layout.counters as i64));
    let arena = pointer(&mut f, &args, offset_of!(StepArgs, arena));
    let weights = pointer(&mut f, &args, offset_of!(StepArgs, weights));
    let logits = pointer(&mut f, &args, offset_of!(StepArgs, logits));
    let kv = pointer(&mut f, &args, offset_of!(StepArgs, kv));
    let trace = pointer(&mut f, &args, offset_of!(StepArgs, trace));
    let nobody = Value { text: "null".to_owned(), ty: PTR };
    let traced = f.compare("icmp ne", &trace, &nobody);
    let traced = f.cast("zext", &traced, I64);
    let frame = Frame {
        program,
        goal,
        dots,
        args,
        thread,
        threads,
        scratch,
        workspace,
        counters,
        arena,
        weights,
        logits,
        trace,
        traced,
    };

    if used == MatrixUnit::Tiles {
        amx::configure(&mut f);
    }
    let own_counters = f.offset(&own, &int(layout.counters as i64));
    let counted = if dots.is_empty() { 0 } else { launches(&program.functions) };
    for number in 0..counted {
        let counter = f.offset(&own_counters, &int((number * deal::COUNTER_BYTES) as i64));
        f.store(&int(0), &counter, 8);
    }
    if frame.deals_before_barriers() {
        barrier(&mut f, &frame.args, &frame.thread);
    }
    let mut rest = &program.calls[..];
    while let Some(first) = rest.first() {
        let count = rest.iter().take_while(|call| call.function == first.function).count();
        let done = program.calls.len() - rest.len();
        let (run, after) = rest.split_at(count);
        emit_run(&mut f, plan, &frame, &kv, (run, done));
        let next = after.first().and_then(|call| Some((call, frame.dot_of(call.function, 0, &int(0))?)));
        if let Some((call, site)) = next {
            emit_ahead(&mut f, &frame, &site, &kv, &|f, slot| frame.weight(f, &int(call.weights[slot] as i64)));
        }
        rest = after;
    }
    if used == MatrixUnit::Tiles {
        amx::release(&mut f);
    }
    module.add(f.finish());
    counted * deal::COUNTER_BYTES
}

/// How many launches functions have.
fn launches(functions: &[PlannedFunction]) -> usize {
    functions.iter().map(|function| function.launches.len()).sum()
}

/// Consecutive calls of one function, behind so many calls of others.
fn emit_run(f: &mut FunctionText, plan: &Plan, frame: &Frame<'_>, kv: &Value, (run, done): (&[PlannedCall], usize)) {
    let function = &frame.program.functions[run[0].function];
    let slots = run[0].weights.len();
    let table = |f: &mut FunctionText, values: Vec<usize>| {
        let values: Vec<_> = values.iter().map(ToString::to_string).collect();
        f.constant("i32", &values)
    };
    let weight_table = table(f, run.iter().flat_map(|call| call.weights.iter().copied()).collect());
    let layer_table = table(f, run.iter().map(|call| call.kv_layer).collect());
    f.for_each(&int(0), &int(run.len() as i64), 1, |f, call| {
        let layer = load_index(f, &layer_table, call);
        let kv = f.element(kv, &layer, plan.kv.layer_bytes() as i64);
        let weight = |f: &mut FunctionText, call: &Value, slot: usize| {
            let first_slot = f.scale(call, slots as i64);
            let entry = f.add(&first_slot, &int(slot as i64));
            let number = load_index(f, &weight_table, &entry);
            frame.weight(f, &number)
        };
        let next_call = f.add(call, &int(1));
        let in_step = f.add(&next_call, &int(done as i64));
        // Launches that no barrier separates deal out their items from alternating ends, so that the thread with
        // the larger share of one gets the smaller share of the next.
        let mut reversed = false;
        for (number, launch) in function.launches.iter().enumerate() {
            if launch.barrier {
                barrier(f, &frame.args, &frame.thread);
            }
            reversed = !launch.barrier && !reversed;
            let site = frame.site(run[0].function, number, &in_step);
            emit_launch(f, frame, &site, &kv, reversed, &|f, slot| weight(f, call, slot));
            if !frame.dots.contains(launch.kernel.as_str()) {
                continue;
            }
            // While others are still busy, what this thread reads next comes closer.
            if let Some(next) = frame.dot_of(run[0].function, number + 1, &in_step) {
                emit_ahead(f, frame, &next, &kv, &|f, slot| weight(f, call, slot));
            } else if let (Some(next), true) = (frame.dot_of(run[0].function, 0, &in_step), run.len() > 1) {
                let exists = f.compare("icmp slt", &next_call, &int(run.len() as i64));
                f.when(&exists, |f| emit_ahead(f, frame, &next, &kv, &|f, slot| weight(f, &next_call, slot)));
            }
        }
    });
}

fn emit_launch(
    f: &mut FunctionText,
    frame: &Frame<'_>,
    site: &Site<'_>,
    kv: &Value,
    reversed: bool,
    weight: &impl Fn(&mut FunctionText, usize) -> Value,
) {
    let share = if reversed {
        let last = f.add(&frame.threads, &int(-1));
        f.binary("sub nsw", &last, &frame.thread)
    } else {
        frame.thread.clone()
    };
    let arguments = arguments(f, frame, site, kv, &share, weight);
    f.for_each(&int(0), &frame.traced, 1, |f, _| trace(f, &frame.args, &frame.trace, &frame.thread));
    let kernel = kernel_symbol(&frame.program.name, &site.launch.kernel);
    f.call_local(&goal_symbol(&kernel, site.goal), &arguments);
}

/// What the function of a launch is called with.
fn arguments(
    f: &mut FunctionText,
    frame: &Frame<'_>,
    site: &Site<'_>,
    kv: &Value,
    share: &Value,
    weight: &impl Fn(&mut FunctionText, usize) -> Value,
) -> Vec<Value> {
    let &Site { launch, goal, counter, ref call } = site;
    let mut arguments = vec![
        frame.args.clone(),
        frame.scratch.clone(),
        frame.workspace.clone(),
        share.clone(),
        frame.threads.clone(),
        frame.thread.clone(),
        f.offset(&frame.counters, &int((counter * deal::COUNTER_BYTES) as i64)),
        call.clone(),
    ];
    let address = |f: &mut FunctionText, operand: &Operand| match operand {
        Operand::Arena { offset, .. } => f.offset(&frame.arena, &int(*offset as i64)),
        Operand::Weight { slot } => weight(f, *slot),
        Operand::Step { input } => step_input(f, &frame.args, *input),
        Operand::Kv => kv.clone(),
        Operand::Logits => frame.logits.clone(),
    };
    arguments.extend(launch.inputs.iter().map(|operand| address(f, operand)));
    let rounded = frame.program.search.as_ref().and_then(|search| search.rounded);
    if let Some(rounded) = rounded.filter(|_| goal == Goal::Search) {
        arguments.push(frame.weight(f, &int(rounded.weight as i64)));
    }
    arguments.extend(launch.outputs.iter().map(|operand| address(f, operand)));
    arguments
}

/// Prefetches what the thread reads first in a launch.
fn emit_ahead(
    f: &mut FunctionText,
    frame: &Frame<'_>,
    site: &Site<'_>,
    kv: &Value,
    weight: &impl Fn(&mut FunctionText, usize) -> Value,
) {
    let arguments = arguments(f, frame, site, kv, &frame.thread, weight);
    let kernel = kernel_symbol(&frame.program.name, &site.launch.kernel);
    f.call_local(&ahead_symbol(&kernel), &arguments);
}
