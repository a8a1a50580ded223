//! Checks a module against the contract without compiling or running it.
//!
//! Everything wrong with a module is listed at once, since the person who inserts it would
//! otherwise mend it one refusal at a time.

use std::borrow::Cow;

use wasmtime::wasmparser::{
    BlockType, CompositeInnerType, ElementItems, Encoding, ExternalKind, FuncType, FunctionBody,
    Operator, Parser, Payload, TypeRef, Validator, WasmFeatures,
};

use super::abi::{
    ABI_VERSION, EXPORT_ABI, EXPORT_ABI_PREFIX, EXPORT_ALLOC, EXPORT_INITIALIZE, EXPORT_JS_LOAD,
    EXPORT_MEMORY, EXPORTS, EXPORTS_STREAM, IMPORTS, SECTION_ABI, Signature, Stage, StageSet,
};
use super::limits::{
    BULK_BYTES_MAX, DATA_SEGMENTS_MAX, ELEMENT_SEGMENTS_MAX, ELEMENTS_MAX, EXPORTS_MAX,
    FUNCTION_BULK_OPERATORS_MAX, FUNCTION_BYTES_MAX, FUNCTION_LOCALS_MAX, FUNCTION_OPERATORS_MAX,
    FUNCTIONS_MAX, GLOBALS_MAX, IMPORTS_MAX, MODULE_BYTES_MAX, MODULE_LOCALS_MAX,
    MODULE_MERGES_MAX, MODULE_OPERATORS_MAX, PROBLEMS_MAX, TABLE_ELEMENTS_MAX, TABLES_MAX,
    TEXT_BYTES_MAX, TYPES_MAX,
};
use super::problem::{InvalidModule, Problem};

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

/// What was read of a module.
#[derive(Default)]
struct Seen {
    types: Vec<Option<FuncType>>,
    /// The type of each function, imported ones first.
    functions: Vec<u32>,
    imported_functions: usize,
    imports: Vec<(String, String, Option<u32>)>,
    exports: Vec<(String, ExternalKind, u32)>,
    memory_pages_min: Option<u64>,
    /// Branches times locals, of all functions.
    merges: u64,
    operators: u64,
    /// Those of the largest function.
    function_operators: u64,
    locals: u64,
    elements: u64,
    /// Bodies read so far.
    bodies: usize,
    abi_section: Option<Vec<u8>>,
    /// Whether the module is a part of this program.
    own: bool,
}

