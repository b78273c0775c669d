//! PTX text to a [`Module`]: directives and declarations here, statements in `statement`, one file per instruction family.

mod access;
mod bits;
mod builder;
mod call;
mod convert;
mod cursor;
mod declaration;
mod float;
mod integer;
mod matrix;
mod modifiers;
mod moves;
mod operand;
mod resolve;
mod special;
mod statement;
mod synchronize;
mod types;
mod wmma;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};

use self::builder::{Builder, Place};
use self::cursor::{Cursor, describe};
use crate::error::PtxError;
use crate::lexer::{Token, lex};
use crate::module::{Kernel, Module};

/// Gives each parsed module an identity, by which memory knows whether its variables are there already.
static NEXT_IDENTITY: AtomicU64 = AtomicU64::new(1);

pub(crate) fn module(text: &str) -> Result<Module, PtxError> {
    let mut cursor = Cursor::new(lex(text)?);
    let mut module = Module {
        identity: NEXT_IDENTITY.fetch_add(1, Ordering::Relaxed),
        version: (0, 0),
        target: String::new(),
        kernels: BTreeMap::new(),
        variables: Vec::new(),
    };
    let functions = call::functions(&cursor);
    let mut symbols = HashMap::new();
    while let Some(token) = cursor.peek() {
        let Token::Dotted(directive) = token else {
            return cursor.error(format!("expected a directive, found {}", describe(Some(token))));
        };
        match directive {
            "version" => {
                cursor.next();
                let Some(Token::Double(bits)) = cursor.next() else {
                    return cursor.error("`.version` without its number");
                };
                let text = f64::from_bits(bits).to_string();
                let (major, minor) = text.split_once('.').unwrap_or((&text, "0"));
                module.version = (major.parse().unwrap_or(0), minor.parse().unwrap_or(0));
            }
            "target" => {
                cursor.next();
                module.target = cursor.name()?.to_string();
                while cursor.take(b',') {
                    cursor.name()?;
                }
            }
            "address_size" => {
                cursor.next();
                if cursor.count()? != 64 {
                    return cursor.error("only `.address_size 64` is implemented");
                }
            }
            "visible" | "weak" | "extern" | "common" => {
                cursor.next();
                if directive == "extern" && cursor.peek() != Some(Token::Dotted("shared")) {
                    // A declaration: whatever uses it is reported where it is used.
                    cursor.skip_statement();
                }
            }
            "entry" => {
                cursor.next();
                let kernel = kernel(&mut cursor, &symbols, &functions)?;
                module.kernels.insert(kernel.name.clone(), kernel);
            }
            "func" => skip_function(&mut cursor)?,
            "global" | "const" | "shared" => {
                for variable in declaration::module_variables(&mut cursor)? {
                    if variable.symbol.place == Place::Module {
                        module.variables.push(variable.contents);
                        symbols.insert(variable.name, variable.symbol);
                    } else {
                        symbols.insert(variable.name, variable.symbol);
                    }
                }
            }
            "section" => {
                cursor.next();
                cursor.dotted()?;
                cursor.skip_block()?;
            }
            "pragma" | "alias" => cursor.skip_statement(),
            _ => return cursor.error(format!("the directive `.{directive}` is not implemented")),
        }
    }
    Ok(module)
}

/// Local memory that a thread may have in bytes, on every device.
const LARGEST_LOCAL: u64 = 512 * 1024;

/// Device functions are parsed where they are called.
fn skip_function(cursor: &mut Cursor) -> Result<(), PtxError> {
    while let Some(token) = cursor.peek() {
        match token {
            Token::Symbol(b'{') => return cursor.skip_block(),
            Token::Symbol(b';') => {
                cursor.next();
                return Ok(());
            }
            _ => {
                cursor.next();
            }
        }
    }
    cursor.error("a function without its body")
}

fn kernel(
    cursor: &mut Cursor,
    symbols: &HashMap<String, builder::Symbol>,
    functions: &HashMap<String, usize>,
) -> Result<Kernel, PtxError> {
    let name = cursor.name()?.to_string();
    let (parameters, parameter_bytes) = declaration::parameters(cursor)?;
    let (mut required_block, mut maximum_block) = (None, None);
    while let Some(Token::Dotted(directive)) = cursor.peek() {
        cursor.next();
        match directive {
            "reqntid" => required_block = Some(extent(cursor)?),
            "maxntid" => maximum_block = Some(extent(cursor)?),
            "minnctapersm" | "maxnreg" | "maxnctapersm" => {
                cursor.count()?;
            }
            "noreturn" | "explicitcluster" => {}
            "reqnctapercluster" => {
                if extent(cursor)? != [1; 3] {
                    return cursor.error("clusters of more than one block are not implemented");
                }
            }
            "pragma" => cursor.skip_statement(),
            _ => return cursor.error(format!("the kernel directive `.{directive}` is not implemented")),
        }
    }
    let mut builder = Builder::new(symbols, functions, parameters);
    statement::body(cursor, &mut builder)?;
    statement::finish(&mut builder)?;
    if builder.local_bytes > LARGEST_LOCAL {
        return builder.error(format!(
            "`{name}` has {} bytes of local memory; {LARGEST_LOCAL} are the most",
            builder.local_bytes
        ));
    }
    Ok(Kernel {
        name,
        parameters: builder.parameters,
        parameter_bytes,
        required_block,
        maximum_block,
        static_shared: builder.shared_bytes,
        local_bytes: builder.local_bytes,
        code: builder.code,
        kinds: builder.kinds,
        slots: builder.slots,
        shared_grain: builder.shared_grain,
    })
}

/// One to three extents; those left out are 1.
fn extent(cursor: &mut Cursor) -> Result<[u32; 3], PtxError> {
    let mut extent = [1; 3];
    for length in &mut extent {
        *length = cursor.count()? as u32;
        if !cursor.take(b',') {
            break;
        }
    }
    Ok(extent)
}
