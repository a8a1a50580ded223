//! Checks a module against the contract without compiling or running it.
//!
//! Everything wrong with a module is listed at once, since the person who inserts it would
//! otherwise mend it one refusal at a time.

mod seen;
mod work;

use std::borrow::Cow;

use wasmtime::wasmparser::{Parser, Validator, WasmFeatures};

use crate::wasm::abi::{ABI_VERSION, StageSet};
use crate::wasm::limits::{
    ELEMENTS_MAX, MODULE_BYTES_MAX, MODULE_LOCALS_MAX, MODULE_MERGES_MAX, MODULE_OPERATORS_MAX,
    PROBLEMS_MAX, TEXT_BYTES_MAX,
};
use crate::wasm::problem::{InvalidModule, Problem};
use seen::Seen;

/// The proposals that guests may use: what compilers emit by default and what is deterministic.
/// Not among them: threads, relaxed SIMD, 64-bit or several memories, garbage collection,
/// exceptions.
pub(crate) const FEATURES: WasmFeatures = WasmFeatures::MUTABLE_GLOBAL
    .union(WasmFeatures::SATURATING_FLOAT_TO_INT)
    .union(WasmFeatures::SIGN_EXTENSION)
    .union(WasmFeatures::REFERENCE_TYPES)
    .union(WasmFeatures::MULTI_VALUE)
    .union(WasmFeatures::BULK_MEMORY)
    .union(WasmFeatures::SIMD)
    .union(WasmFeatures::FLOATS)
    .union(WasmFeatures::TAIL_CALL)
    .union(WasmFeatures::EXTENDED_CONST);

const PAGE_BYTES: u64 = 65_536;
const WASM_MAGIC: &[u8] = b"\0asm";

/// What a module is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleInfo {
    /// The stages it exports. The JavaScript guest exports all; its sources decide.
    pub stages: StageSet,
    /// What it imports, as `module.name`, in its own order.
    pub imports: Vec<String>,
    /// The version of the contract that it names.
    pub abi: u32,
    /// Whether it takes JavaScript sources.
    pub js: bool,
    /// Whether its reduce has the streaming form. Of the JavaScript guest, its sources decide.
    pub streams: bool,
    /// Whether it exports `_initialize`.
    pub initialize: bool,
    /// The memory that it starts with, in bytes.
    pub memory_bytes_min: u64,
    /// How many functions it has, imports excluded.
    pub functions: usize,
    /// What [`super::limits::MODULE_MERGES_MAX`] limits: branches times locals.
    pub merges: u64,
    /// What [`super::limits::MODULE_OPERATORS_MAX`] limits.
    pub operators: u64,
    /// The same of its largest function, which [`super::limits::FUNCTION_OPERATORS_MAX`] limits.
    pub function_operators: u64,
    /// Its size in WebAssembly's binary form, in bytes.
    pub size_bytes: usize,
}

/// Turns WebAssembly text into its binary form.
///
/// # Errors
/// If the text does not parse; the problem holds the place.
pub fn wat_to_wasm(text: &str) -> Result<Vec<u8>, InvalidModule> {
    wat::parse_str(text).map_err(|error| InvalidModule {
        problems: vec![Problem::Text { message: one_line(&error) }],
    })
}

/// What the parser says, with the place; it would draw the line of text below.
fn one_line(error: &wat::Error) -> String {
    let text = error.to_string();
    let mut lines = text.lines();
    let message = lines.next().unwrap_or_default().to_owned();
    match lines.next().and_then(|place| place.trim().strip_prefix("--> <anon>:")) {
        Some(place) => format!("{message} (at {place})"),
        None => message,
    }
}

/// The binary form of a module that may be text.
pub(crate) fn binary(bytes: &[u8]) -> Result<Cow<'_, [u8]>, InvalidModule> {
    if bytes.starts_with(WASM_MAGIC) {
        return Ok(Cow::Borrowed(bytes));
    }
    let mut list = List::default();
    list.limit("size of the text in bytes", bytes.len() as u64, TEXT_BYTES_MAX as u64);
    list.done(())?;
    match std::str::from_utf8(bytes) {
        Ok(text) => wat_to_wasm(text).map(Cow::Owned),
        Err(_) => Err(InvalidModule {
            problems: vec![Problem::Text { message: "it is not UTF-8".to_owned() }],
        }),
    }
}

