//! Machines as the cost model sees them: a few numbers that a roofline needs.

use crate::dtype::DType;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What runs a program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Processor {
    /// The host's cores.
    #[default]
    Cpu,
    /// A device with memory of its own.
    Gpu,
}

impl Processor {
    /// Every kind.
    pub const ALL: [Processor; 2] = [Processor::Cpu, Processor::Gpu];

    /// The name used in text and reports.
    pub fn name(self) -> &'static str {
        match self {
            Processor::Cpu => "cpu",
            Processor::Gpu => "gpu",
        }
    }
}

impl fmt::Display for Processor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A machine's limits. All rates are of the whole machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// What it is called.
    pub name: String,
    /// Where the numbers come from.
    pub source: String,
    /// What it is.
    pub processor: Processor,
    /// Bytes per second read from memory.
    pub memory_bandwidth: f64,
    /// Multiply-adds counted as two operations, per second, of matrix products by element type.
    pub matrix_flops: MatrixFlops,
    /// Operations per second of elementwise work in f32.
    pub vector_flops: f64,
    /// Seconds from the end of one kernel to the start of the next one that depends on it.
    pub launch_seconds: f64,
    /// Cores or multiprocessors: blocks of work that run at once.
    pub units: f64,
    /// Blocks that products of many rows are cut into.
    pub gemm_tile: Tile,
    /// Blocks that products of few rows are cut into.
    pub gemv_tile: Tile,
    /// How many products in block floating point the code that will be made takes in the time of one of its products of bf16;
    /// `None`: it takes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_float: Option<f64>,
}

/// A block of a matrix product's result.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tile {
    /// Rows of a block.
    pub rows: f64,
    /// Columns of a block.
    pub columns: f64,
    /// Rows that take the time of one: those of a matrix instruction.
    pub least_rows: f64,
}

/// Operations per second of matrix products with sums in f32.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatrixFlops {
    /// Of f32 operands.
    pub f32: f64,
    /// Of bf16 or f16 operands.
    pub bf16: f64,
}

/// Descriptions that come with the compiler: a file each.
const KNOWN: [(&str, &str); 5] = [
    ("host", include_str!("host.json")),
    ("a100", include_str!("a100.json")),
    ("h100", include_str!("h100.json")),
    ("l4", include_str!("l4.json")),
    ("rtx4090", include_str!("rtx4090.json")),
];

/// Rates that a machine can have, per second: from a microcontroller to more than any. Within these bounds no price is
/// infinite or lost beside another.
const RATES: [f64; 2] = [1e6, 1e18];

/// Seconds that a launch can take.
const LAUNCHES: [f64; 2] = [1e-10, 1.0];

/// How much faster or slower products in block floating point can be.
const BLOCK_FLOAT: [f64; 2] = [1e-3, 1e3];

/// Units of a machine, and rows and columns of blocks, that can be.
const SIZES: [f64; 2] = [1.0, 1e6];

impl Machine {
    /// The names that [`Machine::named`] knows.
    pub fn names() -> Vec<&'static str> {
        KNOWN.iter().map(|(name, _)| *name).collect()
    }

    /// A machine that comes with the compiler.
    ///
    /// # Errors
    /// If there is none of that name; the message lists those there are.
    pub fn named(name: &str) -> Result<Machine, String> {
        let known = KNOWN.iter().find(|(known, _)| *known == name);
        let (_, text) = known
            .ok_or_else(|| format!("unknown machine `{name}`, expected one of {}", Machine::names().join(", ")))?;
        Machine::parse(text)
    }

    /// Reads a description: a JSON object with the fields of this struct.
    ///
    /// # Errors
    /// If a field is missing or unknown, a name is not printable, or a number is not one that a machine can have.
    pub fn parse(text: &str) -> Result<Machine, String> {
        let machine: Machine = serde_json::from_str(text).map_err(|error| error.to_string())?;
        for (field, value) in [("name", &machine.name), ("source", &machine.source)] {
            if value.contains(char::is_control) {
                return Err(format!("{field} has control characters in it"));
            }
        }
        let MatrixFlops { f32, bf16 } = machine.matrix_flops;
        let [gemm, gemv] = [machine.gemm_tile, machine.gemv_tile];
        let block_float = machine.block_float.map(|rate| ("block_float", rate, BLOCK_FLOAT));
        let numbers = [
            ("memory_bandwidth", machine.memory_bandwidth, RATES),
            ("matrix_flops.f32", f32, RATES),
            ("matrix_flops.bf16", bf16, RATES),
            ("vector_flops", machine.vector_flops, RATES),
            ("launch_seconds", machine.launch_seconds, LAUNCHES),
            ("units", machine.units, SIZES),
            ("gemm_tile.rows", gemm.rows, SIZES),
            ("gemm_tile.columns", gemm.columns, SIZES),
            ("gemm_tile.least_rows", gemm.least_rows, SIZES),
            ("gemv_tile.rows", gemv.rows, SIZES),
            ("gemv_tile.columns", gemv.columns, SIZES),
            ("gemv_tile.least_rows", gemv.least_rows, SIZES),
        ];
        for (field, value, [least, most]) in numbers.into_iter().chain(block_float) {
            if !(least..=most).contains(&value) {
                return Err(format!("{field} is {value:e}, expected {least:e} to {most:e}"));
            }
        }
        Ok(machine)
    }

    /// The rate of matrix products of an element type.
    pub fn matrix_flops(&self, dtype: DType) -> f64 {
        match dtype {
            DType::BF16 | DType::F16 => self.matrix_flops.bf16,
            DType::F32 | DType::I32 | DType::Bool => self.matrix_flops.f32,
        }
    }
}

