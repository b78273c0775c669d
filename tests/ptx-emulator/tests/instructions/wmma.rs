//! `wmma`: whatever the layout in memory, the shape and the formats, a product is the product.

use crate::common::{Random, download32, upload};
use crate::{HEAD, REGISTERS};
use llmc_ptx_emulator::{LaunchConfig, Memory, Module, launch};

/// A format of factors: its name in PTX, bytes, registers of a and b per shape, and a value's bits.
struct Format {
    name: &'static str,
    sum: &'static str,
    bytes: usize,
    bits: fn(i32) -> u32,
}

const FORMATS: [Format; 5] = [
    Format { name: "f16", sum: "f32", bytes: 2, bits: |value| half(value) },
    Format { name: "bf16", sum: "f32", bytes: 2, bits: |value| (value as f32).to_bits() >> 16 },
    Format { name: "tf32", sum: "f32", bytes: 4, bits: |value| (value as f32).to_bits() },
    Format { name: "s8", sum: "s32", bytes: 1, bits: |value| value as u8 as u32 },
    Format { name: "f16", sum: "f16", bytes: 2, bits: |value| half(value) },
];

/// A small integer in half precision.
fn half(value: i32) -> u32 {
    let bits = (value as f32).to_bits();
    if value == 0 { 0 } else { (bits >> 16 & 0x8000) | ((bits & 0x7fff_ffff) - (112 << 23)) >> 13 }
}

fn registers(first: usize, count: usize) -> String {
    let names: Vec<String> = (first..first + count).map(|at| format!("%r{at}")).collect();
    format!("{{{}}}", names.join(", "))
}

