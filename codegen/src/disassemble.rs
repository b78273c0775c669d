//! Native code as people read it: which functions a shared object has, and their instructions.

use crate::llvm::disassembler;
use object::read::elf::ElfFile64;
use object::{Object, ObjectSection, ObjectSymbol, SymbolKind};
use std::collections::BTreeMap;

/// Bytes of machine code of each function in a shared object.
///
/// # Errors
/// If it is not an ELF file.
pub fn kernel_sizes(shared_object: &[u8]) -> Result<BTreeMap<String, u64>, String> {
    let functions = functions(shared_object)?;
    Ok(functions.into_iter().map(|function| (function.name, function.code.len() as u64)).collect())
}

/// The instructions of one function, a line each: its offset in the function, then the instruction. Targets of jumps and
/// calls are named.
///
/// # Errors
/// If it is not an ELF file, has no such function, or holds bytes that are no instruction.
pub fn disassemble(shared_object: &[u8], function: &str) -> Result<String, String> {
    let functions = functions(shared_object)?;
    let found = functions.iter().find(|other| other.name == function);
    let found = found.ok_or_else(|| {
        let known: Vec<&str> = functions.iter().map(|function| function.name.as_str()).collect();
        format!("the code has no function `{function}`, it has {}", known.join(", "))
    })?;
    let name_of = |address: u64| {
        let inside =
            |function: &&Function| (function.address..function.address + function.code.len() as u64).contains(&address);
        let function = functions.iter().find(inside)?;
        Some((function.name.clone(), address - function.address))
    };
    let mut text = format!("{}:\n", found.name);
    for instruction in disassembler::instructions(&found.code, found.address)? {
        let target = instruction.target.and_then(name_of).map(|(name, offset)| match offset {
            0 => format!("  # {name}"),
            offset => format!("  # {name}+0x{offset:x}"),
        });
        text += &format!("{:6x}  {}{}\n", instruction.offset, instruction.text, target.unwrap_or_default());
    }
    Ok(text)
}

struct Function {
    name: String,
    address: u64,
    code: Vec<u8>,
}

/// The functions of a shared object, by address.
fn functions(shared_object: &[u8]) -> Result<Vec<Function>, String> {
    let file: ElfFile64<'_> =
        ElfFile64::parse(shared_object).map_err(|error| format!("the code is damaged: {error}"))?;
    let mut functions = Vec::new();
    for symbol in file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0) {
        let section = symbol.section_index().and_then(|index| file.section_by_index(index).ok());
        let code = section.and_then(|section| section.data_range(symbol.address(), symbol.size()).ok().flatten());
        if let (Ok(name), Some(code)) = (symbol.name(), code) {
            functions.push(Function { name: name.to_owned(), address: symbol.address(), code: code.to_vec() });
        }
    }
    functions.sort_by_key(|function| function.address);
    Ok(functions)
}
