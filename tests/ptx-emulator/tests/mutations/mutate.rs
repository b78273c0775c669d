//! Seeded defects: small changes of PTX text, each what a bug in a code generator could have made.

use std::collections::BTreeMap;

/// One changed line.
pub struct Mutant {
    /// What kind of defect it is.
    pub kind: &'static str,
    /// Index of the changed line.
    pub line: usize,
    /// The line's new text.
    pub text: String,
}

impl Mutant {
    /// The whole PTX with this change.
    pub fn apply(&self, original: &str) -> String {
        let lines = original.lines().enumerate();
        let changed = lines.map(|(at, line)| if at == self.line { self.text.as_str() } else { line });
        changed.collect::<Vec<_>>().join("\n")
    }
}

/// The defects of all kinds that a kernel's text has room for, in the order of the text.
pub fn mutants(original: &str) -> Vec<Mutant> {
    let lines = original.lines().enumerate();
    lines
        .flat_map(|(line, text)| changes(text.trim()).into_iter().map(move |(kind, text)| Mutant { kind, line, text }))
        .collect()
}

/// At most `count` of each kind, spread over the text.
pub fn sample(mutants: Vec<Mutant>, count: usize) -> Vec<Mutant> {
    let mut totals: BTreeMap<&str, usize> = BTreeMap::new();
    for mutant in &mutants {
        *totals.entry(mutant.kind).or_default() += 1;
    }
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let keep = |mutant: &Mutant| {
        let at = seen.entry(mutant.kind).or_default();
        *at += 1;
        (*at - 1).is_multiple_of(totals[mutant.kind].div_ceil(count))
    };
    mutants.into_iter().filter(keep).collect()
}

/// The defective variants of one statement.
fn changes(statement: &str) -> Vec<(&'static str, String)> {
    let mut list = Vec::new();
    let (guard, rest) = match statement.strip_prefix('@') {
        Some(guarded) => guarded.split_once(char::is_whitespace).unwrap_or(("", guarded)),
        None => ("", statement),
    };
    let rest = rest.trim();
    let opcode = rest.split(|character: char| character.is_whitespace() || character == ';').next().unwrap_or("");
    if !guard.is_empty() {
        list.push(("guard dropped", rest.to_string()));
        let negated = guard.strip_prefix('!').map_or_else(|| format!("!{guard}"), str::to_string);
        list.push(("guard negated", format!("@{negated} {rest}")));
    }
    let rebuilt = |new: String| if guard.is_empty() { new } else { format!("@{guard} {new}") };
    match opcode {
        "bar.sync" => list.push(("barrier deleted", String::new())),
        "cp.async.commit_group" => list.push(("commit deleted", String::new())),
        "cp.async.wait_group" => {
            list.push(("wait deleted", String::new()));
            list.extend(number_changed(rest, 1).map(|text| ("wait leaves one more in flight", text)));
        }
        _ if opcode.starts_with("cp.async.c") => {
            list.extend(without_source_size(rest).map(|text| ("copy size ignored", text)));
        }
        _ if opcode.starts_with("mma") => {
            list.push(("A fragments swapped", rebuilt(swap_in_vector(rest, 1, 0, 1))));
            list.push(("A fragments swapped across k", rebuilt(swap_in_vector(rest, 1, 1, 2))));
            list.push(("B fragments swapped", rebuilt(swap_in_vector(rest, 2, 0, 1))));
            list.push(("result rows swapped", rebuilt(swap_in_vector(rest, 0, 1, 2))));
        }
        _ if opcode.starts_with("ldmatrix") => {
            let toggled = match rest.contains(".trans") {
                true => rest.replace(".trans", ""),
                false => rest.replace(".shared", ".trans.shared"),
            };
            list.push(("transposition toggled", toggled));
            list.push(("matrices swapped", swap_in_vector(rest, 0, 1, 2)));
            list.extend(offset_changed(rest, 16).map(|text| ("matrix address off by a row", text)));
        }
        _ if opcode.starts_with("ld.global") && opcode.contains("v4")
            || opcode.starts_with("st.") && opcode.contains("v4") =>
        {
            list.push(("vector elements swapped", rebuilt(swap_in_vector(rest, 0, 0, 1))));
        }
        _ if opcode.starts_with("ld.shared.v4") => {
            list.push(("vector elements swapped", rebuilt(swap_in_vector(rest, 0, 0, 1))));
        }
        _ if opcode.starts_with("shfl") => {
            let parts: Vec<&str> = rest.split(',').collect();
            let lanes: u32 = parts[2].trim().parse().unwrap_or(1);
            let other = if lanes == 1 { 2 } else { lanes / 2 };
            list.push(("shuffle distance", rest.replacen(&format!(", {lanes},"), &format!(", {other},"), 1)));
        }
        "and.b32" | "or.b32" | "xor.b32" => list.extend(number_changed(rest, -1).map(|text| ("mask off by one", text))),
        "shl.b32" | "shr.u32" | "bfe.u32" => {
            list.extend(number_changed(rest, 1).map(|text| ("shift or field off by one", text)));
        }
        "selp.b32" => list.push(("selection inverted", swap_operands(rest, 1, 2))),
        "setp.lt.s32" => list.push(("bound off by one", rest.replace(".lt", ".le"))),
        "setp.gt.s32" => list.push(("bound off by one", rest.replace(".gt", ".ge"))),
        "setp.eq.b32" => list.push(("comparison inverted", rest.replace(".eq", ".ne"))),
        "setp.ne.b32" => list.push(("comparison inverted", rest.replace(".ne", ".eq"))),
        "and.pred" => list.push(("conjunction weakened", rest.replace("and.pred", "or.pred"))),
        "add.s32" => list.extend(number_changed(rest, 1).map(|text| ("index off by one", text))),
        "cvt.rn.bf16x2.f32" => list.push(("packed halves swapped", swap_operands(rest, 1, 2))),
        _ => {}
    }
    list.retain(|(_, text)| text.trim() != statement);
    list
}

