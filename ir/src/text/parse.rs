//! Parses documents: programs, modules and steps.

use super::Document;
use super::lex::{Token, tokens, unescaped};
use super::print::is_name;
use crate::dim::{Bindings, Bounds, Dim, Symbol};
use crate::dtype::DType;
use crate::machine::Processor;
use crate::module::{Argument, Call, Function, Module, Param, SpecializedModule};
use crate::region::{FusedFunction, FusedModule, FusedProgram};
use crate::shape::{KvType, Shape, TensorType, Type};
use std::collections::BTreeSet;
use std::str::FromStr;

/// Why a text is no document, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: {message}")]
pub struct ParseError {
    /// Line of the offending token, from 1.
    pub line: usize,
    /// Column of its first character, from 1.
    pub column: usize,
    /// What was expected and what was found.
    pub message: String,
}

/// Parses the text form of a document.
pub fn parse(text: &str) -> Result<Document, ParseError> {
    let mut parser = Parser { text, tokens: tokens(text), next: 0 };
    let document = parser.document()?;
    match parser.peek() {
        Token::End => Ok(document),
        _ => Err(parser.unexpected("`program` or the end of the text")),
    }
}

/// A text and how far it is read.
pub(super) struct Parser<'a> {
    text: &'a str,
    tokens: Vec<(Token<'a>, usize)>,
    next: usize,
}

/// A module of either kind.
enum AnyModule {
    Plain(Module),
    Fused(FusedModule),
}

impl<'a> Parser<'a> {
    fn document(&mut self) -> Result<Document, ParseError> {
        if self.peek() != Token::Word("program") {
            let start = self.position();
            return match self.module()? {
                AnyModule::Plain(module) => Ok(Document::Module(module)),
                AnyModule::Fused(_) => {
                    Err(self.error_at(start, "a fused module needs a line `program @...` before it"))
                }
            };
        }
        let (mut specialized, mut fused) = (Vec::new(), Vec::new());
        let mut names = BTreeSet::new();
        while self.take_word("program") {
            let name = self.new_symbol("a program", &mut names)?;
            let processor = match self.take_word("on") {
                true => self.variant(&Processor::ALL, Processor::name)?,
                false => Processor::default(),
            };
            let bounds = self.bounds()?;
            let start = self.position();
            match self.module()? {
                AnyModule::Plain(module) => specialized.push(SpecializedModule { name, processor, bounds, module }),
                AnyModule::Fused(module) => fused.push(FusedProgram { name, processor, bounds, module }),
            }
            if !specialized.is_empty() && !fused.is_empty() {
                return Err(self.error_at(start, "programs are either all fused or none is"));
            }
        }
        Ok(if fused.is_empty() { Document::Specialized(specialized) } else { Document::Fused(fused) })
    }

    fn bounds(&mut self) -> Result<Bounds, ParseError> {
        let mut limits = [0; 4];
        self.mark("{")?;
        for (symbol, limit) in Symbol::ALL.iter().zip(&mut limits) {
            if *symbol != Symbol::ALL[0] {
                self.mark(",")?;
            }
            self.word(symbol.name())?;
            self.mark("<=")?;
            *limit = self.integer()?;
        }
        let one_token_per_sequence = self.take_mark(",");
        if one_token_per_sequence {
            self.word("one_token_per_sequence")?;
        }
        self.mark("}")?;
        let [tokens, samples, sequences, context] = limits;
        Ok(Bounds { max: Bindings { tokens, samples, sequences, context }, one_token_per_sequence })
    }

    fn module(&mut self) -> Result<AnyModule, ParseError> {
        let is_fused = self.take_word("fused");
        if self.peek() != Token::Word("module") {
            return Err(self.unexpected("`module @Name`"));
        }
        self.next += 1;
        let name = self.new_symbol("a module", &mut BTreeSet::new())?;
        let mut names = BTreeSet::new();
        let mut functions: Vec<Function> = Vec::new();
        let mut fused_functions: Vec<FusedFunction> = Vec::new();
        while self.take_word("func") {
            let function = self.new_symbol("a function", &mut names)?;
            match is_fused {
                true => fused_functions.push(self.fused_function(function)?),
                false => functions.push(self.function(function)?),
            }
        }
        if self.peek() != Token::Word("step") {
            return Err(self.unexpected("`func` or `step`"));
        }
        let calls = self.step()?;
        Ok(match is_fused {
            true => AnyModule::Fused(FusedModule { name, functions: fused_functions, calls }),
            false => AnyModule::Plain(Module { name, functions, calls }),
        })
    }

