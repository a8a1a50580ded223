//! What can be wrong with a module, each with what a person needs to mend it.

use std::fmt;

use super::abi::{ABI_VERSION, EXPORT_ABI, SECTION_ABI};

/// One thing that is wrong with a module.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The text does not parse as WebAssembly text.
    #[error("it is neither a WebAssembly module nor WebAssembly text: {message}")]
    Text {
        /// What the parser says, with the place.
        message: String,
    },
    /// The bytes are not a valid module, or use what guests may not.
    #[error("it is not valid: {message} (at byte {offset})")]
    Invalid {
        /// What the validator says.
        message: String,
        /// Where, in bytes from the start.
        offset: usize,
    },
    /// It is a component.
    #[error("it is a component; a core module is needed")]
    Component,
    /// Something is larger or more than it may be.
    #[error("{what}: {found} exceeds the limit of {max}")]
    Limit {
        /// What is counted, with its unit.
        what: &'static str,
        /// How much there is.
        found: u64,
        /// How much there may be.
        max: u64,
    },
    /// It imports what guests are not given.
    #[error("it imports {module}.{name}, which guests are not given")]
    ForbiddenImport {
        /// The import's module.
        module: String,
        /// The import's name.
        name: String,
    },
    /// It imports a function with a type that it does not have.
    #[error("it imports {module}.{name} as {found}, which is {expected}")]
    ImportType {
        /// The import's module.
        module: String,
        /// The import's name.
        name: String,
        /// The type it has.
        expected: String,
        /// The type it was imported with.
        found: String,
    },
    /// It lacks an export that every guest needs.
    #[error("it does not export {name}")]
    MissingExport {
        /// The export.
        name: &'static str,
    },
    /// An export has another type than the contract says.
    #[error("it exports {name} as {found}, which must be {expected}")]
    ExportType {
        /// The export.
        name: String,
        /// The type it must have.
        expected: String,
        /// The type it has.
        found: String,
    },
    /// It exports no stage.
    #[error("it exports none of map, combine, reduce, finalize")]
    NoStage,
    /// It has only a part of a streaming reduce.
    #[error("it exports {found} but not {missing}; a reduce that streams has all three")]
    PartOfStream {
        /// The exports that are there.
        found: String,
        /// Those that are missing.
        missing: String,
    },
    /// It does not say which version of the contract it follows.
    #[error("it names no version of the contract: export {EXPORT_ABI} or a section {SECTION_ABI}")]
    AbiMissing,
    /// It follows a version of the contract that this host does not know.
    #[error("it follows version {found} of the contract; this is version {ABI_VERSION}")]
    AbiVersion {
        /// The version that it names.
        found: String,
    },
}

/// A module that is refused, with everything that is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidModule {
    /// What is wrong; never empty.
    pub problems: Vec<Problem>,
}

impl fmt::Display for InvalidModule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("accept the module: ")?;
        for (index, problem) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for InvalidModule {}
