//! The pipeline: which passes there are, in which order they run, and the loop that runs them.

use crate::eqsat::rule::{Family, Invariance, Numerics};
use crate::instrument::{Instrument, Moment, Report, Statistics, Stopwatch};
use crate::pass::{Context, Necessity, Pass, State};
use crate::phase::Phase;
use crate::{canonicalize, compress, eqsat, fuse, hoist, plan, prologue, search, specialize};

/// Every pass in order: the compiler's table of contents.
pub fn pipeline() -> Vec<Pass> {
    use Necessity::{Optional, Required};
    use Phase::{Canonical, Fused, Planned, Rewritten, Specialized};
    let pass = |name, phase, necessity, run, description| Pass { name, description, phase, necessity, run };
    vec![
        pass("fold", Canonical, Optional, canonicalize::fold, "computes what depends on constants alone"),
        pass("identities", Canonical, Optional, canonicalize::identities, "drops operations that change nothing"),
        pass("cse", Canonical, Optional, canonicalize::cse, "merges nodes that compute the same"),
        pass("dce", Canonical, Optional, canonicalize::dce, "removes what no result needs"),
        pass("hoist", Canonical, Optional, hoist::hoist, "computes once per step what every layer would repeat"),
        pass("specialize", Specialized, Required, specialize::specialize, "makes the decode and prefill programs"),
        pass("fold", Specialized, Optional, canonicalize::fold, "again, with what the bounds promise"),
        pass("identities", Specialized, Optional, canonicalize::identities, "again, with what the bounds promise"),
        pass("cse", Specialized, Optional, canonicalize::cse, "again, with what the bounds promise"),
        pass("dce", Specialized, Optional, canonicalize::dce, "again, with what the bounds promise"),
        pass("eqsat", Rewritten, Optional, eqsat::eqsat, "chooses the cheapest equal form, program by program"),
        pass("identities", Rewritten, Optional, canonicalize::identities, "cleans up behind the choice"),
        pass("dce", Rewritten, Optional, canonicalize::dce, "cleans up behind the choice"),
        pass("fuse", Fused, Required, fuse::fuse, "cuts functions into regions that become kernels"),
        pass(
            "prologue",
            Fused,
            Optional,
            prologue::prologue,
            "computes rows where they are multiplied, if that saves more",
        ),
        pass("plan", Planned, Required, plan::plan, "packs weights, places buffers, orders launches"),
        pass("compress", Planned, Optional, compress::compress, "stores bf16 weights in fewer bytes, without loss"),
        pass("search", Planned, Optional, search::search, "finds the largest logits without computing all of them"),
    ]
}

/// Which part of the pipeline to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Optional passes and families of rewrite rules to leave out, by name.
    pub without: Vec<String>,
    /// The last phase whose passes run; none means all.
    pub stop_after: Option<Phase>,
    /// Exactly these passes in this order, instead of the pipeline.
    pub only: Option<Vec<String>>,
    /// The loosest class of rewrite rules that may be used.
    pub numerics: Numerics,
    /// Whether all programs must agree bit by bit.
    pub invariance: Invariance,
}

impl Options {
    /// The families of rewrite rules that are not left out.
    pub fn families(&self) -> Vec<Family> {
        let kept = |family: &Family| !self.without.iter().any(|name| name == family.name());
        Family::ALL.into_iter().filter(kept).collect()
    }
}

/// Why the pipeline stopped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PipelineError {
    /// A name that no pass has.
    #[error("unknown pass or rule family `{name}`, expected one of {}", known.join(", "))]
    UnknownPass {
        /// What was asked for.
        name: String,
        /// The names there are.
        known: Vec<&'static str>,
    },
    /// A pass that cannot be left out.
    #[error("pass `{name}` cannot be left out; the optional passes are {}", optional.join(", "))]
    NotOptional {
        /// What was asked for.
        name: String,
        /// The names that could have been given.
        optional: Vec<&'static str>,
    },
    /// A pass cannot handle the model.
    #[error("pass `{pass}`: {message}")]
    Pass {
        /// The pass.
        pass: &'static str,
        /// What is wrong.
        message: String,
    },
    /// An instrument objects to what a pass made, or to the input.
    #[error("{instrument} {moment}: {message}")]
    Instrument {
        /// The instrument.
        instrument: &'static str,
        /// `after pass ...` or `before the first pass`.
        moment: String,
        /// What is wrong.
        message: String,
    },
}

