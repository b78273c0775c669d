//! A kernel's body: scopes, labels, guards, and the dispatch of instructions to their families.

use super::builder::Builder;
use super::cursor::{Cursor, describe};
use super::modifiers::Modifiers;
use super::operand::{Operand, operands};
use super::types::Type;
use super::{access, bits, call, convert, declaration, float, integer, matrix, moves, synchronize, wmma};
use crate::error::PtxError;
use crate::flow;
use crate::instruction::{Branch, Code, Guard, Operation};
use crate::lexer::Token;

/// An instruction as written.
pub(super) struct Statement<'t> {
    pub modifiers: Modifiers<'t>,
    pub operands: Vec<Operand<'t>>,
}

impl<'t> Statement<'t> {
    /// Checks the number of operands.
    pub fn expect(&self, count: usize) -> Result<(), PtxError> {
        self.expect_between(count, count)
    }

    pub fn expect_between(&self, least: usize, most: usize) -> Result<(), PtxError> {
        let found = self.operands.len();
        if (least..=most).contains(&found) {
            return Ok(());
        }
        let wanted = if least == most { least.to_string() } else { format!("{least} to {most}") };
        self.modifiers.error(format!("`{}` takes {wanted} operands, found {found}", self.modifiers.root))
    }
}

/// Parses `{ ... }` into the builder.
pub(super) fn body(cursor: &mut Cursor, builder: &mut Builder) -> Result<(), PtxError> {
    cursor.expect(b'{')?;
    let mut depth = 1;
    while depth > 0 {
        builder.line = cursor.line();
        match cursor.peek() {
            None => return cursor.error("a kernel without its closing `}`"),
            Some(Token::Symbol(b'{')) => {
                cursor.next();
                depth += 1;
                builder.open_scope();
            }
            Some(Token::Symbol(b'}')) => {
                cursor.next();
                depth -= 1;
                builder.close_scope();
            }
            Some(Token::Symbol(b';')) => {
                cursor.next();
            }
            Some(Token::Dotted("reg")) => {
                cursor.next();
                declaration::registers(cursor, builder)?;
            }
            Some(Token::Dotted("param")) => call::variable(cursor, builder)?,
            Some(Token::Dotted("shared" | "local")) => declaration::kernel_variables(cursor, builder)?,
            Some(Token::Dotted("pragma")) => cursor.skip_statement(),
            Some(Token::Dotted(directive)) => {
                return cursor.error(format!("the directive `.{directive}` is not implemented inside of a kernel"));
            }
            Some(Token::Name(name)) if cursor.peek_second() == Some(Token::Symbol(b':')) => {
                cursor.next();
                cursor.next();
                let at = builder.code.len() as u32;
                let scope = builder.scopes.last_mut().expect("a body has a scope");
                if cursor.take_dotted("branchtargets") {
                    scope.targets.insert(name.to_string(), label_list(cursor)?);
                } else if scope.labels.insert(name.to_string(), at).is_some() {
                    return builder.error(format!("the label `{name}` is there twice"));
                }
            }
            Some(Token::Name(_) | Token::Symbol(b'@')) => instruction(cursor, builder)?,
            other => return cursor.error(format!("expected an instruction, found {}", describe(other))),
        }
    }
    Ok(())
}

fn instruction(cursor: &mut Cursor, builder: &mut Builder) -> Result<(), PtxError> {
    let line = cursor.line();
    builder.line = line;
    let mut guard = None;
    if cursor.take(b'@') {
        let negated = cursor.take(b'!');
        let name = cursor.name()?;
        guard = Some(Guard { predicate: builder.predicate(&Operand::Name(name))?, negated });
    }
    let root = cursor.name()?;
    let mut words = Vec::new();
    while let Some(Token::Dotted(word)) = cursor.peek() {
        cursor.next();
        words.push(word);
    }
    if root == "call" {
        return call::call(cursor, builder, guard);
    }
    let kind = kind(root, &words);
    let name = [&[root], &words[..]].concat().join(".");
    let named = |error: PtxError| error.of_instruction(&name);
    let operands = operands(cursor).map_err(named)?;
    let mut statement = Statement { modifiers: Modifiers::new(root, words, line), operands };
    if root == "brx" {
        return branch_by_index(&mut statement, builder, guard).map_err(named);
    }
    let operation = operation(&mut statement, builder).map_err(named)?;
    statement.modifiers.finish().map_err(named)?;
    let kind = builder.kind(kind);
    builder.code.push(Code { line, kind, guard, operation });
    Ok(())
}

