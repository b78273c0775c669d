//! PTX text to tokens. Comments, `.loc` and `.file` lines end here.

use crate::error::PtxError;

/// One token of PTX.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Token<'t> {
    /// A name: instruction, register (with `%`), label or variable.
    Name(&'t str),
    /// A name behind a dot, without the dot: directive, modifier, type or special-register component.
    Dotted(&'t str),
    /// An integer literal, as two's complement.
    Integer(u64),
    /// `0f...`: the bits of a single.
    Single(u32),
    /// `0d...` or a decimal number: the bits of a double.
    Double(u64),
    /// A string literal, which no part of the emulator reads.
    Text,
    /// Punctuation.
    Symbol(u8),
}

/// A token and the line it starts on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lexed<'t> {
    pub token: Token<'t>,
    pub line: u32,
}

/// Splits `text` into tokens.
pub(crate) fn lex(text: &str) -> Result<Vec<Lexed<'_>>, PtxError> {
    let bytes = text.as_bytes();
    let mut tokens = Vec::with_capacity(text.len() / 4);
    let (mut at, mut line) = (0, 1);
    while at < bytes.len() {
        let start = at;
        let first = bytes[at];
        let token = match first {
            b'\n' => {
                line += 1;
                at += 1;
                continue;
            }
            b' ' | b'\t' | b'\r' | 0 => {
                at += 1;
                continue;
            }
            b'/' if bytes.get(at + 1) == Some(&b'/') => {
                at += length_until(&bytes[at..], |byte| byte == b'\n');
                continue;
            }
            b'/' if bytes.get(at + 1) == Some(&b'*') => {
                let Some(end) = text[at + 2..].find("*/") else {
                    return Err(PtxError::new(line, "a /* comment without its */"));
                };
                line += text[at..at + 2 + end].matches('\n').count() as u32;
                at += end + 4;
                continue;
            }
            b'"' => {
                let Some(end) = text[at + 1..].find('"') else {
                    return Err(PtxError::new(line, "a string without its closing quote"));
                };
                at += end + 2;
                Token::Text
            }
            b'.' if bytes.get(at + 1).is_some_and(|&next| is_word(next)) => {
                at += 1 + length_until(&bytes[at + 1..], |byte| !is_word(byte) && byte != b':');
                let name = text[start + 1..at].trim_end_matches(':');
                at = start + 1 + name.len();
                if name == "loc" || name == "file" {
                    at += length_until(&bytes[at..], |byte| byte == b'\n');
                    continue;
                }
                Token::Dotted(name)
            }
            b'0'..=b'9' => {
                at += length_until(&bytes[at..], |byte| !is_word(byte));
                if bytes.get(at) == Some(&b'.') && bytes.get(at + 1).is_some_and(u8::is_ascii_digit) {
                    at += 1 + length_until(&bytes[at + 1..], |byte| !is_word(byte));
                }
                number(&text[start..at])
                    .ok_or_else(|| PtxError::new(line, format!("`{}` is no number", &text[start..at])))?
            }
            b'%' | b'$' | b'_' | b'a'..=b'z' | b'A'..=b'Z' => {
                at += 1 + length_until(&bytes[at + 1..], |byte| !is_word(byte));
                Token::Name(&text[start..at])
            }
            b'{' | b'}' | b'(' | b')' | b'[' | b']' | b'<' | b'>' | b',' | b';' | b':' | b'@' | b'!' | b'|' | b'+'
            | b'-' | b'=' | b'.' => {
                at += 1;
                Token::Symbol(first)
            }
            _ => {
                let character = text[at..].chars().next().unwrap_or('?');
                return Err(PtxError::new(line, format!("the character {character:?} has no place in PTX")));
            }
        };
        tokens.push(Lexed { token, line });
    }
    Ok(tokens)
}

fn length_until(bytes: &[u8], end: impl Fn(u8) -> bool) -> usize {
    bytes.iter().position(|&byte| end(byte)).unwrap_or(bytes.len())
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$'
}

fn number(word: &str) -> Option<Token<'static>> {
    let prefix = word.get(..2).unwrap_or("");
    match prefix {
        "0f" | "0F" if word.len() == 10 => return Some(Token::Single(u32::from_str_radix(&word[2..], 16).ok()?)),
        "0d" | "0D" if word.len() == 18 => return Some(Token::Double(u64::from_str_radix(&word[2..], 16).ok()?)),
        _ => {}
    }
    if word.contains('.') {
        return Some(Token::Double(word.parse::<f64>().ok()?.to_bits()));
    }
    let word = word.trim_end_matches('U');
    let value = match prefix {
        "0x" | "0X" => u64::from_str_radix(&word[2..], 16),
        "0b" | "0B" => u64::from_str_radix(&word[2..], 2),
        _ if word.len() > 1 && word.starts_with('0') => u64::from_str_radix(&word[1..], 8),
        _ => word.parse(),
    };
    Some(Token::Integer(value.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_numbers_and_lines() {
        let tokens =
            lex("// one\nld.global.L1::evict_first.v4 %r1, [%rd2+0x10];\n.loc 1 2 3\nL: 0f3F800000 1.5 017 7U")
                .unwrap();
        let kinds: Vec<Token> = tokens.iter().map(|lexed| lexed.token).collect();
        assert_eq!(
            kinds[..4],
            [Token::Name("ld"), Token::Dotted("global"), Token::Dotted("L1::evict_first"), Token::Dotted("v4")]
        );
        assert_eq!(kinds[8..11], [Token::Symbol(b'+'), Token::Integer(16), Token::Symbol(b']')]);
        assert_eq!(kinds[12..14], [Token::Name("L"), Token::Symbol(b':')]);
        assert_eq!(
            kinds[14..],
            [Token::Single(0x3f80_0000), Token::Double(1.5f64.to_bits()), Token::Integer(15), Token::Integer(7)]
        );
        assert_eq!(tokens[0].line, 2);
        assert_eq!(tokens[12].line, 4);
    }

    #[test]
    fn a_stray_character_is_named() {
        assert_eq!(lex("\n #").unwrap_err().to_string(), "PTX line 2: the character '#' has no place in PTX");
    }
}
