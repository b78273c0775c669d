//! Calls of device functions: the function's body takes the place of the call, its parameters being the caller's variables.
//!
//! So there is no stack: a function that calls itself, or one whose address is taken, is an error. `__assertfail` is a trap,
//! and `vprintf` does nothing.

use std::collections::HashMap;

use super::builder::{Builder, Symbol};
use super::cursor::Cursor;
use super::{declaration, statement};
use crate::error::PtxError;
use crate::instruction::{Branch, Code, Guard, Operation};
use crate::lexer::Token;
use crate::module::Parameter;

/// Instructions that a kernel may have with everything that it calls.
const MOST_INSTRUCTIONS: usize = 1 << 20;

/// The function that is being parsed, where it is not the kernel itself.
#[derive(Default)]
pub(super) struct Frame {
    name: String,
    /// The label behind it, where `ret` goes.
    pub end: Option<String>,
    /// Its parameters, and `.param` variables that it has for calls: places in local memory and lengths.
    pub variables: HashMap<String, (u64, u64)>,
}

/// Finds the definitions of device functions: where each one's text starts behind `.func`.
pub(super) fn functions(cursor: &Cursor) -> HashMap<String, usize> {
    let mut cursor = cursor.clone();
    let mut found = HashMap::new();
    while let Some(token) = cursor.next() {
        if token == Token::Dotted("func") {
            let at = cursor.at();
            if let Ok((name, _)) = signature(&mut cursor)
                && cursor.peek() == Some(Token::Symbol(b'{'))
            {
                found.insert(name, at);
            }
        }
    }
    found
}

/// `.func (results) name (parameters)`, from behind `.func` up to the body.
fn signature(cursor: &mut Cursor) -> Result<(String, Vec<Parameter>), PtxError> {
    let (mut all, _) = declaration::parameters(cursor)?;
    cursor.take_dotted("noreturn");
    let name = cursor.name()?.to_string();
    all.extend(declaration::parameters(cursor)?.0);
    cursor.take_dotted("noreturn");
    Ok((name, all))
}

/// `.param .b32 param0;` inside of a body: a place in local memory, new in every call sequence.
pub(super) fn variable(cursor: &mut Cursor, builder: &mut Builder) -> Result<(), PtxError> {
    for variable in declaration::module_variables(cursor)? {
        let Symbol { align, bytes, .. } = variable.symbol;
        let at = builder.local_bytes.next_multiple_of(align.max(8));
        builder.local_bytes = at + bytes;
        builder.frame.variables.insert(variable.name, (at, bytes));
    }
    Ok(())
}

/// `call (results), name, (arguments);`, from behind the instruction's words.
pub(super) fn call(cursor: &mut Cursor, builder: &mut Builder, guard: Option<Guard>) -> Result<(), PtxError> {
    let line = builder.line;
    let mut arguments = names(cursor)?;
    if !arguments.is_empty() {
        cursor.expect(b',')?;
    }
    let name = cursor.name()?.to_string();
    if cursor.take(b',') {
        arguments.extend(names(cursor)?);
    }
    if builder.register(&name)?.is_some() {
        return builder.error("`call` of a function by its address is not implemented");
    }
    cursor.expect(b';')?;
    if builder.callers.contains(&name) || builder.frame.name == name {
        return builder.error(format!("`call` of `{name}` from itself is not implemented"));
    }
    let end = format!("the end of `{name}`");
    let first_branch = builder.branches.len();
    if let Some(Guard { predicate, negated }) = guard {
        branch(builder, line, &end, Some(Guard { predicate, negated: !negated }));
    }
    match (name.as_str(), builder.functions.get(&name).copied()) {
        (_, Some(at)) => {
            let back = cursor.at();
            cursor.go_to(at);
            inline(cursor, builder, &arguments, &end)?;
            cursor.go_to(back);
        }
        ("__assertfail", None) => push(builder, line, "trap", Operation::Trap),
        ("vprintf", None) => {}
        _ => return builder.error(format!("`call` of `{name}`, which has no body here")),
    }
    builder.line = line;
    let behind = builder.code.len() as u32;
    builder.resolve(first_branch, |label| (label == end).then_some(behind));
    builder.all_resolved(first_branch)?;
    Ok(())
}

/// Parses a function's body into the code of its caller.
fn inline(cursor: &mut Cursor, builder: &mut Builder, arguments: &[String], end: &str) -> Result<(), PtxError> {
    let (name, parameters) = signature(cursor)?;
    if parameters.len() != arguments.len() {
        let (wanted, found) = (parameters.len(), arguments.len());
        return builder.error(format!("`{name}` takes {wanted} parameters and results, found {found}"));
    }
    let mut variables = HashMap::new();
    for (parameter, argument) in parameters.iter().zip(arguments) {
        match builder.frame.variables.get(argument) {
            Some(&(at, bytes)) if bytes >= parameter.bytes => {
                variables.insert(parameter.name.clone(), (at, parameter.bytes));
            }
            _ => return builder.error(format!("`{argument}` is no `.param` variable of {} bytes", parameter.bytes)),
        }
    }
    let frame = Frame { name, end: Some(end.to_string()), variables };
    let caller = std::mem::replace(&mut builder.frame, frame);
    builder.callers.push(caller.name.clone());
    builder.open_scope();
    statement::body(cursor, builder)?;
    builder.callers.pop();
    builder.frame = caller;
    if builder.code.len() > MOST_INSTRUCTIONS {
        return builder.error(format!("a kernel of more than {MOST_INSTRUCTIONS} instructions with all that it calls"));
    }
    Ok(())
}

/// `ret` in a function: goes to behind the call.
pub(super) fn leave(builder: &mut Builder) -> Option<Operation> {
    let end = builder.frame.end.clone()?;
    builder.branches.push((builder.code.len(), end, builder.line));
    Some(Operation::Branch(Branch { target: 0, reconverge: 0 }))
}

fn branch(builder: &mut Builder, line: u32, label: &str, guard: Option<Guard>) {
    builder.branches.push((builder.code.len(), label.to_string(), line));
    let kind = builder.kind("bra".to_string());
    builder.code.push(Code { line, kind, guard, operation: Operation::Branch(Branch { target: 0, reconverge: 0 }) });
}

fn push(builder: &mut Builder, line: u32, kind: &str, operation: Operation) {
    let kind = builder.kind(kind.to_string());
    builder.code.push(Code { line, kind, guard: None, operation });
}

/// `(a, b)`, if it is there.
fn names(cursor: &mut Cursor) -> Result<Vec<String>, PtxError> {
    let mut list = Vec::new();
    if !cursor.take(b'(') || cursor.take(b')') {
        return Ok(list);
    }
    loop {
        list.push(cursor.name()?.to_string());
        if cursor.take(b')') {
            return Ok(list);
        }
        cursor.expect(b',')?;
    }
}
