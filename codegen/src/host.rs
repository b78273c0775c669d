//! Host CPUs: which levels code can be made for, and what a CPU must have to run it.

use crate::error::CodegenError;
use crate::llvm::compile::host_cpu;
use crate::tuning::Tuning;

/// A CPU level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostTarget {
    /// The name that users know it by: `x86-64-v4`, `native`, ...
    pub name: String,
    /// LLVM's name of the CPU.
    pub llvm_cpu: String,
    /// LLVM's feature string; empty for named levels.
    pub llvm_features: String,
    /// Features that a CPU must have, sorted.
    pub cpu_features: Vec<String>,
    /// Whether products of bf16 are taken by VDPBF16PS: where it is faster than multiply-adds of what was made f32.
    pub multiplies_pairs: bool,
    /// What kernels are cut to.
    pub tuning: Tuning,
}

const V2: [&str; 6] = ["cmpxchg16b", "popcnt", "sse3", "sse4.1", "sse4.2", "ssse3"];
const V3: [&str; 8] = ["avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "lzcnt", "movbe"];
const V4: [&str; 5] = ["avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"];
/// What current server CPUs have beyond x86-64-v4.
const SERVER: [&str; 6] = ["avx512bf16", "avx512bitalg", "avx512ifma", "avx512vbmi", "avx512vnni", "avx512vpopcntdq"];
const AMX: [&str; 3] = ["amx-bf16", "amx-int8", "amx-tile"];

/// CPUs that multiply pairs of bf16 faster than f32, by LLVM's names. On Zen 4 `llmrt bench` measures twice the operations per
/// second (469 instead of 233 G on two cores); Zen 5 is taken for its like. On an Emerald Rapids they are fewer.
const MULTIPLY_PAIRS: [&str; 2] = ["znver4", "znver5"];

/// The levels of the x86-64 psABI and CPUs that can be named, each with the groups of features beyond the previous
/// level's that code for it may use.
const LEVELS: [(&str, &[&[&str]]); 8] = [
    ("x86-64", &[]),
    ("x86-64-v2", &[&V2]),
    ("x86-64-v3", &[&V2, &V3]),
    ("x86-64-v4", &[&V2, &V3, &V4]),
    ("znver4", &[&V2, &V3, &V4, &SERVER]),
    ("znver5", &[&V2, &V3, &V4, &SERVER]),
    ("sapphirerapids", &[&V2, &V3, &V4, &SERVER, &AMX]),
    ("graniterapids", &[&V2, &V3, &V4, &SERVER, &AMX]),
];

/// How 8-bit numbers are multiplied: weights without a sign by numbers that have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteProducts {
    /// VPDPBUSD: four products are added to a sum of 32 bits.
    Fused,
    /// VPMADDUBSW in vectors of so many bytes: two products make a number of 16 bits. Others add two of these to a sum.
    InPairs(usize),
}

impl ByteProducts {
    /// The largest number that a weight is multiplied by. The sum of two products with 255 must fit 16 bits.
    pub fn largest(self) -> i64 {
        match self {
            ByteProducts::Fused => 127,
            ByteProducts::InPairs(_) => 64,
        }
    }

    /// How many products are taken in the time of one in f32. An instruction has four times as many, or it takes two and a sum;
    /// with vectors of 32 bytes sums have a port besides those that multiply.
    pub fn rate(self) -> f64 {
        match self {
            ByteProducts::Fused => 4.0,
            ByteProducts::InPairs(..64) => 2.0,
            ByteProducts::InPairs(_) => 4.0 / 3.0,
        }
    }
}