    /// Parameters and the types of the results, with where the result types stand.
    pub(super) fn signature(&mut self) -> Result<(Vec<Param>, Vec<Type>, usize), ParseError> {
        let (mut params, mut names) = (Vec::new(), BTreeSet::new());
        self.list("(", ")", |parser| {
            let position = parser.position();
            let name = parser.new_value()?;
            if !names.insert(name.clone()) {
                return Err(parser.error_at(position, format!("there are two parameters %{name}")));
            }
            parser.mark(":")?;
            let ty = parser.ty()?;
            params.push(Param { name, ty });
            Ok(())
        })?;
        self.mark("->")?;
        let position = self.position();
        let mut results = Vec::new();
        self.list("(", ")", |parser| {
            results.push(parser.ty()?);
            Ok(())
        })?;
        Ok((params, results, position))
    }

    fn step(&mut self) -> Result<Vec<Call>, ParseError> {
        self.word("step")?;
        self.mark("{")?;
        let mut calls = Vec::new();
        while !self.take_mark("}") {
            calls.push(self.call()?);
        }
        Ok(calls)
    }

    fn call(&mut self) -> Result<Call, ParseError> {
        let mut results = Vec::new();
        if let Token::Value(_) = self.peek() {
            results.push(self.new_value()?);
            while self.take_mark(",") {
                results.push(self.new_value()?);
            }
            self.mark("=")?;
        }
        self.word("call")?;
        let function = self.new_symbol("a function", &mut BTreeSet::new())?;
        let mut arguments = Vec::new();
        self.list("(", ")", |parser| {
            arguments.push(match parser.take_word("kv") {
                true => Argument::Kv(parser.integer()?),
                false => Argument::Value(parser.new_value()?),
            });
            Ok(())
        })?;
        let scope = if self.take_word("in") { self.quoted()? } else { String::new() };
        Ok(Call { function, scope, arguments, results })
    }

    /// `bf16[tokens, 576]` or `kv<3 x 64, bf16>`.
    pub(super) fn ty(&mut self) -> Result<Type, ParseError> {
        if self.take_word("kv") {
            self.mark("<")?;
            let heads = self.integer()?;
            self.word("x")?;
            let head_dim = self.integer()?;
            self.mark(",")?;
            let dtype = self.dtype()?;
            self.mark(">")?;
            return Ok(Type::Kv(KvType { heads, head_dim, dtype }));
        }
        let dtype = self.dtype()?;
        let mut dims = Vec::new();
        self.list("[", "]", |parser| {
            dims.push(parser.dim()?);
            Ok(())
        })?;
        Ok(Type::Tensor(TensorType { dtype, shape: Shape(dims) }))
    }

    fn dtype(&mut self) -> Result<DType, ParseError> {
        let Token::Word(word) = self.peek() else { return Err(self.unexpected("a type such as `f32[tokens, 64]`")) };
        let dtype = DType::from_str(word).map_err(|message| self.error_at(self.position(), message))?;
        self.next += 1;
        Ok(dtype)
    }

    fn dim(&mut self) -> Result<Dim, ParseError> {
        let coefficient = match self.peek() {
            Token::Number(_) => {
                let size = self.integer()?;
                if !self.take_mark("*") {
                    return Ok(Dim::fixed(size));
                }
                size
            }
            _ => 1,
        };
        let symbol = Symbol::ALL.into_iter().find(|symbol| self.peek() == Token::Word(symbol.name()));
        let Some(symbol) = symbol else {
            return Err(self.unexpected("a size or one of `tokens`, `samples`, `sequences`, `context`"));
        };
        self.next += 1;
        Ok(Dim { coefficient, symbol: Some(symbol) })
    }

    // ---- tokens