impl Seen {
    /// Reads one section; false if nothing after it is worth reading.
    fn read(
        &mut self,
        payload: &Payload<'_>,
        list: &mut List,
    ) -> wasmtime::wasmparser::Result<bool> {
        match payload {
            Payload::Version { encoding: Encoding::Component, .. } => {
                list.add(Problem::Component);
                return Ok(false);
            }
            Payload::TypeSection(section) => {
                list.limit("types", u64::from(section.count()), TYPES_MAX as u64);
                for group in section.clone().into_iter().take(TYPES_MAX) {
                    for kind in group?.into_types() {
                        self.types.push(match kind.composite_type.inner {
                            CompositeInnerType::Func(function) => Some(function),
                            _ => None,
                        });
                    }
                }
            }
            Payload::ImportSection(section) => {
                list.limit("imports", u64::from(section.count()), IMPORTS_MAX as u64);
                for import in section.clone().into_imports().take(IMPORTS_MAX) {
                    let import = import?;
                    let function = match import.ty {
                        TypeRef::Func(index) => Some(index),
                        _ => None,
                    };
                    self.functions.extend(function);
                    let (module, name) = (import.module.to_owned(), import.name.to_owned());
                    self.imports.push((module, name, function));
                }
                self.imported_functions = self.functions.len();
            }
            Payload::FunctionSection(section) => {
                list.limit("functions", u64::from(section.count()), FUNCTIONS_MAX as u64);
                for index in section.clone().into_iter().take(FUNCTIONS_MAX) {
                    self.functions.push(index?);
                }
            }
            Payload::TableSection(section) => {
                list.limit("tables", u64::from(section.count()), TABLES_MAX as u64);
                for table in section.clone().into_iter().take(TABLES_MAX) {
                    let initial = table?.ty.initial;
                    list.limit("elements of a table", initial, TABLE_ELEMENTS_MAX as u64);
                }
            }
            Payload::MemorySection(section) => {
                for memory in section.clone().into_iter().take(1) {
                    self.memory_pages_min = Some(memory?.initial);
                }
            }
            Payload::GlobalSection(section) => {
                list.limit("globals", u64::from(section.count()), GLOBALS_MAX as u64);
            }
            Payload::ExportSection(section) => {
                list.limit("exports", u64::from(section.count()), EXPORTS_MAX as u64);
                for export in section.clone().into_iter().take(EXPORTS_MAX) {
                    let export = export?;
                    self.exports.push((export.name.to_owned(), export.kind, export.index));
                }
            }
            Payload::ElementSection(section) => {
                let count = u64::from(section.count());
                list.limit("element segments", count, ELEMENT_SEGMENTS_MAX as u64);
                for segment in section.clone().into_iter().take(ELEMENT_SEGMENTS_MAX) {
                    let count = match segment?.items {
                        ElementItems::Functions(functions) => functions.count(),
                        ElementItems::Expressions(_, expressions) => expressions.count(),
                    };
                    self.elements = self.elements.saturating_add(u64::from(count));
                }
            }
            Payload::DataSection(section) => {
                let count = u64::from(section.count());
                list.limit("data segments", count, DATA_SEGMENTS_MAX as u64);
            }
            Payload::CodeSectionEntry(_) if self.own => self.bodies += 1,
            Payload::CodeSectionEntry(body) => {
                let bytes = body.range().len() as u64;
                let what = "size of a function in bytes";
                list.limit(what, bytes, FUNCTION_BYTES_MAX as u64);
                let work = self.work(body)?;
                list.limit("operators of a function", work.operators, FUNCTION_OPERATORS_MAX);
                list.limit("locals of a function", work.locals, FUNCTION_LOCALS_MAX);
                let what = "operators of a function that move memory of any length";
                list.limit(what, work.bulk, FUNCTION_BULK_OPERATORS_MAX);
                self.merges = self.merges.saturating_add(work.merges);
                self.operators = self.operators.saturating_add(work.operators);
                self.function_operators = self.function_operators.max(work.operators);
                self.locals = self.locals.saturating_add(work.locals);
                self.bodies += 1;
            }
            Payload::CustomSection(section) if section.name() == SECTION_ABI => {
                self.abi_section = Some(section.data().to_vec());
            }
            _ => {}
        }
        Ok(true)
    }