impl HostTarget {
    /// The names that [`HostTarget::named`] accepts.
    pub fn names() -> Vec<&'static str> {
        std::iter::once("native").chain(LEVELS.iter().map(|(name, _)| *name)).collect()
    }

    /// A target by name; `native` is this machine's CPU.
    pub fn named(name: &str) -> Result<HostTarget, CodegenError> {
        if name == "native" {
            return Ok(HostTarget::native());
        }
        let level = LEVELS.iter().find(|(level, _)| *level == name);
        let Some((name, groups)) = level else {
            return Err(CodegenError::UnknownTarget { name: name.to_owned(), known: HostTarget::names().join(", ") });
        };
        let mut features: Vec<String> = groups.iter().flat_map(|group| group.iter().map(ToString::to_string)).collect();
        features.sort();
        Ok(HostTarget {
            name: (*name).to_owned(),
            llvm_cpu: (*name).to_owned(),
            llvm_features: String::new(),
            cpu_features: features,
            multiplies_pairs: MULTIPLY_PAIRS.contains(name),
            tuning: Tuning::default(),
        })
    }

    /// This machine's CPU with the features that it reports.
    fn native() -> HostTarget {
        let (llvm_cpu, reported) = host_cpu();
        let has = |feature: &str| {
            let llvm_name = llvm_feature(feature);
            reported.split(',').any(|item| item.strip_prefix('+') == Some(llvm_name.as_str()))
        };
        let known = [&V2[..], &V3, &V4, &SERVER, &AMX].concat();
        let mut features: Vec<String> = known.into_iter().filter(|f| has(f)).map(ToString::to_string).collect();
        features.sort();
        // Code may use only what is checked for at load time, so that it never meets a CPU that lacks a feature.
        let llvm_features: Vec<String> = features.iter().map(|feature| format!("+{}", llvm_feature(feature))).collect();
        HostTarget {
            name: format!("native:{llvm_cpu}"),
            llvm_cpu: "x86-64".into(),
            llvm_features: llvm_features.join(","),
            multiplies_pairs: MULTIPLY_PAIRS.contains(&llvm_cpu.as_str()) && has("avx512bf16"),
            cpu_features: features,
            tuning: Tuning::default(),
        }
    }

    /// The target without its matrix unit. Vector instructions take the sums of a product in one order for any number of
    /// rows; a matrix unit, which few rows would not fill, takes them in another.
    pub fn with_vectors_alone(mut self) -> HostTarget {
        self.cpu_features.retain(|feature| !AMX.contains(&feature.as_str()));
        self
    }

    /// Whether a matrix unit takes its products of bf16.
    pub fn has_tiles(&self) -> bool {
        ["amx-tile", "amx-bf16", "avx512bw"].iter().all(|feature| self.has(feature))
    }

    /// How code for this target multiplies rounded weights ([`llmc_ir::plan::Search`]), if it does.
    pub fn byte_products(&self) -> Option<ByteProducts> {
        match ["avx512vnni", "avx512bw", "avx2"].map(|feature| self.has(feature)) {
            [true, true, _] => Some(ByteProducts::Fused),
            [_, true, _] => Some(ByteProducts::InPairs(64)),
            [_, false, true] => Some(ByteProducts::InPairs(32)),
            [_, false, false] => None,
        }
    }

    /// How many products in block floating point ([`llmc_ir::block_float`]) code for this target takes in the time of one of bf16, if it
    /// takes any: where bf16 is made f32, in vectors that leave a port for sums of integers beside their products. Measured on
    /// Zen 3 with all that a block takes; the instructions alone are 1.6 times as fast.
    pub fn block_float(&self) -> Option<f64> {
        (self.has("avx2") && !self.has("avx512f")).then_some(1.45)
    }

    /// Whether code for this target reads compressed weights ([`llmc_ir::plan::WeightLayout::Compressed`]): with instructions that
    /// look bytes up.
    pub fn decompresses(&self) -> bool {
        self.has("ssse3")
    }

    /// Whether code for this target may use a feature.
    pub fn has(&self, feature: &str) -> bool {
        self.cpu_features.iter().any(|known| known == feature)
    }
}

/// LLVM's name of a feature.
fn llvm_feature(feature: &str) -> String {
    match feature {
        "cmpxchg16b" => "cx16".into(),
        "bmi1" => "bmi".into(),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_grow() {
        let [v3, v4] = ["x86-64-v3", "x86-64-v4"].map(|name| HostTarget::named(name).unwrap());
        assert!(v3.has("fma") && !v3.has("avx512f") && v4.has("avx512f"));
        assert!(v3.cpu_features.iter().all(|feature| v4.has(feature)));
    }

    #[test]
    fn unknown_names_list_the_known_ones() {
        let error = HostTarget::named("pentium").unwrap_err().to_string();
        assert!(error.contains("pentium") && error.contains("x86-64-v3") && error.contains("native"), "{error}");
    }

    #[test]
    fn native_code_uses_only_what_is_checked() {
        let native = HostTarget::named("native").unwrap();
        assert_eq!(native.llvm_features.matches('+').count(), native.cpu_features.len());
    }
}
