//! Extraction finds what is best, whatever the model, the step and the machine; and every rule earns its place.

use super::assert_report;
use super::exact::Problem;
use super::subjects::*;
use llmc_ir::dim::{Bindings, Bounds, Symbol};
use llmc_ir::machine::Machine;
use llmc_ir::module::Function;
use llmc_passes::eqsat::best_form;
use llmc_passes::eqsat::cost::{Target, typical};
use llmc_passes::eqsat::extract::{candidates, extract, roots};
use llmc_passes::eqsat::form::form_cost;
use llmc_passes::eqsat::rule::Rule;
use llmc_passes::eqsat::rules::rules;
use llmc_passes::eqsat::saturate::{ITERATION_LIMIT, NODE_LIMIT, Saturated, Stop, saturate};

/// How far greedy extraction may be from the best.
const TWO_PERCENT: f64 = 1.02;

fn machines() -> Vec<Machine> {
    let mut machines: Vec<Machine> = Machine::names().into_iter().map(|name| Machine::named(name).unwrap()).collect();
    machines.push(many_cores(&machines[0]));
    machines
}

/// The largest hidden size that is looked at in f32 as well: what differs is the same for all.
const LARGEST_IN_F32: usize = 4096;

/// Every kind of layer of every family, embeddings and heads too, in bf16 and in f32, and what is written by hand.
fn functions() -> Vec<(&'static str, Function)> {
    let mut functions: Vec<(&str, Function)> = Vec::new();
    for (name, config) in models() {
        let layers = config.windows.len();
        let wide = (config.hidden <= LARGEST_IN_F32).then(|| canonical_in(&config, layers, wide()));
        for module in std::iter::once(canonical(&config, layers)).chain(wide) {
            functions.extend(module.functions.into_iter().map(|function| (name, function)));
        }
    }
    functions.extend(written_by_hand().into_iter().map(|function| ("by hand", function)));
    functions
}

fn steps() -> impl Iterator<Item = Step> {
    STEPS.into_iter().chain(OTHER_STEPS)
}

/// The price of the best form, by trying all that could be.
fn best(saturated: &Saturated, target: &Target<'_>) -> f64 {
    let candidates = candidates(&saturated.graph, target).into_iter();
    let ways = candidates.map(|(class, node, seconds)| (class, node.operands.clone(), seconds));
    Problem::new(ways, &roots(saturated)).best()
}

#[test]
fn greedy_extraction_is_within_two_percent_of_the_best() {
    let machines = machines();
    for (model, function) in functions() {
        let saturated = saturate(&function, &rules()).unwrap();
        for (machine, (step, sizes, promise)) in
            machines.iter().flat_map(|machine| steps().map(move |step| (machine, step)))
        {
            let target = Target { machine, sizes, promise };
            let greedy = extract(&saturated, &target).unwrap().seconds();
            let best = best(&saturated, &target);
            let at = format!("@{} of {model} for {step} on {}", function.name, machine.name);
            // What is best is a form of the same e-graph: nothing can be cheaper.
            assert!(best <= greedy * (1.0 + 1e-9), "{at}: {greedy} s are less than the best, {best} s");
            assert!(greedy <= TWO_PERCENT * best, "{at}: {greedy} s against {best} s");
        }
    }
}

/// No known model comes near a limit.
#[test]
fn saturation_ends_by_itself() {
    for (model, function) in functions() {
        let statistics = saturate(&function, &rules()).unwrap().statistics;
        assert_eq!(statistics.stop, Stop::Saturated, "@{} of {model}", function.name);
        assert!(
            statistics.iterations < ITERATION_LIMIT && 100 * statistics.nodes < NODE_LIMIT,
            "{model}: {statistics:?}"
        );
    }
}

/// Layers are rolled, so what saturation does does not depend on how many there are.
#[test]
fn work_is_independent_of_depth() {
    for (model, config) in real_models() {
        let sizes = |layers: usize| {
            let functions = canonical(&config, layers).functions;
            functions.iter().map(|function| saturate(function, &rules()).unwrap().statistics).collect::<Vec<_>>()
        };
        assert_eq!(sizes(2), sizes(config.windows.len()), "{model}");
    }
}