    /// Adds what contradicts the contract. Of a broken module only the part before the damage is
    /// known, so nothing is said to be missing from it.
    fn judge(
        self,
        list: &mut List,
        memory_bytes_max: usize,
        broken: bool,
        size_bytes: usize,
    ) -> ModuleInfo {
        let mut info = ModuleInfo::default_with(size_bytes);
        for (module, name, index) in &self.imports {
            self.judge_import(module, name, *index, list);
            info.imports.push(format!("{module}.{name}"));
        }
        let mut has = (false, false, false);
        let mut stream = [false; EXPORTS_STREAM.len()];
        for (name, kind, index) in &self.exports {
            if name == EXPORT_MEMORY && *kind == ExternalKind::Memory {
                has.0 = true;
            }
            let Some((known, expected)) = EXPORTS.iter().find(|(known, _)| known == name) else {
                if let Some(found) = name.strip_prefix(EXPORT_ABI_PREFIX) {
                    list.add(Problem::AbiVersion { found: found.to_owned() });
                    has.2 = true;
                }
                continue;
            };
            let found = match kind {
                ExternalKind::Func => self.function_type(*index),
                _ => None,
            };
            // Of a module beyond the limits not every function's type was read.
            let unread = found.is_none() && *kind == ExternalKind::Func && list.exceeded;
            if !unread && !found.is_some_and(|found| matches(expected, found)) {
                list.add(Problem::ExportType {
                    name: name.clone(),
                    expected: describe(expected.params, expected.results),
                    found: found.map_or_else(|| "no function".to_owned(), describe_type),
                });
            }
            for (part, has) in EXPORTS_STREAM.iter().zip(&mut stream) {
                *has |= part == known;
            }
            match *known {
                EXPORT_ALLOC => has.1 = true,
                EXPORT_ABI => has.2 = true,
                EXPORT_INITIALIZE => info.initialize = true,
                EXPORT_JS_LOAD => info.js = true,
                stage => {
                    Stage::from_name(stage).into_iter().for_each(|stage| info.stages.insert(stage))
                }
            }
        }
        info.streams = stream.iter().all(|has| *has);
        if info.streams {
            info.stages.insert(Stage::Reduce);
        } else if !broken && stream.contains(&true) {
            let named = |wanted: bool| {
                let parts = EXPORTS_STREAM.iter().zip(stream);
                let names: Vec<&str> =
                    parts.filter(|(_, has)| *has == wanted).map(|(name, _)| *name).collect();
                names.join(" and ")
            };
            list.add(Problem::PartOfStream { found: named(true), missing: named(false) });
        }
        match self.abi_section.as_deref() {
            None => {}
            Some([1]) => has.2 = true,
            Some(other) => {
                list.add(Problem::AbiVersion { found: format!("{other:?}") });
                has.2 = true;
            }
        }
        if !broken {
            for (found, name) in [(has.0, EXPORT_MEMORY), (has.1, EXPORT_ALLOC)] {
                if !found {
                    list.add(Problem::MissingExport { name });
                }
            }
            if !has.2 {
                list.add(Problem::AbiMissing);
            }
            if info.stages.is_empty() && !stream.contains(&true) {
                list.add(Problem::NoStage);
            }
        }
        info.merges = self.merges;
        info.operators = self.operators;
        info.function_operators = self.function_operators;
        info.functions = self.functions.len() - self.imported_functions;
        info.memory_bytes_min = self.memory_pages_min.unwrap_or(0).saturating_mul(PAGE_BYTES);
        list.limit("memory at the start in bytes", info.memory_bytes_min, memory_bytes_max as u64);
        info
    }

    fn judge_import(&self, module: &str, name: &str, index: Option<u32>, list: &mut List) {
        let known = IMPORTS.iter().find(|(m, n, _)| *m == module && *n == name);
        let (Some((_, _, expected)), Some(index)) = (known, index) else {
            list.add(Problem::ForbiddenImport { module: module.to_owned(), name: name.to_owned() });
            return;
        };
        let found = self.types.get(index as usize).and_then(Option::as_ref);
        if let Some(found) = found
            && !matches(expected, found)
        {
            list.add(Problem::ImportType {
                module: module.to_owned(),
                name: name.to_owned(),
                expected: describe(expected.params, expected.results),
                found: describe_type(found),
            });
        }
    }

    fn function_type(&self, index: u32) -> Option<&FuncType> {
        let kind = self.functions.get(index as usize)?;
        self.type_at(*kind)
    }

    fn type_at(&self, index: u32) -> Option<&FuncType> {
        self.types.get(index as usize)?.as_ref()
    }

