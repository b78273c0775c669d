//! The part of a result that a file wants to see.

use crate::directives::Directives;

/// The blocks of `text` (a program's line, a module's line, a function, a step) that are asked for; without module and
/// step if those were invented.
pub(crate) fn chosen(text: &str, directives: &Directives, bare: bool) -> String {
    if text.starts_with("error") {
        return text.to_owned();
    }
    let mut program = None;
    let mut kept: Vec<String> = Vec::new();
    for block in blocks(text) {
        if let Some(name) = named(&block, "program") {
            program = Some(name);
        }
        let in_program = directives.program.is_none() || program.is_none() || program == directives.program;
        let frame =
            ["module", "fused module", "step", "plan", "kv", "weights"].iter().any(|word| block.starts_with(word));
        let wanted = match (&directives.function, named(&block, "func")) {
            (Some(wanted), Some(name)) => *wanted == name,
            (Some(_), None) => !frame,
            (None, _) => !(bare && frame),
        };
        if in_program && wanted {
            kept.push(block);
        }
    }
    kept.join("\n")
}

/// Runs of lines without a blank one at the top level, each ending with a line break.
fn blocks(text: &str) -> Vec<String> {
    let mut blocks = vec![String::new()];
    for line in text.lines() {
        match blocks.last_mut() {
            Some(block) if !line.is_empty() => {
                block.push_str(line);
                block.push('\n');
            }
            Some(block) if block.is_empty() => {}
            _ => blocks.push(String::new()),
        }
    }
    blocks.retain(|block| !block.is_empty());
    blocks
}

/// `f` of a block that starts with `func @f(`, if `word` is `func`.
fn named(block: &str, word: &str) -> Option<String> {
    let name = block.strip_prefix(word)?.strip_prefix(" @")?;
    let end = name.find(|c: char| !(c.is_ascii_alphanumeric() || "._+-".contains(c))).unwrap_or(name.len());
    Some(name[..end].to_owned())
}