fn operation(statement: &mut Statement, builder: &mut Builder) -> Result<Operation, PtxError> {
    match statement.modifiers.root {
        "mov" => moves::mov(statement, builder),
        "selp" => moves::selp(statement, builder),
        "setp" => moves::setp(statement, builder),
        "set" => moves::set(statement, builder),
        "cvta" => moves::cvta(statement, builder),
        "isspacep" => moves::isspacep(statement, builder),
        "createpolicy" => moves::createpolicy(statement, builder),
        "cvt" => convert::cvt(statement, builder),
        "add" | "sub" | "mul" | "div" | "min" | "max" => {
            if float::is_float(statement) {
                float::binary(statement, builder)
            } else {
                integer::binary(statement, builder)
            }
        }
        "rem" | "mul24" => integer::binary(statement, builder),
        "mad" | "fma" if float::is_float(statement) => float::fma(statement, builder),
        "mad" => integer::mad(statement, builder),
        "madc" => integer::mad(statement, builder),
        "addc" | "subc" => integer::carry(statement, builder),
        "sad" => integer::sad(statement, builder),
        "dp4a" | "dp2a" => integer::dot(statement, builder),
        "neg" | "abs" if float::is_float(statement) => float::unary(statement, builder),
        "sqrt" | "rsqrt" | "rcp" | "ex2" | "lg2" | "sin" | "cos" | "tanh" => float::unary(statement, builder),
        "copysign" => float::binary(statement, builder),
        "neg" | "abs" | "not" | "cnot" | "brev" => bits::unary(statement, builder),
        "popc" | "clz" | "bfind" => bits::count(statement, builder),
        "and" | "or" | "xor" => bits::logic(statement, builder),
        "shl" | "shr" => bits::shift(statement, builder),
        "shf" => bits::funnel(statement, builder),
        "bfe" => bits::extract(statement, builder),
        "bfi" => bits::insert(statement, builder),
        "prmt" => bits::permute(statement, builder),
        "lop3" => bits::lop3(statement, builder),
        "ld" | "ldu" => access::load(statement, builder),
        "st" => access::store(statement, builder),
        "atom" | "red" => access::atomic(statement, builder),
        "cp" => access::copy(statement, builder),
        "prefetch" | "prefetchu" | "discard" | "applypriority" => access::hint(statement),
        "ldmatrix" => matrix::ldmatrix(statement, builder),
        "stmatrix" => matrix::stmatrix(statement, builder),
        "mma" => matrix::mma(statement, builder),
        "wmma" => wmma::wmma(statement, builder),
        "shfl" => synchronize::shuffle(statement, builder),
        "vote" => synchronize::vote(statement, builder),
        "match" => synchronize::matching(statement, builder),
        "redux" => synchronize::redux(statement, builder),
        "elect" => synchronize::elect(statement, builder),
        "activemask" => synchronize::activemask(statement, builder),
        "bar" | "barrier" => synchronize::barrier(statement, builder),
        "membar" | "fence" | "griddepcontrol" | "nanosleep" | "pmevent" => synchronize::nothing(statement),
        "bra" => branch(statement, builder),
        "ret" | "exit" => {
            statement.modifiers.flag("uni");
            statement.expect(0)?;
            let returns = statement.modifiers.root == "ret";
            Ok(returns.then(|| call::leave(builder)).flatten().unwrap_or(Operation::Exit))
        }
        // Without a debugger both end the kernel with an error.
        "trap" | "brkpt" => Ok(Operation::Trap),
        root => match integer::video_name(root) {
            Some(name) => integer::video(statement, builder, name),
            None => builder.error("the instruction is not implemented"),
        },
    }
}