    /// What compiling a function takes, as far as it can be told from its operators.
    fn work(&self, body: &FunctionBody<'_>) -> wasmtime::wasmparser::Result<Work> {
        let mut locals: u64 = 0;
        for group in body.get_locals_reader()? {
            locals = locals.saturating_add(u64::from(group?.0));
        }
        let own = u32::try_from(self.imported_functions + self.bodies).ok();
        let returned = own.and_then(|index| self.function_type(index)).map_or(0, results);
        let passed = |kind: Option<&FuncType>| kind.map_or(0, |kind| params(kind) + results(kind));
        let (mut branches, mut operators): (u64, u64) = (0, 0);
        let mut open_loops: u64 = 0;
        let mut open: Vec<Label> = Vec::new();
        let mut bulk: u64 = 0;
        // The length is what is pushed last.
        let mut last_is_short = false;
        for operator in body.get_operators_reader()? {
            let operator = operator?;
            let is_short = matches!(operator, Operator::I32Const { value } if value.unsigned_abs() <= BULK_BYTES_MAX);
            let values = match operator {
                Operator::Block { blockty } | Operator::If { blockty } => {
                    branches += 1;
                    let (given, left) = self.block_values(blockty);
                    open.push(Label { is_loop: false, values: left });
                    HEAVY + given + left
                }
                Operator::Loop { blockty } => {
                    open_loops += 1;
                    branches += open_loops;
                    let (given, left) = self.block_values(blockty);
                    open.push(Label { is_loop: true, values: given });
                    HEAVY + given + left
                }
                Operator::End => {
                    let ended = open.pop();
                    open_loops -= u64::from(ended.is_some_and(|label| label.is_loop));
                    0
                }
                Operator::Else => {
                    branches += 1;
                    0
                }
                Operator::Br { relative_depth } | Operator::BrIf { relative_depth } => {
                    branches += 1;
                    branch_values(&open, relative_depth, returned)
                }
                Operator::BrTable { targets } => {
                    let count = u64::from(targets.len()) + 1;
                    branches += count;
                    count * (1 + branch_values(&open, targets.default(), returned))
                }
                Operator::Return => returned,
                Operator::Call { function_index } | Operator::ReturnCall { function_index } => {
                    HEAVY + passed(self.function_type(function_index))
                }
                Operator::CallIndirect { type_index, .. }
                | Operator::ReturnCallIndirect { type_index, .. } => {
                    HEAVY + passed(self.type_at(type_index))
                }
                Operator::MemoryFill { .. }
                | Operator::MemoryCopy { .. }
                | Operator::MemoryInit { .. } => {
                    bulk += u64::from(!last_is_short);
                    0
                }
                _ => 0,
            };
            last_is_short = is_short;
            operators = operators.saturating_add(1 + values);
        }
        let merges = branches.saturating_mul(locals.saturating_add(1));
        Ok(Work { operators, merges, locals, bulk })
    }

    /// How many values a block is given, and how many it leaves.
    fn block_values(&self, kind: BlockType) -> (u64, u64) {
        match kind {
            BlockType::Empty => (0, 0),
            BlockType::Type(_) => (0, 1),
            BlockType::FuncType(index) => {
                self.type_at(index).map_or((0, 0), |kind| (params(kind), results(kind)))
            }
        }
    }
}

/// A call or a block counts as so many operators more: measured, it takes the compiler as much memory or time.
const HEAVY: u64 = 3;

/// What compiling a function takes.
struct Work {
    /// Operators, and the values that they move.
    operators: u64,
    /// Its branches times its locals. A loop counts once for each loop around it as well, since its locals are kept
    /// apart at every level.
    merges: u64,
    locals: u64,
    /// Operators that move memory of any length.
    bulk: u64,
}

/// A block that is open, and how many values a branch to it takes along.
struct Label {
    is_loop: bool,
    values: u64,
}

fn branch_values(open: &[Label], depth: u32, returned: u64) -> u64 {
    open.iter().rev().nth(depth as usize).map_or(returned, |label| label.values)
}

fn params(kind: &FuncType) -> u64 {
    kind.params().len() as u64
}

fn results(kind: &FuncType) -> u64 {
    kind.results().len() as u64
}

fn matches(expected: &Signature, found: &FuncType) -> bool {
    expected.params == found.params() && expected.results == found.results()
}

fn describe_type(found: &FuncType) -> String {
    describe(found.params(), found.results())
}

fn describe(
    params: &[wasmtime::wasmparser::ValType],
    results: &[wasmtime::wasmparser::ValType],
) -> String {
    let list = |types: &[wasmtime::wasmparser::ValType]| {
        let names: Vec<String> = types.iter().map(ToString::to_string).collect();
        names.join(", ")
    };
    format!("({}) -> ({})", list(params), list(results))
}
