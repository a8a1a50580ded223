//! Modules in WebAssembly that mean harm, written byte by byte: as text they would be larger than what is read.

use bson::oid::ObjectId;

/// A function of the contract that does nothing, and three types: `() -> ()`, `(i32) -> (i32)`, `(i32, i32) -> ()`.
const NOTHING: &[u8] = &[0, 0x0B];
const ALLOCATES: &[u8] = &[0, 0x41, 0x80, 0x08, 0x0B];

fn leb(mut n: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while n >= 0x80 {
        bytes.push((n & 0x7F) as u8 | 0x80);
        n >>= 7;
    }
    bytes.push(n as u8);
    bytes
}

/// Bytes with their length before them.
fn sized(bytes: &[u8]) -> Vec<u8> {
    [&leb(bytes.len())[..], bytes].concat()
}

fn section(id: u8, count: usize, items: &[u8]) -> Vec<u8> {
    let content = [&leb(count)[..], items].concat();
    [&[id][..], &sized(&content)].concat()
}

/// A section that means nothing, under a name of one letter.
fn custom(content: &[u8]) -> Vec<u8> {
    [&[0][..], &sized(&[&sized(b"n")[..], content].concat())].concat()
}

fn export(name: &str, kind: u8, index: u8) -> Vec<u8> {
    [&sized(name.as_bytes())[..], &[kind, index]].concat()
}

/// A module that follows the contract, with more functions that nobody calls. Bodies begin with their locals. Function 0 does
/// nothing. No two modules are the same, so that none has been compiled before.
fn module(more: &[Vec<u8>]) -> Vec<u8> {
    let types = [&[0x60, 0, 0][..], &[0x60, 1, 0x7F, 1, 0x7F], &[0x60, 2, 0x7F, 0x7F, 0]].concat();
    let of = [&[0, 1, 2][..], &vec![0; more.len()]].concat();
    let exports = [
        export("memory", 2, 0),
        export("aviary_abi_v1", 0, 0),
        export("aviary_alloc", 0, 1),
        export("map", 0, 2),
    ];
    let mut bodies = [sized(NOTHING), sized(ALLOCATES), sized(NOTHING)].concat();
    for body in more {
        bodies.extend(sized(body));
    }
    [
        b"\0asm\x01\0\0\0".to_vec(),
        section(1, 3, &types),
        section(3, of.len(), &of),
        section(5, 1, &[0, 1]),
        section(7, exports.len(), &exports.concat()),
        section(10, of.len(), &bodies),
        custom(&ObjectId::new().bytes()),
    ]
    .concat()
}

/// A body without locals: so often the same operators.
fn repeated(operators: &[u8], times: usize) -> Vec<u8> {
    [&[0][..], &operators.repeat(times), &[0x0B]].concat()
}

/// A function as large as one may be, all calls: what takes the compiler most.
pub fn large_function() -> Vec<u8> {
    module(&[repeated(&[0x10, 0], 524_000)])
}

/// As many of those as a document holds.
pub fn large_functions() -> Vec<u8> {
    module(&vec![repeated(&[0x10, 0], 524_000); 14])
}

/// Many small functions of 50,000 locals each.
pub fn many_locals() -> Vec<u8> {
    let body = [&[1][..], &leb(50_000), &[0x7F, 0x0B]].concat();
    module(&vec![body; 90_000])
}
