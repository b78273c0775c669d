//! Splits text into tokens.

use std::fmt;

/// A piece of text, without what marks its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// `add`, `f32`, `tokens`
    Word(&'a str),
    /// `%name`, `%0`, `%region#0`
    Value(&'a str),
    /// `@name`
    Symbol(&'a str),
    /// `12`, `-0.5`, `1e-5`, `-inf`, `0x7ff8000000000001`
    Number(&'a str),
    /// `"text"`, still with its escapes
    Text(&'a str),
    /// `(`, `->`, ...
    Mark(&'static str),
    /// A character that starts nothing, or a text that does not end.
    Bad(&'a str),
    /// The end.
    End,
}

/// All marks, longer ones before their prefixes.
const MARKS: [&str; 15] = ["->", "<=", "..", "(", ")", "{", "}", "[", "]", "<", ">", ",", ":", "=", "*"];

/// The tokens of `text` with the offsets where they start; the last one is [`Token::End`].
pub(super) fn tokens(text: &str) -> Vec<(Token<'_>, usize)> {
    let mut tokens = Vec::new();
    let mut offset = 0;
    loop {
        let rest = &text[offset..];
        let blank = rest.len() - rest.trim_start().len();
        if blank > 0 {
            offset += blank;
        } else if rest.starts_with("//") {
            offset += rest.find('\n').unwrap_or(rest.len());
        } else {
            let (token, length) = first(rest);
            tokens.push((token, offset));
            if token == Token::End {
                return tokens;
            }
            offset += length;
        }
    }
}

/// The token that `text` starts with, and its length. `text` does not start with blanks.
fn first(text: &str) -> (Token<'_>, usize) {
    let Some(character) = text.chars().next() else { return (Token::End, 0) };
    match character {
        '%' | '@' => {
            let allowed = |c: char| name_character(c) || character == '%' && c == '#';
            let length = text[1..].find(|c| !allowed(c)).unwrap_or(text.len() - 1);
            let name = &text[1..1 + length];
            match (length, character) {
                (0, _) => (Token::Bad(&text[..1]), 1),
                (_, '%') => (Token::Value(name), 1 + length),
                (_, _) => (Token::Symbol(name), 1 + length),
            }
        }
        '"' => quoted(text),
        c if c.is_ascii_alphabetic() || c == '_' => {
            let length = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
            (Token::Word(&text[..length]), length)
        }
        _ => {
            if let Some(mark) = MARKS.into_iter().find(|mark| text.starts_with(mark)) {
                return (Token::Mark(mark), mark.len());
            }
            match number(text) {
                0 => (Token::Bad(&text[..character.len_utf8()]), character.len_utf8()),
                length => (Token::Number(&text[..length]), length),
            }
        }
    }
}

/// Names behind `%` and `@`: letters, digits, `_`, `.`, `+`, and `-` unless it starts an arrow.
fn name_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '+')
}

/// The length of the number at the start of `text`, or 0. `0..4` is three tokens.
fn number(text: &str) -> usize {
    let digits = |from: usize| text[from..].bytes().take_while(u8::is_ascii_digit).count();
    let sign = usize::from(text.starts_with('-'));
    if text[sign..].starts_with("inf") {
        return sign + 3;
    }
    if text[sign..].starts_with("0x") {
        return sign + 2 + text[sign + 2..].bytes().take_while(u8::is_ascii_hexdigit).count();
    }
    if digits(sign) == 0 {
        return 0;
    }
    let mut end = sign + digits(sign);
    if text[end..].starts_with('.') && digits(end + 1) > 0 {
        end += 1 + digits(end + 1);
    }
    let exponent = text[end..].bytes().take(2).take_while(|b| b"eE+-".contains(b)).count();
    if text[end..].starts_with(['e', 'E']) && digits(end + exponent) > 0 {
        end += exponent + digits(end + exponent);
    }
    end
}

fn quoted(text: &str) -> (Token<'_>, usize) {
    let mut escaped = false;
    for (index, c) in text.char_indices().skip(1) {
        match c {
            '\n' => break,
            '"' if !escaped => return (Token::Text(&text[1..index]), index + 1),
            _ => escaped = c == '\\' && !escaped,
        }
    }
    let end = text.find('\n').unwrap_or(text.len());
    (Token::Bad(&text[..end]), end)
}

/// What a quoted text stands for, or the escape that is none.
pub(super) fn unescaped(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let escape = &rest[at + 1..];
        let known = match escape.chars().next() {
            Some(c @ ('"' | '\\')) => Some((c, 1)),
            Some('u') => escape[1..].strip_prefix('{').and_then(|digits| {
                let end = digits.find('}')?;
                let code = u32::from_str_radix(&digits[..end], 16).ok()?;
                Some((char::from_u32(code)?, end + 3))
            }),
            _ => None,
        };
        let Some((c, length)) = known else {
            let found: String = escape.chars().take(8).collect();
            return Err(format!("expected an escape `\\\"`, `\\\\` or `\\u{{hex}}`, found `\\{found}`"));
        };
        out.push(c);
        rest = &escape[length..];
    }
    out.push_str(rest);
    Ok(out)
}

/// The token as messages show it, cut if it is long.
impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mark, text) = match self {
            Token::End => return f.write_str("the end of the text"),
            Token::Value(text) => ("%", text),
            Token::Symbol(text) => ("@", text),
            Token::Text(text) => ("\"", text),
            Token::Word(text) | Token::Number(text) | Token::Bad(text) => ("", text),
            Token::Mark(text) => ("", text),
        };
        let shown: String = text.chars().take(40).collect();
        let end = match self {
            _ if shown.len() < text.len() => "...",
            Token::Text(_) => "\"",
            _ => "",
        };
        write!(f, "`{mark}{shown}{end}`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<Token<'_>> {
        tokens(text).into_iter().map(|(token, _)| token).collect()
    }

    #[test]
    fn numbers_ranges_and_arrows() {
        use Token::*;
        assert_eq!(kinds("0..32"), [Number("0"), Mark(".."), Number("32"), End]);
        assert_eq!(
            kinds("-1.5e-7 -inf 2*tokens"),
            [Number("-1.5e-7"), Number("-inf"), Number("2"), Mark("*"), Word("tokens"), End]
        );
        assert_eq!(kinds("1e 0xfF"), [Number("1"), Word("e"), Number("0xfF"), End]);
        assert_eq!(kinds(") -> <= - é"), [Mark(")"), Mark("->"), Mark("<="), Bad("-"), Bad("é"), End]);
    }

    #[test]
    fn names_texts_and_comments() {
        use Token::*;
        assert_eq!(kinds("%a.b#1 @layer.full // %x\n%"), [Value("a.b#1"), Symbol("layer.full"), Bad("%"), End]);
        assert_eq!(kinds(r#""a\"b\\" "open"#), [Text(r#"a\"b\\"#), Bad("\"open"), End]);
        assert_eq!(unescaped(r#"a\"b\\\u{e9}"#).unwrap(), "a\"b\\é");
        for bad in [r"\n", r"\u{}", r"\u{d800}", r"\u{12", "\\", r"\é"] {
            assert!(unescaped(bad).unwrap_err().contains("escape"), "{bad}");
        }
    }
}