/// Runs the passes that `options` select on `state`, with every instrument looking at the state before the
/// first pass and after each one. Passes of phases that the state is already past are skipped.
///
/// # Errors
/// See [`PipelineError`]; every message names the pass.
pub fn run_pipeline(
    mut state: State,
    context: &Context,
    options: &Options,
    instruments: &mut [Box<dyn Instrument>],
) -> Result<(State, Report), PipelineError> {
    let passes = select(&state, options)?;
    let context = &Context {
        families: options.families(),
        numerics: options.numerics,
        invariance: options.invariance,
        ..context.clone()
    };
    let mut stopwatch = Stopwatch::start();
    let mut report = Report::default();
    observe(instruments, Moment::Start, &state)?;
    report.input = Statistics::of(&state);
    report.before = stopwatch.lap();
    for (index, pass) in passes.iter().enumerate() {
        state = (pass.run)(state, context).map_err(|message| PipelineError::Pass { pass: pass.name, message })?;
        let in_pass = stopwatch.lap();
        observe(instruments, Moment::After { number: index + 1, pass }, &state)?;
        report.add(pass, Statistics::of(&state), in_pass, stopwatch.lap());
        report.notes.append(&mut context.notes.borrow_mut());
    }
    Ok((state, report))
}

/// The passes to run.
fn select(state: &State, options: &Options) -> Result<Vec<Pass>, PipelineError> {
    let all = pipeline();
    let find = |name: &String| {
        let unknown = || PipelineError::UnknownPass {
            name: name.clone(),
            known: names(&all, |_| true).into_iter().chain(Family::ALL.map(Family::name)).collect(),
        };
        all.iter().find(|pass| pass.name == name).copied().ok_or_else(unknown)
    };
    for name in options.without.iter().filter(|name| Family::ALL.iter().all(|family| family.name() != *name)) {
        if find(name)?.necessity == Necessity::Required {
            let optional = names(&all, |pass| pass.necessity == Necessity::Optional);
            return Err(PipelineError::NotOptional { name: name.clone(), optional });
        }
    }
    if let Some(only) = &options.only {
        return only.iter().map(find).collect();
    }
    let reached = match state {
        State::Module(_) => Phase::Imported,
        State::Programs(_) => Phase::Specialized,
        State::Fused(_) => Phase::Fused,
        State::Planned(_) => Phase::Planned,
    };
    let last = options.stop_after.unwrap_or(Phase::Compiled);
    let wanted = |pass: &Pass| {
        pass.phase > reached && pass.phase <= last && !options.without.iter().any(|name| name == pass.name)
    };
    Ok(all.iter().filter(|pass| wanted(pass)).copied().collect())
}

/// Names of the passes that `wanted` accepts, each once, in the pipeline's order.
fn names(passes: &[Pass], wanted: impl Fn(&Pass) -> bool) -> Vec<&'static str> {
    let mut names: Vec<&'static str> = Vec::new();
    for pass in passes.iter().filter(|pass| wanted(pass)) {
        if !names.contains(&pass.name) {
            names.push(pass.name);
        }
    }
    names
}

fn observe(instruments: &mut [Box<dyn Instrument>], moment: Moment<'_>, state: &State) -> Result<(), PipelineError> {
    for instrument in instruments {
        instrument.observe(moment, state).map_err(|message| PipelineError::Instrument {
            instrument: instrument.name(),
            moment: moment.to_string(),
            message,
        })?;
    }
    Ok(())
}
