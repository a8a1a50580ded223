//! What was seen of a module, section by section, and what is wrong with it.

use wasmtime::wasmparser::{
    CompositeInnerType, ElementItems, Encoding, ExternalKind, FuncType, Payload, TypeRef,
};

use super::{List, ModuleInfo, PAGE_BYTES};
use crate::wasm::abi::{
    EXPORT_ABI, EXPORT_ABI_PREFIX, EXPORT_ALLOC, EXPORT_INITIALIZE, EXPORT_JS_LOAD, EXPORT_MEMORY,
    EXPORTS, EXPORTS_STREAM, IMPORTS, SECTION_ABI, Signature, Stage,
};
use crate::wasm::limits::{
    DATA_SEGMENTS_MAX, ELEMENT_SEGMENTS_MAX, EXPORTS_MAX, FUNCTION_BULK_OPERATORS_MAX,
    FUNCTION_BYTES_MAX, FUNCTION_LOCALS_MAX, FUNCTION_OPERATORS_MAX, FUNCTIONS_MAX, GLOBALS_MAX,
    IMPORTS_MAX, TABLE_ELEMENTS_MAX, TABLES_MAX, TYPES_MAX,
};
use crate::wasm::problem::Problem;

/// What was read of a module.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) types: Vec<Option<FuncType>>,
    /// The type of each function, imported ones first.
    pub(super) functions: Vec<u32>,
    pub(super) imported_functions: usize,
    pub(super) imports: Vec<(String, String, Option<u32>)>,
    pub(super) exports: Vec<(String, ExternalKind, u32)>,
    pub(super) memory_pages_min: Option<u64>,
    /// Branches times locals, of all functions.
    pub(super) merges: u64,
    pub(super) operators: u64,
    /// Those of the largest function.
    pub(super) function_operators: u64,
    pub(super) locals: u64,
    pub(super) elements: u64,
    /// Bodies read so far.
    pub(super) bodies: usize,
    pub(super) abi_section: Option<Vec<u8>>,
    /// Whether the module is a part of this program.
    pub(super) own: bool,
}

impl Seen {
    /// Reads one section; false if nothing after it is worth reading.
    pub(super) fn read(
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
    pub(super) fn judge(
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

    pub(super) fn judge_import(
        &self,
        module: &str,
        name: &str,
        index: Option<u32>,
        list: &mut List,
    ) {
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

    pub(super) fn function_type(&self, index: u32) -> Option<&FuncType> {
        let kind = self.functions.get(index as usize)?;
        self.type_at(*kind)
    }

    pub(super) fn type_at(&self, index: u32) -> Option<&FuncType> {
        self.types.get(index as usize)?.as_ref()
    }
}

pub(super) fn matches(expected: &Signature, found: &FuncType) -> bool {
    expected.params == found.params() && expected.results == found.results()
}

pub(super) fn describe_type(found: &FuncType) -> String {
    describe(found.params(), found.results())
}

pub(super) fn describe(
    params: &[wasmtime::wasmparser::ValType],
    results: &[wasmtime::wasmparser::ValType],
) -> String {
    let list = |types: &[wasmtime::wasmparser::ValType]| {
        let names: Vec<String> = types.iter().map(ToString::to_string).collect();
        names.join(", ")
    };
    format!("({}) -> ({})", list(params), list(results))
}
