//! From a path, a name or a digest to a function in the catalogue.

mod given;
pub mod script;
mod source;
mod wished;

use std::path::Path;

use crate::config;
use crate::error::{Error, Result};
use crate::job::{FunctionRef, Reducer};
use crate::wasm::{InvalidModule, Stage};
pub use given::Given;
pub use source::{CheckedFor, Source};
pub use wished::wished;

/// A function that may be in the catalogue.
pub(crate) fn named(name: &str) -> FunctionRef {
    FunctionRef { digest: String::new(), language: String::new(), name: Some(name.to_owned()) }
}

fn no_stage(shown: &str, stage: Stage, stages: &[String]) -> Error {
    Error::refused(
        format!("function {shown} does not export {stage}"),
        format!("it has {}", stages.join(", ")),
    )
}

/// Nobody knows a function of this name.
pub(crate) fn not_found(text: &str) -> Error {
    Error::NotFound {
        what: format!("function {text}"),
        hint: "it is neither a file here nor a name or digest in the catalogue".into(),
    }
}

/// Makes sure that a function can be called so: that the name cannot be taken for a built-in, a version, a
/// digest or a path.
///
/// # Errors
/// [`Error::Usage`].
pub fn check_name(name: &str) -> Result<()> {
    const DIGEST_DIGITS: usize = 64;
    let refused = |why: &str| Err(Error::Usage(format!("{name:?} cannot be a name: {why}")));
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    if name.is_empty() || name.len() > config::NAME_BYTES_MAX {
        return refused(&format!("it must have 1 to {} bytes", config::NAME_BYTES_MAX));
    }
    if name.starts_with(['_', '-', '.']) || !name.chars().all(is_plain) {
        return refused("use letters, digits, - _ . and :, and begin with a letter or digit");
    }
    if name.len() == DIGEST_DIGITS && name.bytes().all(|b| b.is_ascii_hexdigit()) {
        return refused("it looks like a digest");
    }
    Ok(())
}

/// Whether an argument of `--reduce` names a built-in.
///
/// # Errors
/// [`Error::Refused`] for a word that begins with an underscore and is none.
pub fn builtin(text: &str) -> Result<Option<Reducer>> {
    if !text.starts_with('_') || Path::new(text).is_file() {
        return Ok(None);
    }
    match text.parse::<crate::shuffle::builtin::Builtin>() {
        Ok(_) => Ok(Some(Reducer::Builtin(text.to_owned()))),
        Err(_) => Err(Error::refused(
            format!("{text} is no built-in reduce"),
            "use _sum, _count, _min, _max, _avg or _stats",
        )),
    }
}

/// A refusal that lists everything that is wrong with a module.
fn unusable(shown: &str, invalid: &InvalidModule) -> Error {
    let problems: Vec<String> = invalid.problems.iter().map(ToString::to_string).collect();
    let problems = problems.join("; ");
    let hint = match problems.contains("wasi_snapshot_preview1.") {
        true => {
            "a function has no files, no network, no processes and no environment, so leave out what asks for them \
                 (os.ReadFile, std::fs, fopen, sockets); give data with --scope"
        }
        false => "",
    };
    Error::refused(format!("{shown} is not a usable function: {problems}"), hint)
}

fn check_size(shown: &str, bytes: usize) -> Result<()> {
    if bytes <= config::FUNCTION_BYTES_MAX {
        return Ok(());
    }
    Err(Error::refused(
        format!("{shown} has {bytes} bytes"),
        format!("a function may have at most {} bytes", config::FUNCTION_BYTES_MAX),
    ))
}

#[cfg(test)]
mod tests {
    use super::check_name;

    #[test]
    fn a_name_is_no_path_version_digest_or_builtin() {
        let digest = "0123456789abcdef".repeat(4);
        let long = "n".repeat(129);
        for bad in ["", "_sum", "a@2", "a/b", "-x", ".hidden", "a b", "a\n", &digest, &long] {
            assert_eq!(check_name(bad).unwrap_err().exit_code(), 2, "{bad:?}");
        }
        for good in ["word-count", "wc.2", "team:wc", "zähler", "abcdef"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
    }
}
