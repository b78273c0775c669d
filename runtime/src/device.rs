//! What runs a compiled model's programs. So far there is one device, the CPU.

pub mod host;
