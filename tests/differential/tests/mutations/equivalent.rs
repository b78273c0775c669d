//! Seeded defects that change nothing a run could show, by rule, each with the reason why.

use llmc_ptx_emulator::mutate::Mutant;

/// Defects of a kind in statements of a kind.
struct Rule {
    /// How the kernel's name begins and ends.
    kernel: [&'static str; 2],
    /// Kinds of the defect.
    kinds: &'static [&'static str],
    /// What is in the statement.
    statement: &'static str,
    /// What is in the one before it.
    before: &'static str,
    reason: &'static str,
}

const ANY: [&str; 2] = ["", ""];

const RULES: &[Rule] = &[
    Rule {
        kernel: ANY,
        kinds: &["index off by one"],
        statement: ", 1065353216;",
        before: "",
        reason: "the exponent's bits of a power of two: one unit in its last place is less than exponentials may be off",
    },
    Rule {
        kernel: ["", "__rows"],
        kinds: &["shift or field off by one"],
        statement: "shr.s32",
        before: "",
        reason: "divides an exponent in two parts, and any two will do",
    },
    Rule {
        kernel: ANY,
        kinds: &["shift or field off by one"],
        statement: "shr.u32",
        before: "shr.s32",
        reason: "rounds the division of a negative position",
    },
    Rule {
        kernel: ["prefill", "__input_layernorm__rows"],
        kinds: &["vector elements swapped"],
        statement: "ld.global.v4",
        before: "add.s64",
        reason: "squares are summed in another order",
    },
    Rule {
        kernel: ["", "__tile"],
        kinds: &["clamp dropped"],
        statement: "max.u64",
        before: "shr.u64",
        reason: "a step without rows ends in the next line but one",
    },
    Rule {
        kernel: ["", "__tile"],
        kinds: &["disjunction strengthened"],
        statement: "or.pred",
        before: "setp",
        reason: "blocks behind the last columns belong to no section, so they store nothing either way",
    },
    Rule {
        kernel: ANY,
        kinds: &["commit deleted"],
        statement: "",
        before: "bar.sync",
        reason: "an empty group, where nothing is left to be copied and nothing is waited for",
    },
    Rule {
        kernel: ["", "__flash"],
        kinds: &["comparison inverted"],
        statement: "setp.ne.s32",
        before: "",
        reason: "the other threads find the same values and write them",
    },
    Rule {
        kernel: ["", "__split"],
        kinds: &["comparison inverted"],
        statement: "setp.ne.s64",
        before: "",
        reason: "the other lanes of four have the same sums",
    },
    Rule {
        kernel: ["", "__split"],
        kinds: &["guard negated"],
        statement: "bra",
        before: "setp.ne.s64",
        reason: "the other lanes of four have the same sums",
    },
    Rule {
        kernel: ["", "__split"],
        kinds: &["mask off by one"],
        statement: ", 255;",
        before: "",
        reason: "the last two positions of a split lie in one block",
    },
    Rule {
        kernel: ["decode", "__stream"],
        kinds: &["clamp dropped"],
        statement: "min.s64",
        before: "",
        reason: "the program has no more rows than a block takes",
    },
    Rule {
        kernel: ["decode_1__", "__stream"],
        kinds: &["vector elements swapped"],
        statement: "st.shared",
        before: "st.shared",
        reason: "of rows that a step of one token does not have",
    },
    Rule {
        kernel: ANY,
        kinds: &["mask off by one"],
        statement: ", -4294967296;",
        before: "",
        reason: "short numbers are divided as such where they are short, which gives the same",
    },
    Rule {
        kernel: ANY,
        kinds: &["comparison inverted"],
        statement: "setp.ne.s64",
        before: ", -4294967296;",
        reason: "short numbers are divided as such where they are short, which gives the same",
    },
];

/// Why a defect in a kernel is none. `before` is the line in front of its statement.
pub fn reason(symbol: &str, mutant: &Mutant, before: &str) -> Option<&'static str> {
    let rule = RULES.iter().find(|rule| {
        symbol.starts_with(rule.kernel[0])
            && symbol.ends_with(rule.kernel[1])
            && rule.kinds.contains(&mutant.kind)
            && mutant.before.contains(rule.statement)
            && before.contains(rule.before)
    });
    rule.map(|rule| rule.reason).or_else(|| columns_in_fours(symbol, mutant))
}

/// Kernels that give four columns to a thread compare the first of them with the last column there is.
fn columns_in_fours(symbol: &str, mutant: &Mutant) -> Option<&'static str> {
    let bound = mutant.before.trim_end_matches(';').rsplit(' ').next()?.parse::<u32>().ok()?;
    let fits = symbol.ends_with("__rows")
        && mutant.kind == "bound off by one"
        && mutant.before.contains("setp.gt.u64")
        && bound % 4 == 3;
    fits.then_some("the first of four columns is never the last one there is")
}
