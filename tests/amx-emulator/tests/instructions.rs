//! Each instruction against the manual's text, executed by this CPU if it has AMX and else by the emulator.

use llmc_amx_emulator::{Instruction, Tiles, Unit, decode, provide};
use std::arch::asm;

/// A configuration for LDTILECFG: rows and bytes per row of each tile.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Config([u8; 64]);

fn config(shapes: &[(u8, u8)]) -> Config {
    let mut bytes = [0; 64];
    bytes[0] = 1;
    for (tile, &(rows, row_bytes)) in shapes.iter().enumerate() {
        bytes[16 + 2 * tile] = row_bytes;
        bytes[48 + tile] = rows;
    }
    Config(bytes)
}

const WHOLE: [(u8, u8); 8] = [(16, 64); 8];

/// 16 rows of 16 elements of 32 bits.
type Block = [[u32; 16]; 16];

fn start() {
    match provide() {
        Unit::Hardware => println!("NOTE: this CPU has AMX: its own instructions are tested, not the emulator's"),
        Unit::Emulator => println!("NOTE: this CPU has no AMX: the emulator is tested"),
    }
}

/// Executes with tiles 0, 1 and 2 loaded from `blocks`, and returns tile 0.
macro_rules! with_tiles {
    ($config:expr, $blocks:expr, $($instruction:literal),+) => {{
        let (config, blocks): (Config, [Block; 3]) = ($config, $blocks);
        let mut result: Block = [[0xDEAD_BEEF; 16]; 16];
        // SAFETY: the tiles are at most as large as the blocks.
        unsafe {
            asm!(
                "ldtilecfg [{config}]",
                "tileloadd tmm0, [{a} + 1*{stride}]",
                "tileloadd tmm1, [{b} + 1*{stride}]",
                "tileloadd tmm2, [{c} + 1*{stride}]",
                $($instruction,)+
                "tilestored [{result} + 1*{stride}], tmm0",
                "tilerelease",
                config = in(reg) &raw const config,
                a = in(reg) blocks[0].as_ptr(),
                b = in(reg) blocks[1].as_ptr(),
                c = in(reg) blocks[2].as_ptr(),
                result = in(reg) result.as_mut_ptr(),
                stride = in(reg) 64_usize,
            );
        }
        result
    }};
}

fn block(element: impl Fn(usize, usize) -> u32) -> Block {
    std::array::from_fn(|row| std::array::from_fn(|column| element(row, column)))
}

/// Two bf16 as an element.
fn pair(low: f32, high: f32) -> u32 {
    low.to_bits() >> 16 | high.to_bits() & 0xFFFF_0000
}

#[test]
fn configurations_are_stored_as_they_were_loaded_and_released() {
    start();
    let given = config(&[(16, 64), (3, 8), (1, 4), (16, 64), (2, 12), (7, 64), (16, 4), (5, 20)]);
    let (mut stored, mut released) = (Config([0xFF; 64]), Config([0xFF; 64]));
    // SAFETY: configurations have 64 bytes.
    unsafe {
        asm!("ldtilecfg [{a}]", "sttilecfg [{b}]", "tilerelease", "sttilecfg [{c}]",
            a = in(reg) &raw const given, b = in(reg) &raw mut stored, c = in(reg) &raw mut released);
    }
    assert_eq!(stored, given);
    assert_eq!(released, Config([0; 64]));
}

#[test]
fn loading_a_configuration_clears_tiles() {
    start();
    let ones = block(|_, _| 1);
    let again = config(&WHOLE);
    let mut result = ones;
    // SAFETY: the tiles are as large as the blocks.
    unsafe {
        asm!("ldtilecfg [{config}]", "tileloadd tmm5, [{a} + {stride}]", "ldtilecfg [{config}]",
            "tilestored [{result} + {stride}], tmm5", "tilerelease",
            config = in(reg) &raw const again, a = in(reg) ones.as_ptr(), result = in(reg) result.as_mut_ptr(),
            stride = in(reg) 64_usize);
    }
    assert_eq!(result, [[0; 16]; 16]);
}

