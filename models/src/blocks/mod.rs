//! Parts that architectures share.
//!
//! | file | idea |
//! |---|---|
//! | `attention` | grouped-query attention with rotary embeddings |
//! | `mlp` | the gated feed-forward block |
//! | `rope` | rotation frequencies and how they are stretched |
//! | `decoder` | embedding, a stack of layers, output head |

pub mod attention;
pub mod decoder;
pub mod mlp;
pub mod rope;