/// What a rule saves of a function at most, and where.
#[derive(Clone, Debug, Default)]
struct Worth {
    saved: f64,
    place: String,
}

impl std::fmt::Display for Worth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.saved > 0.0 {
            true => write!(f, "{:6.2} % of {}", 100.0 * self.saved, self.place),
            false => f.write_str("     -"),
        }
    }
}

/// A function of a model, with all its forms, and the seconds of those that are chosen: machine by machine, step by step.
struct Subject {
    model: &'static str,
    function: Function,
    fired: Vec<&'static str>,
    seconds: Vec<f64>,
}

fn chosen_seconds(function: &Function, saturated: &Saturated, machines: &[Machine]) -> Vec<f64> {
    let targets =
        machines.iter().flat_map(|machine| STEPS.map(|(_, sizes, promise)| Target { machine, sizes, promise }));
    let seconds = |target| form_cost(&best_form(saturated, function, &target).unwrap(), &target).seconds;
    targets.map(seconds).collect()
}

/// What a rule saves at most of functions.
fn worth(rule: &Rule, subjects: &[Subject], machines: &[Machine]) -> Worth {
    let others: Vec<Rule> = rules().into_iter().filter(|other| other.name != rule.name).collect();
    let mut worth = Worth::default();
    for Subject { model, function, seconds, .. } in subjects.iter().filter(|subject| subject.fired.contains(&rule.name))
    {
        let without = chosen_seconds(function, &saturate(function, &others).unwrap(), machines);
        for (index, (with, without)) in seconds.iter().zip(&without).enumerate() {
            let saved = 1.0 - with / without;
            if saved > worth.saved.max(1e-9) {
                let (machine, (step, ..)) = (&machines[index / STEPS.len()].name, STEPS[index % STEPS.len()]);
                worth = Worth { saved, place: format!("@{} of {model}, {step} on {machine}", function.name) };
            }
        }
    }
    worth
}

/// Without a rule something is dearer, or the rule is in the way of those who read the table. The snapshot says of each what
/// it is worth, on models that there are and on functions written by hand.
#[test]
fn every_rule_pays_for_itself() {
    let host = Machine::named("host").unwrap();
    let in_blocks = Machine { name: "host with AVX2".into(), block_float: Some(1.45), ..host.clone() };
    let machines = [many_cores(&host), host, Machine::named("a100").unwrap(), in_blocks];
    let subjects = |model: &'static str, functions: Vec<Function>| -> Vec<Subject> {
        let subject = |function: Function| {
            let saturated = saturate(&function, &rules()).unwrap();
            let fired = saturated.statistics.fired.keys().copied().collect();
            let seconds = chosen_seconds(&function, &saturated, &machines);
            Subject { model, function, fired, seconds }
        };
        functions.into_iter().map(subject).collect()
    };
    let mut models = subjects("SmolLM2-135M", canonical(&smollm2(), 1).functions);
    models.extend(subjects("SmolLM2-135M in f32", canonical_in(&smollm2(), 1, wide()).functions));
    models.extend(subjects("Llama-3-8B", canonical(&llama3_8b(), 1).functions));
    let by_hand = subjects("IR", written_by_hand());
    let mut text = "rule: the most that it saves on models that there are; on functions written by hand\n\n".to_owned();
    for rule in rules() {
        let [on_models, on_ir] = [&models, &by_hand].map(|subjects| worth(&rule, subjects, &machines));
        assert!(on_models.saved.max(on_ir.saved) > 0.0, "{} saves nothing: remove it", rule.name);
        text += &format!("{}\n  {on_models}\n  {on_ir}\n", rule.name);
    }
    assert_report!("what_each_rule_is_worth", text);
}

/// A step of one sequence has one row; bounds of programs say so to the cost model.
#[test]
fn typical_steps_lie_within_bounds() {
    let max = Bindings { tokens: 16, samples: 16, sequences: 16, context: 512 };
    for one_token_per_sequence in [true, false] {
        let typical = typical(&Bounds { max, one_token_per_sequence });
        let within = |symbol| typical.get(symbol) <= max.get(symbol) && typical.get(symbol) > 0;
        assert!(Symbol::ALL.into_iter().all(within), "{typical:?}");
    }
}
