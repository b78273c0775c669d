//! Declarations: kernel parameters, registers, and variables with their initialisers.

use super::builder::{Builder, Place, Symbol};
use super::cursor::Cursor;
use super::types::Type;
use crate::error::PtxError;
use crate::lexer::Token;
use crate::module::{Parameter, Variable};

/// A declared variable of a module.
pub(super) struct Declared {
    pub name: String,
    pub symbol: Symbol,
    pub contents: Variable,
}

/// `( .param .u64 .ptr .global .align 1 a, .param .b8 b[16] )`, with offsets as the ABI lays them out.
pub(super) fn parameters(cursor: &mut Cursor) -> Result<(Vec<Parameter>, u64), PtxError> {
    let (mut list, mut end) = (Vec::new(), 0u64);
    if !cursor.take(b'(') || cursor.take(b')') {
        return Ok((list, end));
    }
    loop {
        if !cursor.take_dotted("param") {
            return cursor.error("expected `.param`");
        }
        let mut align = None;
        if cursor.take_dotted("align") {
            align = Some(cursor.count()?.max(1));
        }
        let ty = declared_type(cursor)?;
        if cursor.take_dotted("ptr") {
            while let Some(Token::Dotted(word)) = cursor.peek() {
                cursor.next();
                if word == "align" {
                    cursor.count()?;
                }
            }
        }
        let name = cursor.name()?.to_string();
        let (element, count) = (element_bytes(cursor, ty)?, dimensions(cursor)?);
        let bytes = total_bytes(cursor, element, count)?;
        let offset = end.next_multiple_of(align.unwrap_or(element));
        end = offset + bytes;
        list.push(Parameter { name, offset, bytes });
        if cursor.take(b')') {
            return Ok((list, end));
        }
        cursor.expect(b',')?;
    }
}

/// `.reg .b32 %r<7>, %x;`
pub(super) fn registers(cursor: &mut Cursor, builder: &mut Builder) -> Result<(), PtxError> {
    let ty = declared_type(cursor)?;
    loop {
        let name = cursor.name()?.to_string();
        let scope = builder.scopes.last_mut().expect("a body has a scope");
        if cursor.take(b'<') {
            let count = cursor.count()?;
            cursor.expect(b'>')?;
            scope.families.insert(name, (ty, count));
        } else {
            scope.single.insert(name, ty);
        }
        if cursor.take(b';') {
            return Ok(());
        }
        cursor.expect(b',')?;
    }
}

/// Variables of a module in `.global`, `.const` or `.shared`.
pub(super) fn module_variables(cursor: &mut Cursor) -> Result<Vec<Declared>, PtxError> {
    let space = cursor.dotted()?;
    let (mut align, mut list) = (None, Vec::new());
    if cursor.take_dotted("align") {
        align = Some(cursor.count()?.max(1));
    }
    let ty = declared_type(cursor)?;
    let element = element_bytes(cursor, ty)?;
    loop {
        let name = cursor.name()?.to_string();
        let count = dimensions(cursor)?;
        let (mut bytes, mut references) = (vec![0; total_bytes(cursor, element, count)? as usize], Vec::new());
        if cursor.take(b'=') {
            let mut at = 0;
            initialiser(cursor, &mut Image { bytes: &mut bytes, references: &mut references, at: &mut at, ty })?;
        }
        let place = match space {
            "shared" if count == Some(0) => Place::DynamicShared,
            "shared" => Place::Shared,
            _ => Place::Module,
        };
        let align = align.unwrap_or(element);
        list.push(Declared {
            symbol: Symbol { place, align, bytes: bytes.len() as u64 },
            contents: Variable { name: name.clone(), align, bytes, references, read_only: space == "const" },
            name,
        });
        if cursor.take(b';') {
            return Ok(list);
        }
        cursor.expect(b',')?;
    }
}

/// `.shared` and `.local` variables of a kernel.
pub(super) fn kernel_variables(cursor: &mut Cursor, builder: &mut Builder) -> Result<(), PtxError> {
    let local = cursor.peek() == Some(Token::Dotted("local"));
    for variable in module_variables(cursor)? {
        let place = if local { Place::Local } else { variable.symbol.place };
        if place == Place::Module {
            return cursor
                .error(format!("`{}`: module variables inside of a kernel are not implemented", variable.name));
        }
        builder.symbols.insert(variable.name, Symbol { place, ..variable.symbol });
    }
    Ok(())
}

fn declared_type(cursor: &mut Cursor) -> Result<Type, PtxError> {
    let name = cursor.dotted()?;
    match Type::parse(name) {
        Some(ty) => Ok(ty),
        None => cursor.error(format!("`.{name}` is no type that the emulator declares")),
    }
}

/// Bytes that a variable may have: more than any device's constant, shared or local memory.
const LARGEST_VARIABLE: u64 = 1 << 28;

fn element_bytes(cursor: &Cursor, ty: Type) -> Result<u64, PtxError> {
    match ty.bits() / 8 {
        0 => cursor.error("a predicate has no place in memory"),
        bytes => Ok(u64::from(bytes)),
    }
}

fn total_bytes(cursor: &Cursor, element: u64, count: Option<u64>) -> Result<u64, PtxError> {
    match element.saturating_mul(count.unwrap_or(1)) {
        bytes @ 0..=LARGEST_VARIABLE => Ok(bytes),
        bytes => cursor.error(format!("a variable of {bytes} bytes; {LARGEST_VARIABLE} are the most")),
    }
}

/// `[2][3]` as a number of elements; `[]` counts none.
fn dimensions(cursor: &mut Cursor) -> Result<Option<u64>, PtxError> {
    let mut total = None;
    while cursor.take(b'[') {
        let length = if cursor.take(b']') {
            0
        } else {
            let length = cursor.count()?;
            cursor.expect(b']')?;
            length
        };
        total = Some(u64::saturating_mul(total.unwrap_or(1), length));
    }
    Ok(total)
}

/// The bytes of a variable while its initialiser is read.
struct Image<'i> {
    bytes: &'i mut [u8],
    references: &'i mut Vec<(u64, String)>,
    at: &'i mut usize,
    ty: Type,
}

fn initialiser(cursor: &mut Cursor, image: &mut Image) -> Result<(), PtxError> {
    if cursor.take(b'{') {
        loop {
            initialiser(cursor, image)?;
            if cursor.take(b'}') {
                return Ok(());
            }
            cursor.expect(b',')?;
        }
    }
    let length = (image.ty.bits() / 8) as usize;
    let value = match cursor.peek() {
        Some(Token::Name("generic")) => {
            cursor.next();
            cursor.expect(b'(')?;
            let name = cursor.name()?.to_string();
            cursor.expect(b')')?;
            image.references.push((*image.at as u64, name));
            0
        }
        Some(Token::Name(name)) => {
            cursor.next();
            image.references.push((*image.at as u64, name.to_string()));
            0
        }
        Some(Token::Single(bits)) => {
            cursor.next();
            u64::from(bits)
        }
        Some(Token::Double(bits)) => {
            cursor.next();
            bits
        }
        _ => cursor.integer()? as u64,
    };
    let Some(place) = image.bytes.get_mut(*image.at..*image.at + length) else {
        return cursor.error("an initialiser with more elements than its variable");
    };
    place.copy_from_slice(&value.to_le_bytes()[..length]);
    *image.at += length;
    Ok(())
}
