//! Products of many rows on matrix units.

use super::super::DeviceContext;
use super::{Left, Section};

/// Columns of a block, of all its products together.
pub const COLUMNS: usize = 128;

/// Emits the kernel.
pub fn emit(context: &mut DeviceContext<'_>, left: &Left, sections: &[Section<'_>]) -> Result<(), String> {
    super::stream::emit(context, left, sections)
}