fn branch(statement: &mut Statement, builder: &mut Builder) -> Result<Operation, PtxError> {
    statement.expect(1)?;
    statement.modifiers.flag("uni");
    let Operand::Name(label) = statement.operands[0] else {
        return builder.error("`bra` takes a label");
    };
    builder.branches.push((builder.code.len(), label.to_string(), builder.line));
    Ok(Operation::Branch(Branch { target: 0, reconverge: 0 }))
}

/// `brx.idx`: a comparison and a branch per label, and a trap behind them.
fn branch_by_index(statement: &mut Statement, builder: &mut Builder, guard: Option<Guard>) -> Result<(), PtxError> {
    let (line, modifiers) = (builder.line, &mut statement.modifiers);
    modifiers.require(&[("idx", ())])?;
    modifiers.flag("uni");
    modifiers.finish()?;
    let list = match &statement.operands[..] {
        [_, Operand::Name(name)] => builder.scopes.iter().rev().find_map(|scope| scope.targets.get(*name)).cloned(),
        _ => None,
    };
    let (Some(list), None) = (list, guard) else {
        return builder.error("`brx.idx` takes a register and a list of labels that `.branchtargets` gave a name");
    };
    let found = "the label of brx";
    let scope = builder.scopes.last_mut().expect("a body has a scope");
    scope.single.insert(found.to_string(), Type::Predicate);
    let kind = builder.kind("brx.idx".to_string());
    for (number, label) in list.into_iter().enumerate() {
        let operands = vec![Operand::Name(found), statement.operands[0].clone(), Operand::Integer(number as u64)];
        let mut compare = Statement { modifiers: Modifiers::new("setp", vec!["eq", "u32"], line), operands };
        let operation = moves::setp(&mut compare, builder)?;
        builder.code.push(Code { line, kind, guard: None, operation });
        let guard = Some(Guard { predicate: builder.predicate(&Operand::Name(found))?, negated: false });
        builder.branches.push((builder.code.len(), label, line));
        builder.code.push(Code {
            line,
            kind,
            guard,
            operation: Operation::Branch(Branch { target: 0, reconverge: 0 }),
        });
    }
    builder.code.push(Code { line, kind, guard: None, operation: Operation::Trap });
    Ok(())
}

/// `a, b;`
fn label_list(cursor: &mut Cursor) -> Result<Vec<String>, PtxError> {
    let mut list = vec![cursor.name()?.to_string()];
    while cursor.take(b',') {
        list.push(cursor.name()?.to_string());
    }
    cursor.expect(b';')?;
    Ok(list)
}

/// The name under which executions are counted: the instruction with the word that tells most about it.
fn kind(root: &str, words: &[&str]) -> String {
    let spaces = ["global", "shared", "local", "param", "const"];
    let word = match root {
        "ld" | "st" | "atom" | "red" => words.iter().find_map(|word| {
            let space = word.split("::").next().unwrap_or(word);
            spaces.contains(&space).then_some(space)
        }),
        "cp" if words.first() == Some(&"async") => {
            return match words.get(1) {
                Some(word @ (&"commit_group" | &"wait_group" | &"wait_all")) => format!("cp.async.{word}"),
                _ => "cp.async".to_string(),
            };
        }
        "mma" => words.iter().find(|word| word.starts_with("m16")).copied(),
        "ldmatrix" | "stmatrix" => words.iter().find(|word| word.len() == 2 && word.starts_with('x')).copied(),
        "bra" | "ret" => None,
        _ => words.iter().rev().find(|word| Type::parse(word).is_some()).or(words.first()).copied(),
    };
    let word = match root {
        "shfl" | "vote" | "bar" | "barrier" | "redux" | "match" | "wmma" => words.first().copied(),
        _ => word,
    };
    word.map_or_else(|| root.to_string(), |word| format!("{root}.{word}"))
}

/// Appends the implicit return, and finds where diverged lanes meet again.
pub(super) fn finish(builder: &mut Builder) -> Result<(), PtxError> {
    let line = builder.line;
    let kind = builder.kind("ret".to_string());
    builder.code.push(Code { line, kind, guard: None, operation: Operation::Exit });
    builder.all_resolved(0)?;
    flow::set_reconvergence(&mut builder.code);
    Ok(())
}
