//! Programs and directories that the program which uses this library names itself.
//!
//! Each has an environment variable. A program that lets its users name them in other ways too says so here, because a
//! process cannot safely change its own environment.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::sync::{Mutex, PoisonError};

static NAMED: Mutex<BTreeMap<&'static str, OsString>> = Mutex::new(BTreeMap::new());

/// Has this value taken from now on in place of the variable's.
pub fn name(variable: &'static str, value: OsString) {
    NAMED.lock().unwrap_or_else(PoisonError::into_inner).insert(variable, value);
}

/// What the variable stands for, unless that is nothing.
#[must_use]
pub fn var_os(variable: impl AsRef<OsStr>) -> Option<OsString> {
    let variable = variable.as_ref();
    let named = NAMED.lock().unwrap_or_else(PoisonError::into_inner);
    let named = variable.to_str().and_then(|variable| named.get(variable)).cloned();
    named.or_else(|| std::env::var_os(variable)).filter(|value| !value.is_empty())
}
