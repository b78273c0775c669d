//! Attention over the paged KV cache.

mod plain;

use super::DeviceContext;

/// Emits the kernels of an attend region.
pub fn emit(context: &mut DeviceContext<'_>) -> Result<(), String> {
    plain::emit(context)
}
