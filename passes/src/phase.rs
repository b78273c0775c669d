//! The phases of compilation: the one vocabulary of `--stop-after`, of dumps and of the tests.

use std::fmt;
use std::str::FromStr;

/// How far a model has come. Later phases compare greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// As the model's definition wrote it.
    Imported,
    /// Cleaned: folded, without duplicates, what layers share computed once.
    Canonical,
    /// One program per kind of step, each with bounds.
    Specialized,
    /// What to compute is chosen per program, by equality saturation.
    Rewritten,
    /// What is computed together is chosen: functions are lists of regions.
    Fused,
    /// Memory and launches are laid out: there are no operations left outside kernels.
    Planned,
    /// Kernels are native code. Reached behind this crate's pipeline, by code generation.
    Compiled,
}

impl Phase {
    /// Every phase in order.
    pub const ALL: [Phase; 7] = [
        Phase::Imported,
        Phase::Canonical,
        Phase::Specialized,
        Phase::Rewritten,
        Phase::Fused,
        Phase::Planned,
        Phase::Compiled,
    ];

    /// The name that flags and files use.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Imported => "imported",
            Phase::Canonical => "canonical",
            Phase::Specialized => "specialized",
            Phase::Rewritten => "rewritten",
            Phase::Fused => "fused",
            Phase::Planned => "planned",
            Phase::Compiled => "compiled",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that names no phase.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown phase `{0}`, expected one of imported, canonical, specialized, rewritten, fused, planned, compiled")]
pub struct UnknownPhase(pub String);

impl FromStr for Phase {
    type Err = UnknownPhase;

    fn from_str(text: &str) -> Result<Phase, UnknownPhase> {
        Phase::ALL.into_iter().find(|phase| phase.name() == text).ok_or_else(|| UnknownPhase(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_errors_list_them() {
        let error = "fuse".parse::<Phase>().unwrap_err().to_string();
        for phase in Phase::ALL {
            assert_eq!(phase.name().parse(), Ok(phase));
            assert!(error.contains(phase.name()), "{error}");
        }
        assert!(Phase::ALL.is_sorted());
    }
}
