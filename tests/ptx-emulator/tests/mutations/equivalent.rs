//! Seeded defects that change nothing a run could show, each with the reason why.

/// Kernel, line of its PTX, kind of the defect, and why the kernel still does what it should.
pub const EQUIVALENT: [(&str, usize, &str, &str); 36] = [
    ("matmul", 52, "shift or field off by one", "rounds the division of a negative M"),
    ("matmul", 61, "shift or field off by one", "rounds the division of a negative N"),
    ("matmul", 91, "shift or field off by one", "a thread index has no seventh bit here"),
    ("matmul", 95, "shift or field off by one", "a thread index has no seventh bit here"),
    ("matmul", 153, "index off by one", "one more step of the loop, over zeros"),
    ("matmul", 158, "bound off by one", "K is not 1: it is a multiple of 16"),
    ("matmul", 159, "bound off by one", "K is not 0"),
    ("matmul", 195, "commit deleted", "A and B of the first stage become one group, and both are waited for"),
    ("matmul", 197, "bound off by one", "a row below 8 against a K of at least 16"),
    ("matmul", 206, "copy size ignored", "a row below 8 is always inside of K"),
    ("matmul", 212, "copy size ignored", "a row below 16 is always inside of K"),
    ("matmul", 230, "bound off by one", "at K = 32 the other condition is false"),
    ("matmul", 275, "bound off by one", "at K = 32 the other condition is false"),
    ("matmul", 308, "bound off by one", "at K = 64 the other condition is false"),
    ("matmul", 352, "bound off by one", "at K = 64 the other condition is false"),
    ("matmul", 559, "shift or field off by one", "rounds the division of a negative K"),
    ("matmul", 597, "index off by one", "a prefetch beyond K copies zeros, as its bound says too"),
    ("matmul", 754, "bound off by one", "a prefetch beyond K copies zeros, as its bound says too"),
    ("matmul", 759, "wait deleted", "the end of the loop waits for the same groups"),
    ("matmul", 759, "wait leaves one more in flight", "the end of the loop waits for the same groups"),
    ("matmul", 760, "barrier deleted", "nothing is written between this barrier and the one at the end of the loop"),
    ("matmul", 1014, "bound off by one", "in the step where it differs, the prefetch is off"),
    ("matmul", 1060, "wait deleted", "the next line waits for the same groups"),
    ("matmul", 1060, "wait leaves one more in flight", "the next line waits for the same groups"),
    ("matmul", 1061, "wait deleted", "the line before waits for the same groups"),
    ("matmul", 1061, "wait leaves one more in flight", "the line before waits for the same groups"),
    ("matmul", 1425, "wait leaves one more in flight", "the last group's stage is not what the epilogue writes to"),
    ("matmul", 1428, "bound off by one", "a tile that starts at row M is not launched"),
    ("gemv", 43, "bound off by one", "K is not 1: it is a multiple of the block"),
    ("gemv", 511, "comparison inverted", "the other threads hold and store the same values"),
    ("flash", 48, "shift or field off by one", "a thread index has no eighth bit here"),
    ("flash", 128, "index off by one", "one more step of the loop, which the causal mask hides"),
    ("flash", 131, "bound off by one", "there is at least one step"),
    ("flash", 156, "commit deleted", "the queries and the first keys become one group, and both are waited for"),
    ("flash", 175, "bound off by one", "the bound is at least 64"),
    ("flash", 721, "mask off by one", "on a path for loops without a step, and there is at least one"),
];

/// Defects that survive although nobody has shown that they are none: they count as missed.
pub const MISSED: [(&str, usize, &str); 3] = [
    ("flash", 757, "wait deleted"),
    ("flash", 757, "wait leaves one more in flight"),
    ("flash", 758, "barrier deleted"),
];