/// The last operand, if it is a number, changed by `by`.
fn number_changed(statement: &str, by: i64) -> Option<String> {
    let body = statement.trim_end_matches(';');
    let start = body.rfind(|character: char| !character.is_ascii_digit() && character != '-')? + 1;
    if !body[..start].ends_with(char::is_whitespace) {
        return None;
    }
    let value: i64 = body[start..].parse().ok()?;
    Some(format!("{}{};", &body[..start], value + by))
}

/// The address's constant offset changed by `by`.
fn offset_changed(statement: &str, by: i64) -> Option<String> {
    let (open, close) = (statement.rfind('[')? + 1, statement.rfind(']')?);
    let (base, offset) = statement[open..close].split_once('+').unwrap_or((&statement[open..close], "0"));
    let offset: i64 = offset.trim().parse().ok()?;
    Some(format!("{}{base}+{}{}", &statement[..open], offset + by, &statement[close..]))
}

/// `cp.async` without its source size: what should be zero is read.
fn without_source_size(statement: &str) -> Option<String> {
    let (head, _) = statement.rsplit_once(", %r")?;
    Some(format!("{head};"))
}

/// Exchanges two elements of the `vector`-th `{...}`.
fn swap_in_vector(statement: &str, vector: usize, first: usize, second: usize) -> String {
    let Some((open, _)) = statement.match_indices('{').nth(vector) else { return statement.to_string() };
    let close = open + statement[open..].find('}').unwrap_or(0);
    let mut parts: Vec<&str> = statement[open + 1..close].split(',').collect();
    if second < parts.len() {
        parts.swap(first, second);
    }
    format!("{}{}{}", &statement[..=open], parts.join(","), &statement[close..])
}

/// Exchanges two operands, counted from the destination.
fn swap_operands(statement: &str, first: usize, second: usize) -> String {
    let mut parts: Vec<&str> = statement.trim_end_matches(';').split(',').collect();
    if second < parts.len() {
        parts.swap(first, second);
    }
    format!("{};", parts.join(","))
}