#[test]
fn tiles_move_as_many_rows_and_bytes_as_they_have() {
    start();
    let source: [u32; 256] = std::array::from_fn(|i| i as u32 + 1);
    let mut result: Block = [[0; 16]; 16];
    let shapes = config(&[(5, 12)]);
    for hint in [false, true] {
        // Rows that lie 40 bytes apart; every addressing form: upper registers, scales, displacements.
        // SAFETY: five rows of 12 bytes lie within both.
        unsafe {
            if hint {
                asm!("ldtilecfg [r13]", "tileloaddt1 tmm0, [r12 + 8*r14 + 8]", "tilestored [r15 + 4*rax], tmm0",
                    "tilerelease", in("r13") &raw const shapes, in("r12") source.as_ptr(), in("r14") 5_usize,
                    in("r15") result.as_mut_ptr(), in("rax") 16_usize);
            } else {
                asm!("ldtilecfg [r12 + 8*r14 - 40]", "tileloadd tmm0, [r13 + 2*rdx - 1016]",
                    "tilestored [rcx + r8 + 0x1000], tmm0", "tilerelease", in("r12") &raw const shapes,
                    in("r14") 5_usize, in("r13") source.as_ptr().cast::<u8>().wrapping_add(1024), in("rdx") 20_usize,
                    in("rcx") result.as_mut_ptr().cast::<u8>().wrapping_sub(0x1000), in("r8") 64_usize);
            }
        }
        let expected = block(|row, column| if row < 5 && column < 3 { (row * 10 + column + 3) as u32 } else { 0 });
        assert_eq!(result, expected, "hint: {hint}");
        result = [[0; 16]; 16];
    }
}

#[test]
fn an_address_without_index_repeats_a_row() {
    start();
    let source: [u32; 16] = std::array::from_fn(|i| i as u32 + 7);
    let shapes = config(&[(3, 64)]);
    let mut result: Block = [[0; 16]; 16];
    // SAFETY: the tile has one row of memory, again and again, and three of the result.
    unsafe {
        asm!("ldtilecfg [{config}]", "tileloadd tmm0, [{a}]", "tilestored [{b} + {stride}], tmm0", "tilerelease",
            config = in(reg) &raw const shapes, a = in(reg) source.as_ptr(), b = in(reg) result.as_mut_ptr(),
            stride = in(reg) 64_usize);
    }
    assert_eq!(result, block(|row, column| if row < 3 { source[column] } else { 0 }));
}

#[test]
fn rows_beyond_a_tile_are_left_alone_in_memory() {
    start();
    let result = with_tiles!(config(&[(4, 20), (4, 20), (4, 20)]), [[[9; 16]; 16]; 3], "tilezero tmm0");
    assert_eq!(result, block(|row, column| if row < 4 && column < 5 { 0 } else { 0xDEAD_BEEF }));
}

/// The manual's operation of TDPBF16PS for normal numbers: even and odd products in chains of their own.
fn expected_bf16(blocks: &[Block; 3], rows: usize, pairs: usize, columns: usize) -> Block {
    let value = |bits: u32, half: usize| f32::from_bits(if half == 0 { bits << 16 } else { bits & 0xFFFF_0000 });
    block(|row, column| {
        if row >= rows || column >= columns {
            return 0xDEAD_BEEF;
        }
        let sum = |half: usize| {
            (0..pairs)
                .fold(0.0_f32, |sum, k| value(blocks[1][row][k], half).mul_add(value(blocks[2][k][column], half), sum))
        };
        (f32::from_bits(blocks[0][row][column]) + (sum(0) + sum(1))).to_bits()
    })
}

/// Values of many magnitudes, so that the order of additions shows.
fn scattered(seed: usize) -> impl Fn(usize, usize) -> f32 {
    move |row, column| {
        let bits = (row * 16 + column + seed * 4099).wrapping_mul(2_654_435_761) % 65_521;
        let magnitude = f32::from((bits % 13) as u8).exp2() / 64.0;
        magnitude * (1.0 + (bits / 13 % 128) as f32 / 128.0) * if bits.is_multiple_of(2) { 1.0 } else { -1.0 }
    }
}

fn bf16_blocks() -> [Block; 3] {
    let [a, b, c] = [1, 2, 3].map(scattered);
    [
        block(|row, column| (a(row, column) * 1.000_123).to_bits()),
        block(|row, k| pair(b(row, 2 * k), b(row, 2 * k + 1))),
        block(|k, column| pair(c(2 * k, column), c(2 * k + 1, column))),
    ]
}