/// Checks a module in binary form, without an engine: nothing of it is compiled or run.
///
/// # Errors
/// Everything that is wrong with it.
pub fn inspect_module(wasm: &[u8], memory_bytes_max: usize) -> Result<ModuleInfo, InvalidModule> {
    if wasm.starts_with(WASM_MAGIC) {
        return inspect(wasm, memory_bytes_max);
    }
    Err(InvalidModule {
        problems: vec![Problem::Text { message: "it is no WebAssembly module".to_owned() }],
    })
}

/// Checks a module in binary form.
pub(crate) fn inspect(wasm: &[u8], memory_bytes_max: usize) -> Result<ModuleInfo, InvalidModule> {
    check(wasm, memory_bytes_max, Seen::default())
}

/// The same of a module that is a part of this program: a test has checked its functions, which takes longer than all the
/// rest, so they are not counted again.
pub(crate) fn inspect_own(
    wasm: &[u8],
    memory_bytes_max: usize,
) -> Result<ModuleInfo, InvalidModule> {
    check(wasm, memory_bytes_max, Seen { own: true, ..Seen::default() })
}

fn check(
    wasm: &[u8],
    memory_bytes_max: usize,
    mut seen: Seen,
) -> Result<ModuleInfo, InvalidModule> {
    let mut list = List::default();
    list.limit("size in bytes", wasm.len() as u64, MODULE_BYTES_MAX as u64);
    list.done(())?;

    let mut broken = false;
    for payload in Parser::new(0).parse_all(wasm) {
        let read = payload.and_then(|payload| seen.read(&payload, &mut list));
        match read {
            Ok(true) => {}
            Ok(false) => return list.done(ModuleInfo::default_with(wasm.len())),
            Err(error) => {
                list.invalid(&error);
                broken = true;
                break;
            }
        }
    }
    list.limit("compiling work (branches times locals)", seen.merges, MODULE_MERGES_MAX);
    list.limit("operators of all functions", seen.operators, MODULE_OPERATORS_MAX);
    list.limit("locals of all functions", seen.locals, MODULE_LOCALS_MAX);
    list.limit("elements of all segments", seen.elements, ELEMENTS_MAX);
    // A module within the limits is validated in full; one beyond them may take too long for it.
    if !broken
        && !seen.own
        && !list.exceeded
        && let Err(error) = Validator::new_with_features(FEATURES).validate_all(wasm)
    {
        list.invalid(&error);
        broken = true;
    }
    let info = seen.judge(&mut list, memory_bytes_max, broken, wasm.len());
    list.done(info)
}

impl ModuleInfo {
    fn default_with(size_bytes: usize) -> Self {
        Self {
            stages: StageSet::EMPTY,
            imports: Vec::new(),
            abi: ABI_VERSION,
            js: false,
            streams: false,
            initialize: false,
            memory_bytes_min: 0,
            functions: 0,
            merges: 0,
            operators: 0,
            function_operators: 0,
            size_bytes,
        }
    }
}

/// The problems found so far.
#[derive(Default)]
struct List {
    problems: Vec<Problem>,
    exceeded: bool,
}

impl List {
    fn add(&mut self, problem: Problem) {
        if self.problems.len() < PROBLEMS_MAX && !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    fn limit(&mut self, what: &'static str, found: u64, max: u64) {
        if found > max {
            self.exceeded = true;
            self.add(Problem::Limit { what, found, max });
        }
    }

    fn invalid(&mut self, error: &wasmtime::wasmparser::BinaryReaderError) {
        self.add(Problem::Invalid { message: error.message().to_owned(), offset: error.offset() });
    }

    fn done<T>(&mut self, value: T) -> Result<T, InvalidModule> {
        if self.problems.is_empty() {
            Ok(value)
        } else {
            Err(InvalidModule { problems: std::mem::take(&mut self.problems) })
        }
    }
}