/// Runs `d = a b + c`; `a` in `order_a` and so on, with lines that are longer than the matrix, through shared memory for `b`.
fn product(format: &Format, [m, n, k]: [usize; 3], orders: [&str; 3]) {
    let what = format!("m{m}n{n}k{k} of {} into {}, {orders:?}", format.name, format.sum);
    let mut random = Random((m * n) as u64);
    let mut small = |count: usize| -> Vec<i32> { (0..count).map(|_| (random.bits() >> 40) as i32 % 7 - 3).collect() };
    let (a, b, c) = (small(m * k), small(k * n), small(m * n));
    let sum_bytes = if format.sum == "f16" { 2 } else { 4 };
    let sum_bits = |value: i32| match format.sum {
        "f16" => half(value),
        "f32" => (value as f32).to_bits(),
        _ => value as u32,
    };
    // A matrix as it lies in memory, and its stride in elements.
    let stored =
        |values: &[i32], (rows, columns): (usize, usize), order: &str, bytes: usize, bits: &dyn Fn(i32) -> u32| {
            let (lines, along) = if order == "row" { (rows, columns) } else { (columns, rows) };
            let stride = along.next_multiple_of(16) + 16;
            let mut image = vec![0xffu8; lines * stride * bytes];
            for (at, &value) in values.iter().enumerate() {
                let (row, column) = (at / columns, at % columns);
                let place = if order == "row" { row * stride + column } else { column * stride + row };
                image[place * bytes..(place + 1) * bytes].copy_from_slice(&bits(value).to_le_bytes()[..bytes]);
            }
            (image, stride)
        };
    let (a_image, a_stride) = stored(&a, (m, k), orders[0], format.bytes, &format.bits);
    let (b_image, b_stride) = stored(&b, (k, n), orders[1], format.bytes, &format.bits);
    let (c_image, c_stride) = stored(&c, (m, n), orders[2], sum_bytes, &sum_bits);
    let count = |elements: usize, bytes: usize| elements * bytes / 128;
    let factor = |elements| if format.name == "f16" { 8 } else { count(elements, format.bytes) };
    let (a_count, b_count, sums) = (factor(m * k), factor(k * n), count(m * n, sum_bytes));
    let shape = format!("m{m}n{n}k{k}");
    let (name, sum, [order_a, order_b, order_c]) = (format.name, format.sum, orders);
    let types = match name {
        "f16" => format!("{sum}.{sum}"),
        _ => format!("{sum}.{name}.{name}.{sum}"),
    };
    let [a_list, b_list, c_list] = [registers(10, a_count), registers(20, b_count), registers(30, sums)];
    let mut body = String::new();
    for word in 0..b_image.len() / 4 {
        body += &format!("ld.global.u32 %r1, [%rd2+{}]; st.shared.u32 [tile+{}], %r1;", 4 * word, 4 * word);
    }
    body += &format!(
        "bar.sync 0; mov.u32 %r2, tile;
         wmma.load.a.sync.aligned.{order_a}.{shape}.global.{name} {a_list}, [%rd1], {a_stride};
         wmma.load.b.sync.aligned.{order_b}.{shape}.shared.{name} {b_list}, [%r2], {b_stride};
         wmma.load.c.sync.aligned.{order_c}.{shape}.{sum} {c_list}, [%rd3], {c_stride};
         wmma.mma.sync.aligned.{order_a}.{order_b}.{shape}.{types} {c_list}, {a_list}, {b_list}, {c_list};
         wmma.store.d.sync.aligned.row.{shape}.global.{sum} [%rd4], {c_list};"
    );
    let text = format!(
        "{HEAD}.shared .align 16 .b8 tile[{}]; .visible .entry k(.param .u64 a, .param .u64 b, .param .u64 c, .param .u64 d) {{
         {REGISTERS} ld.param.u64 %rd1, [a]; ld.param.u64 %rd2, [b]; ld.param.u64 %rd3, [c]; ld.param.u64 %rd4, [d]; {body} ret; }}",
        b_image.len()
    );
    let module = Module::parse(&text).unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut memory = Memory::new();
    let mut arguments: Vec<_> =
        [a_image, b_image, c_image].iter().map(|image| upload(&mut memory, image).into()).collect();
    let d = memory.allocate((m * n * sum_bytes) as u64);
    arguments.push(d.into());
    let counters = launch(&module, "k", LaunchConfig::new([1, 1, 1], [32, 1, 1], 0), &arguments, &mut memory)
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(counters.mma_flops, (2 * m * n * k) as u64);
    let words = download32(&memory, d, m * n * sum_bytes / 4);
    for row in 0..m {
        for column in 0..n {
            let at = row * n + column;
            let found = if sum_bytes == 2 { words[at / 2] >> (16 * (at % 2)) & 0xffff } else { words[at] };
            let wanted = (0..k).fold(c[at], |sum, depth| sum + a[row * k + depth] * b[depth * n + column]);
            assert_eq!(found, sum_bits(wanted), "{what}: row {row}, column {column}");
        }
    }
}

#[test]
fn products_of_every_shape_format_and_order() {
    for format in &FORMATS {
        let shapes: &[[usize; 3]] = match format.name {
            "tf32" => &[[16, 16, 8]],
            _ => &[[16, 16, 16], [32, 8, 16], [8, 32, 16]],
        };
        for &shape in shapes {
            for orders in [["row", "col", "row"], ["col", "row", "col"], ["row", "row", "row"]] {
                product(format, shape, orders);
            }
        }
    }
}

#[test]
fn what_does_not_exist_is_refused() {
    let error = |instruction: &str| {
        let text = format!("{HEAD}.visible .entry k() {{ {REGISTERS} {instruction} ret; }}");
        Module::parse(&text).unwrap_err().to_string()
    };
    let eight = registers(10, 8);
    for (instruction, said) in [
        ("wmma.load.a.sync.aligned.row.m8n8k4.f64 %rd1, [%rd2];".to_string(), "is implemented with one of"),
        (format!("wmma.load.a.sync.aligned.row.m16n16k16.tf32 {eight}, [%rd2];"), "16 x 16 elements of type .tf32"),
        (
            format!("wmma.load.b.sync.aligned.row.m16n16k16.bf16 {eight}, [%rd2];"),
            "a vector of 4 registers is expected",
        ),
        (
            format!("wmma.mma.sync.aligned.row.col.m16n16k16.f16.bf16.bf16.f16 {eight}, {eight}, {eight}, {eight};"),
            "does not exist",
        ),
    ] {
        assert!(error(&instruction).contains(said), "{}", error(&instruction));
    }
}