#[test]
fn products_of_bf16_add_up_in_the_manuals_order() {
    start();
    let blocks = bf16_blocks();
    let whole = with_tiles!(config(&WHOLE), blocks, "tdpbf16ps tmm0, tmm1, tmm2");
    assert_eq!(whole, expected_bf16(&blocks, 16, 16, 16));
    let part = with_tiles!(config(&[(3, 28), (3, 20), (5, 28)]), blocks, "tdpbf16ps tmm0, tmm1, tmm2");
    assert_eq!(part, expected_bf16(&blocks, 3, 5, 7));
}

#[test]
fn rows_of_products_are_independent() {
    start();
    let blocks = bf16_blocks();
    let mut other = blocks;
    for row in (0..16).filter(|row| row % 3 != 1) {
        other[0][row] = [f32::NAN.to_bits(); 16];
        other[1][row] = [pair(f32::INFINITY, f32::NAN); 16];
    }
    let [one, other] = [blocks, other].map(|b| with_tiles!(config(&WHOLE), b, "tdpbf16ps tmm0, tmm1, tmm2"));
    assert!((0..16).filter(|row| row % 3 == 1).all(|row| one[row] == other[row]));
}

#[test]
fn denormal_numbers_are_zero() {
    start();
    let tiny = f32::MIN_POSITIVE;
    let denormal = f32::from_bits(0x0001_0000);
    let one = block(|k, _| if k == 0 { pair(1.0, 0.0) } else { 0 });
    let first = |sum: u32, left: u32, right: f32| {
        let left = block(|_, k| if k == 0 { left } else { 0 });
        let right = if right == 1.0 { one } else { block(|k, _| if k == 0 { pair(right, 0.0) } else { 0 }) };
        with_tiles!(config(&WHOLE), [block(|_, _| sum), left, right], "tdpbf16ps tmm0, tmm1, tmm2")[0][0]
    };
    assert_eq!(first(1, 0, 1.0), 0, "what it is added to");
    assert_eq!(first(0, pair(denormal, 0.0), 1.0), 0, "an operand");
    assert_eq!(first(0, pair(tiny, 0.0), 0.5), 0, "a product");
    assert_eq!(first(0, pair(tiny, 0.0), 1.0), tiny.to_bits(), "but not the smallest normal number");
    assert_eq!(first((1.5 * tiny).to_bits(), pair(-tiny, 0.0), 1.0), 0, "a sum");
    assert_eq!(first(0, pair(f32::INFINITY, 0.0), 1.0), f32::INFINITY.to_bits(), "others are what they are");
}

#[test]
fn products_of_bytes_wrap_around() {
    start();
    let byte = |seed: usize, i: usize| (i * 37 + seed * 101) as u8;
    let element = |seed: usize, row: usize, column: usize| {
        u32::from_le_bytes(std::array::from_fn(|i| byte(seed, row * 64 + column * 4 + i)))
    };
    let blocks = [
        block(|row, column| (i32::MAX - (row * 16 + column) as i32) as u32),
        block(|row, column| element(1, row, column)),
        block(|row, column| element(2, row, column)),
    ];
    let result = with_tiles!(config(&WHOLE), blocks, "tdpbssd tmm0, tmm1, tmm2");
    let expected = block(|row, column| {
        let mut sum = blocks[0][row][column] as i32;
        for (a, b) in (0..16).map(|k| (blocks[1][row][k].to_le_bytes(), blocks[2][k][column].to_le_bytes())) {
            for i in 0..4 {
                sum = sum.wrapping_add(i32::from(a[i] as i8) * i32::from(b[i] as i8));
            }
        }
        sum as u32
    });
    assert_eq!(result, expected);
}

