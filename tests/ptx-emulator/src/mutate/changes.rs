//! The defective variants of one statement.

/// A kind of defect and the statement that has it.
type Change = (&'static str, String);

/// All of them.
pub fn of(statement: &str) -> Vec<Change> {
    let (guard, rest) = match statement.strip_prefix('@') {
        Some(guarded) => guarded.split_once(char::is_whitespace).unwrap_or(("", guarded)),
        None => ("", statement),
    };
    let rest = rest.trim();
    let mut list = unguarded(rest);
    if !guard.is_empty() {
        for (_, text) in &mut list {
            *text = format!("@{guard} {text}");
        }
        list.push(("guard dropped", rest.to_owned()));
        let negated = guard.strip_prefix('!').map_or_else(|| format!("!{guard}"), str::to_owned);
        list.push(("guard negated", format!("@{negated} {rest}")));
    }
    list.retain(|(_, text)| text.trim() != statement);
    list
}

/// Those of a statement without its guard.
fn unguarded(statement: &str) -> Vec<Change> {
    let opcode = statement.split(|c: char| c.is_whitespace() || c == ';').next().unwrap_or_default();
    let parts: Vec<&str> = opcode.split('.').collect();
    let (name, ty) = (parts[0], parts[parts.len() - 1]);
    let integer = ty.len() >= 3 && ty.starts_with(['b', 's', 'u']) && ty[1..].parse::<u32>().is_ok_and(|bits| bits > 8);
    let changed = |kind: &'static str, text: Option<String>| text.map(|text| (kind, text)).into_iter().collect();
    match name {
        "bar" => vec![("barrier deleted", String::new())],
        "cp" => copy_changes(&parts, statement),
        "mma" => vec![
            ("A fragments swapped", swap_in_vector(statement, 1, 0, 1)),
            ("A fragments swapped across k", swap_in_vector(statement, 1, 1, 2)),
            ("B fragments swapped", swap_in_vector(statement, 2, 0, 1)),
            ("result rows swapped", swap_in_vector(statement, 0, 1, 2)),
        ],
        "ldmatrix" => {
            let toggled = match statement.contains(".trans") {
                true => statement.replace(".trans", ""),
                false => statement.replace(".shared", ".trans.shared"),
            };
            let mut list =
                vec![("transposition toggled", toggled), ("matrices swapped", swap_in_vector(statement, 0, 1, 2))];
            list.extend(offset_changed(statement, 16).map(|text| ("matrix address off by a row", text)));
            list
        }
        "ld" | "st" if parts.contains(&"v4") || parts.contains(&"v2") => {
            vec![("vector elements swapped", swap_in_vector(statement, 0, 0, 1))]
        }
        "shfl" => {
            let operands: Vec<&str> = statement.split(',').collect();
            let lanes: u32 = operands[2].trim().parse().unwrap_or(1);
            let other = if lanes == 1 { 2 } else { lanes / 2 };
            vec![("shuffle distance", statement.replacen(&format!(", {lanes},"), &format!(", {other},"), 1))]
        }
        "and" if ty == "pred" => vec![("conjunction weakened", statement.replace("and.pred", "or.pred"))],
        "or" if ty == "pred" => vec![("disjunction strengthened", statement.replace("or.pred", "and.pred"))],
        "and" | "or" | "xor" => changed("mask off by one", number_changed(statement, -1)),
        "shl" | "shr" | "bfe" => changed("shift or field off by one", number_changed(statement, 1)),
        "selp" => vec![("selection inverted", swap_operands(statement, 1, 2))],
        "setp" if integer => {
            let pairs = [
                (".lt", ".le", "bound off by one"),
                (".le", ".lt", "bound off by one"),
                (".gt", ".ge", "bound off by one"),
                (".ge", ".gt", "bound off by one"),
                (".eq", ".ne", "comparison inverted"),
                (".ne", ".eq", "comparison inverted"),
            ];
            let found = pairs.iter().find(|(from, ..)| parts[1] == &from[1..]);
            found.map(|(from, to, kind)| (*kind, statement.replacen(from, to, 1))).into_iter().collect()
        }
        "add" if integer => changed("index off by one", number_changed(statement, 1)),
        "min" | "max" if integer => changed("clamp dropped", without_last_operand(statement, opcode, ty)),
        "cvt" if opcode == "cvt.rn.bf16x2.f32" => vec![("packed halves swapped", swap_operands(statement, 1, 2))],
        _ => Vec::new(),
    }
}

fn copy_changes(parts: &[&str], statement: &str) -> Vec<Change> {
    match parts.get(2) {
        Some(&"commit_group") => vec![("commit deleted", String::new())],
        Some(&"wait_group") => {
            let fewer = number_changed(statement, 1).map(|text| ("wait leaves one more in flight", text));
            std::iter::once(("wait deleted", String::new())).chain(fewer).collect()
        }
        _ => without_source_size(statement).map(|text| ("copy size ignored", text)).into_iter().collect(),
    }
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

/// The smaller or larger of two operands, replaced by the first.
fn without_last_operand(statement: &str, opcode: &str, ty: &str) -> Option<String> {
    let (head, _) = statement.rsplit_once(',')?;
    Some(format!("{};", head.replacen(opcode, &format!("mov.b{}", &ty[1..]), 1)))
}

/// Exchanges two elements of the `vector`-th `{...}`.
fn swap_in_vector(statement: &str, vector: usize, first: usize, second: usize) -> String {
    let Some((open, _)) = statement.match_indices('{').nth(vector) else { return statement.to_owned() };
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
