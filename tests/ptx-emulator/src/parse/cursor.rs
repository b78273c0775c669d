//! A position in the token stream, with the expectations that the grammar has of it.

use std::rc::Rc;

use crate::error::PtxError;
use crate::lexer::{Lexed, Token};

#[derive(Clone)]
pub(super) struct Cursor<'t> {
    tokens: Rc<[Lexed<'t>]>,
    at: usize,
}

impl<'t> Cursor<'t> {
    pub fn new(tokens: Vec<Lexed<'t>>) -> Self {
        Cursor { tokens: tokens.into(), at: 0 }
    }

    /// Where it is, for [`Cursor::go_to`].
    pub fn at(&self) -> usize {
        self.at
    }

    pub fn go_to(&mut self, at: usize) {
        self.at = at;
    }

    pub fn line(&self) -> u32 {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |lexed| lexed.line)
    }

    pub fn error<T>(&self, message: impl Into<String>) -> Result<T, PtxError> {
        Err(PtxError::new(self.line(), message))
    }

    pub fn peek(&self) -> Option<Token<'t>> {
        self.tokens.get(self.at).map(|lexed| lexed.token)
    }

    pub fn peek_second(&self) -> Option<Token<'t>> {
        self.tokens.get(self.at + 1).map(|lexed| lexed.token)
    }

    pub fn next(&mut self) -> Option<Token<'t>> {
        let token = self.peek();
        self.at += 1;
        token
    }

    /// Takes `symbol` if it comes next.
    pub fn take(&mut self, symbol: u8) -> bool {
        let found = self.peek() == Some(Token::Symbol(symbol));
        self.at += usize::from(found);
        found
    }

    /// Takes the directive or modifier `name` if it comes next.
    pub fn take_dotted(&mut self, name: &str) -> bool {
        let found = self.peek() == Some(Token::Dotted(name));
        self.at += usize::from(found);
        found
    }

    pub fn expect(&mut self, symbol: u8) -> Result<(), PtxError> {
        if self.take(symbol) {
            return Ok(());
        }
        self.error(format!("expected `{}`, found {}", symbol as char, describe(self.peek())))
    }

    pub fn name(&mut self) -> Result<&'t str, PtxError> {
        match self.peek() {
            Some(Token::Name(name)) => {
                self.at += 1;
                Ok(name)
            }
            other => self.error(format!("expected a name, found {}", describe(other))),
        }
    }

    pub fn dotted(&mut self) -> Result<&'t str, PtxError> {
        match self.peek() {
            Some(Token::Dotted(name)) => {
                self.at += 1;
                Ok(name)
            }
            other => self.error(format!("expected a `.` and a name, found {}", describe(other))),
        }
    }

    /// An integer literal with an optional sign.
    pub fn integer(&mut self) -> Result<i64, PtxError> {
        let negative = self.take(b'-');
        match self.peek() {
            Some(Token::Integer(value)) => {
                self.at += 1;
                Ok(if negative { (value as i64).wrapping_neg() } else { value as i64 })
            }
            other => self.error(format!("expected an integer, found {}", describe(other))),
        }
    }

    /// A literal that must be positive and small, such as a length or a count.
    pub fn count(&mut self) -> Result<u64, PtxError> {
        match self.integer()? {
            value @ 0..=0x7fff_ffff => Ok(value as u64),
            value => self.error(format!("{value} is out of range here")),
        }
    }

    /// Skips to the end of the statement, `;` included.
    pub fn skip_statement(&mut self) {
        while let Some(token) = self.next() {
            if token == Token::Symbol(b';') {
                break;
            }
        }
    }

    /// Skips a `{ ... }` block with everything inside.
    pub fn skip_block(&mut self) -> Result<(), PtxError> {
        self.expect(b'{')?;
        let mut depth = 1;
        while depth > 0 {
            match self.next() {
                Some(Token::Symbol(b'{')) => depth += 1,
                Some(Token::Symbol(b'}')) => depth -= 1,
                Some(_) => {}
                None => return self.error("a `{` without its `}`"),
            }
        }
        Ok(())
    }
}

/// A token in words, for messages.
pub(super) fn describe(token: Option<Token>) -> String {
    match token {
        None => "the end of the text".to_string(),
        Some(Token::Name(name)) => format!("`{name}`"),
        Some(Token::Dotted(name)) => format!("`.{name}`"),
        Some(Token::Integer(value)) => format!("`{value}`"),
        Some(Token::Single(bits)) => format!("`0f{bits:08X}`"),
        Some(Token::Double(bits)) => format!("`{}`", f64::from_bits(bits)),
        Some(Token::Text) => "a string".to_string(),
        Some(Token::Symbol(symbol)) => format!("`{}`", symbol as char),
    }
}