#[test]
fn every_thread_has_tiles_of_its_own() {
    start();
    let threads: Vec<_> = (0..4_u32)
        .map(|thread| {
            std::thread::spawn(move || {
                for turn in 0..50 {
                    let value = block(|_, _| thread * 1000 + turn);
                    let result = with_tiles!(config(&WHOLE), [value, value, value], "tilezero tmm1", "tilezero tmm2");
                    assert_eq!(result, value);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn wrong_uses_are_named() {
    // SAFETY: no instruction that is executed here gets to its memory.
    let run = |tiles: &mut Tiles, instruction| unsafe { tiles.execute(instruction) }.unwrap_err();
    let load = |config: &Config| {
        let mut tiles = Tiles::INITIAL;
        // SAFETY: a configuration has 64 bytes.
        let result = unsafe { tiles.execute(Instruction::LoadConfig { address: (&raw const *config) as u64 }) };
        result.map(|()| tiles)
    };
    let product = |sum, left, right| Instruction::MultiplyBf16 { sum, left, right };
    assert_eq!(run(&mut Tiles::INITIAL.clone(), Instruction::Zero { tile: 3 }), "no tiles are configured");
    let mut tiles = load(&config(&[(16, 64), (16, 64), (16, 64), (8, 64), (16, 62), (0, 0)])).unwrap();
    let beyond = Instruction::Load { tile: 5, address: 0, stride: 0 };
    assert_eq!(run(&mut tiles, beyond), "tile 5 is not configured");
    assert!(run(&mut tiles, product(0, 1, 1)).contains("must be three"));
    assert!(run(&mut tiles, product(0, 3, 1)).contains("8 rows of 64 bytes times 16 rows"));
    assert!(run(&mut tiles, product(0, 1, 3)).contains("times 8 rows of 64 bytes"));
    assert!(run(&mut tiles, product(4, 1, 2)).contains("32-bit elements"));
    let wrong = |change: fn(&mut [u8; 64])| {
        let mut bytes = config(&WHOLE);
        change(&mut bytes.0);
        load(&bytes).unwrap_err()
    };
    assert_eq!(wrong(|bytes| bytes[0] = 2), "there is no palette 2");
    assert_eq!(wrong(|bytes| bytes[5] = 1), "byte 5 of the configuration is reserved and not 0");
    assert_eq!(wrong(|bytes| bytes[48] = 17), "tile 0 cannot have 17 rows of 64 bytes");
    assert_eq!(wrong(|bytes| bytes[49] = 0), "tile 1 cannot have 0 rows of 64 bytes");
}

#[test]
fn only_tile_instructions_are_decoded() {
    let decoded = |bytes: &[u8]| decode(|at| bytes[at], 0x1000, &std::array::from_fn(|i| i as u64 * 0x100));
    // ldtilecfg [rip + 0x10]; tilerelease; tdpbf16ps tmm1, tmm2, tmm3; tileloadd tmm6, [r9 + 2*rcx - 0x80]
    let cases: [(&[u8], Instruction, usize); 4] = [
        (&[0xC4, 0xE2, 0x78, 0x49, 0x05, 0x10, 0, 0, 0], Instruction::LoadConfig { address: 0x1019 }, 9),
        (&[0xC4, 0xE2, 0x78, 0x49, 0xC0], Instruction::Release, 5),
        (&[0xC4, 0xE2, 0x62, 0x5C, 0xCA], Instruction::MultiplyBf16 { sum: 1, left: 2, right: 3 }, 5),
        (&[0xC4, 0xC2, 0x7B, 0x4B, 0x74, 0x49, 0x80], Instruction::Load { tile: 6, address: 0x880, stride: 0x200 }, 7),
    ];
    for (bytes, instruction, length) in cases {
        assert_eq!(decoded(bytes), Some((instruction, length)));
    }
    // ud2; vaddps; a tile instruction with W1; with a register operand where memory must be; an upper tile.
    let others: [&[u8]; 5] = [
        &[0x0F, 0x0B, 0, 0, 0],
        &[0xC5, 0xF8, 0x58, 0xC0, 0],
        &[0xC4, 0xE2, 0xF8, 0x49, 0xC0],
        &[0xC4, 0xE2, 0x7B, 0x4B, 0xC0],
        &[0xC4, 0x62, 0x62, 0x5C, 0xCA],
    ];
    for bytes in others {
        assert_eq!(decoded(bytes), None, "{bytes:02X?}");
    }
}

/// The signal that ends a process which does nothing but `work`.
fn ends_with(work: impl FnOnce()) -> libc::c_int {
    // SAFETY: the child only executes `work`, which takes no lock, and ends.
    unsafe {
        match libc::fork() {
            0 => {
                libc::close(libc::STDERR_FILENO);
                work();
                libc::_exit(0)
            }
            child => {
                let mut status = 0;
                assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
                if libc::WIFSIGNALED(status) { libc::WTERMSIG(status) } else { 0 }
            }
        }
    }
}

#[test]
fn exceptions_end_the_process() {
    start();
    // SAFETY: neither instruction accesses memory.
    let (unconfigured, illegal) = unsafe { (ends_with(|| asm!("tilezero tmm0")), ends_with(|| asm!("ud2"))) };
    assert_eq!(illegal, libc::SIGILL, "what is illegal stays so");
    assert!([libc::SIGABRT, libc::SIGILL].contains(&unconfigured), "{unconfigured}");
}