    /// The next token, left where it is.
    pub(super) fn peek(&self) -> Token<'a> {
        self.tokens.get(self.next).map_or(Token::End, |(token, _)| *token)
    }

    /// The token behind the next one.
    pub(super) fn peek_second(&self) -> Token<'a> {
        self.tokens.get(self.next + 1).map_or(Token::End, |(token, _)| *token)
    }

    /// Skips the next token.
    pub(super) fn advance(&mut self) {
        self.next += 1;
    }

    /// Where the next token starts.
    pub(super) fn position(&self) -> usize {
        self.tokens.get(self.next).map_or(self.text.len(), |(_, offset)| *offset)
    }

    /// An error at an offset of the text.
    pub(super) fn error_at(&self, offset: usize, message: impl Into<String>) -> ParseError {
        let before = &self.text[..offset];
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
        ParseError { line, column: before[start..].chars().count() + 1, message: message.into() }
    }

    /// The error that the next token is not what should stand there.
    pub(super) fn unexpected(&self, expected: &str) -> ParseError {
        self.error_at(self.position(), format!("expected {expected}, found {}", self.peek()))
    }

    /// Reads a mark if it comes next.
    pub(super) fn take_mark(&mut self, mark: &'static str) -> bool {
        let found = self.peek() == Token::Mark(mark);
        self.next += usize::from(found);
        found
    }

    /// Reads a mark.
    pub(super) fn mark(&mut self, mark: &'static str) -> Result<(), ParseError> {
        if self.take_mark(mark) { Ok(()) } else { Err(self.unexpected(&format!("`{mark}`"))) }
    }

    /// Reads a word if it comes next.
    pub(super) fn take_word(&mut self, word: &str) -> bool {
        let found = self.peek() == Token::Word(word);
        self.next += usize::from(found);
        found
    }

    /// Reads a word.
    pub(super) fn word(&mut self, word: &str) -> Result<(), ParseError> {
        if self.take_word(word) { Ok(()) } else { Err(self.unexpected(&format!("`{word}`"))) }
    }

    /// Reads the name of one of `variants`.
    pub(super) fn variant<T: Copy>(&mut self, variants: &[T], name: fn(T) -> &'static str) -> Result<T, ParseError> {
        match variants.iter().find(|&&variant| self.peek() == Token::Word(name(variant))) {
            Some(&variant) => {
                self.next += 1;
                Ok(variant)
            }
            None => {
                let names: Vec<_> = variants.iter().map(|&variant| format!("`{}`", name(variant))).collect();
                Err(self.unexpected(&format!("one of {}", names.join(", "))))
            }
        }
    }

    /// Reads an integer that fits a size.
    pub(super) fn integer(&mut self) -> Result<usize, ParseError> {
        let Token::Number(digits) = self.peek() else { return Err(self.unexpected("an integer")) };
        let Ok(value) = digits.parse() else { return Err(self.unexpected("an integer from 0 to 2^64 - 1")) };
        self.next += 1;
        Ok(value)
    }

    /// Reads a quoted text.
    pub(super) fn quoted(&mut self) -> Result<String, ParseError> {
        let Token::Text(text) = self.peek() else { return Err(self.unexpected("a text in quotes")) };
        let text = unescaped(text).map_err(|message| self.error_at(self.position(), message))?;
        self.next += 1;
        Ok(text)
    }

    /// Reads `@name`, which must not be in `taken` and then is.
    pub(super) fn new_symbol(&mut self, what: &str, taken: &mut BTreeSet<String>) -> Result<String, ParseError> {
        let Token::Symbol(name) = self.peek() else {
            return Err(self.unexpected(&format!("the name of {what} such as `@name`")));
        };
        if !is_name(name) {
            return Err(self.unexpected("a name that starts with a letter or `_`"));
        }
        if !taken.insert(name.to_owned()) {
            return Err(self.error_at(self.position(), format!("`@{name}` is there already")));
        }
        self.next += 1;
        Ok(name.to_owned())
    }

    /// Reads `%name` where the name is not a number.
    fn new_value(&mut self) -> Result<String, ParseError> {
        match self.peek() {
            Token::Value(name) if is_name(name) => {
                self.next += 1;
                Ok(name.to_owned())
            }
            _ => Err(self.unexpected("a value such as `%name`")),
        }
    }

    /// Reads `open item, item, ... close`; there may be none.
    pub(super) fn list(
        &mut self,
        open: &'static str,
        close: &'static str,
        mut item: impl FnMut(&mut Self) -> Result<(), ParseError>,
    ) -> Result<(), ParseError> {
        self.mark(open)?;
        if self.take_mark(close) {
            return Ok(());
        }
        loop {
            item(self)?;
            if self.take_mark(close) {
                return Ok(());
            }
            if !self.take_mark(",") {
                return Err(self.unexpected(&format!("`,` or `{close}`")));
            }
        }
    }
}