/// The machines that programs are made for: one for each kind of processor, or for some.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Machines(Vec<Machine>);

impl Machines {
    /// Of a list.
    ///
    /// # Errors
    /// If there is none, or two of a kind.
    pub fn new(machines: Vec<Machine>) -> Result<Machines, String> {
        for (index, machine) in machines.iter().enumerate() {
            if let Some(other) = machines[..index].iter().find(|other| other.processor == machine.processor) {
                return Err(format!(
                    "`{}` and `{}` both describe a {}; give one for each kind of processor",
                    other.name, machine.name, machine.processor
                ));
            }
        }
        if machines.is_empty() { Err("there is no machine".to_owned()) } else { Ok(Machines(machines)) }
    }

    /// The machine of a kind.
    ///
    /// # Errors
    /// If there is none.
    pub fn of(&self, processor: Processor) -> Result<&Machine, String> {
        let found = self.0.iter().find(|machine| machine.processor == processor);
        found.ok_or_else(|| {
            let names: Vec<&str> = self.0.iter().map(|machine| machine.name.as_str()).collect();
            format!("no machine describes a {processor}, there is {}; add one, with --machine", names.join(" and "))
        })
    }

    /// The same where code for CPUs takes products in block floating point at a rate: [`Machine::block_float`].
    pub fn with_block_float(mut self, rate: Option<f64>) -> Machines {
        for machine in self.0.iter_mut().filter(|machine| machine.processor == Processor::Cpu) {
            machine.block_float = rate;
        }
        self
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Machine> {
        self.0.iter()
    }
}

impl From<Machine> for Machines {
    fn from(machine: Machine) -> Machines {
        Machines(vec![machine])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_machine_of_a_kind() {
        let machine = |name| Machine::named(name).unwrap();
        let both = Machines::new(vec![machine("a100"), machine("host")]).unwrap();
        assert_eq!(both.of(Processor::Cpu).unwrap().name, "host");
        assert_eq!(both.of(Processor::Gpu).unwrap().name, "a100");
        assert!(Machines::new(Vec::new()).is_err());
        assert!(
            Machines::new(vec![machine("a100"), machine("l4")])
                .unwrap_err()
                .contains("`a100` and `l4` both describe a gpu")
        );
        let error = Machines::from(machine("host")).of(Processor::Gpu).unwrap_err().to_string();
        assert!(error.contains("no machine describes a gpu, there is host"), "{error}");
    }

    #[test]
    fn descriptions_are_complete_and_mistakes_are_named() {
        for name in Machine::names() {
            assert_eq!(Machine::named(name).unwrap().name, name);
        }
        assert!(Machine::named("z80").unwrap_err().contains("a100, h100"));
        let text = include_str!("l4.json");
        for wrong in ["-1", "0", "1e-300", "1e300"] {
            let error = Machine::parse(&text.replace("3e11", wrong)).unwrap_err();
            assert!(error.contains("memory_bandwidth") && error.contains("1e6 to 1e18"), "{error}");
        }
        assert!(Machine::parse(&text.replace("2e-6", "2")).unwrap_err().contains("launch_seconds"));
        assert!(Machine::parse(&text.replace("\"l4\"", "\"l\\u001b4\"")).unwrap_err().contains("name has"));
        assert!(Machine::parse(&text.replace("vector_flops", "flops")).unwrap_err().contains("flops"));
    }
}
