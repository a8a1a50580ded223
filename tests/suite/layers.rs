//! Modules import only what lies below them: `ARCHITECTURE.md` draws it, and this list says it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::common::root;
use crate::files;

/// From the bottom to the top: each module, and what it may import. What is not here imports nothing of ours.
const LAYERS: &[(&str, &[&str])] = &[
    ("ids", &[]),
    ("halt", &[]),
    ("planted", &[]),
    ("error", &["ids"]),
    ("config", &[]),
    ("settings", &["config", "error"]),
    ("dirs", &["error"]),
    ("files", &["error"]),
    ("value", &["config"]),
    ("exact", &[]),
    ("terminal", &[]),
    ("telemetry", &["error", "terminal"]),
    ("shuffle", &["value"]),
    ("wasm", &["config", "terminal"]),
    ("task", &["config", "error", "exact", "ids"]),
    ("job", &["config", "error", "exact", "ids", "task"]),
    ("protocol", &["config", "ids", "job", "planted", "task"]),
    ("request", &["config", "error", "exact", "ids", "job", "task", "value"]),
    ("toolchain", &["config", "dirs", "error", "files"]),
    (
        "store",
        &[
            "config", "error", "exact", "ids", "job", "planted", "protocol", "request", "settings",
            "shuffle", "task", "value",
        ],
    ),
    (
        "exec",
        &["config", "error", "ids", "job", "shuffle", "store", "task", "terminal", "value", "wasm"],
    ),
    (
        "functions",
        &[
            "config",
            "error",
            "exec",
            "files",
            "job",
            "request",
            "shuffle",
            "store",
            "toolchain",
            "value",
            "wasm",
        ],
    ),
    (
        "coordinator",
        &[
            "config",
            "error",
            "functions",
            "halt",
            "ids",
            "job",
            "protocol",
            "request",
            "settings",
            "store",
            "task",
            "telemetry",
            "value",
            "wasm",
        ],
    ),
    (
        "worker",
        &[
            "config",
            "error",
            "exec",
            "halt",
            "ids",
            "job",
            "planted",
            "protocol",
            "settings",
            "shuffle",
            "store",
            "task",
            "telemetry",
            "value",
            "wasm",
        ],
    ),
    (
        "cli",
        &[
            "config",
            "coordinator",
            "dirs",
            "error",
            "exact",
            "exec",
            "files",
            "functions",
            "ids",
            "job",
            "protocol",
            "request",
            "settings",
            "store",
            "task",
            "telemetry",
            "terminal",
            "toolchain",
            "value",
            "wasm",
            "worker",
        ],
    ),
];

fn sources(src: &Path) -> Vec<PathBuf> {
    files::below(src, "rs", &|name| name == "tests")
}

/// Which modules each one names, and where first. Comments do not count: they may point anywhere.
fn imports() -> BTreeMap<(String, String), String> {
    let src = root().join("src");
    let mut imports = BTreeMap::new();
    for file in sources(&src) {
        let relative = file.strip_prefix(&src).unwrap();
        let module = relative.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        let text = std::fs::read_to_string(&file).unwrap();
        for (n, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap();
            assert!(!code.contains("crate::{"), "{relative:?}: one module a line, for this test");
            for named in code.split("crate::").skip(1) {
                let end = named.find(|c: char| !c.is_alphanumeric() && c != '_');
                let named = &named[..end.unwrap_or(named.len())];
                let is_module = !named.is_empty()
                    && (src.join(named).exists() || src.join(format!("{named}.rs")).exists());
                if is_module && named != module {
                    imports
                        .entry((module.to_owned(), named.to_owned()))
                        .or_insert_with(|| format!("{}:{}", relative.display(), n + 1));
                }
            }
        }
    }
    imports
}

#[test]
fn imports_point_down_only() {
    // The list itself has no circle: each names only what stands above it there.
    let mut below = BTreeSet::new();
    for (module, may) in LAYERS {
        for import in *may {
            assert!(below.contains(import), "{module} may import {import}, which is not below it");
        }
        assert!(below.insert(*module), "{module} is there twice");
    }
    let imports = imports();
    assert!(imports.len() > 80, "{imports:?}");
    let allowed = |module: &str, import: &str| {
        LAYERS.iter().any(|(known, may)| *known == module && may.contains(&import))
    };
    let wrong: Vec<String> = imports
        .iter()
        .filter(|((module, import), _)| module != "lib" && !allowed(module, import))
        .map(|((module, import), at)| format!("{module} imports {import} at src/{at}"))
        .collect();
    assert_eq!(wrong, Vec::<String>::new());
    // What no source needs is not allowed either.
    let unused: Vec<String> = LAYERS
        .iter()
        .flat_map(|(module, may)| may.iter().map(move |import| (module, import)))
        .filter(|(module, import)| {
            !imports.contains_key(&((**module).to_owned(), (**import).to_owned()))
        })
        .map(|(module, import)| format!("{module} may import {import}, and does not"))
        .collect();
    assert_eq!(unused, Vec::<String>::new());
}

#[test]
fn only_the_store_imports_the_driver() {
    let files = sources(&root().join("src"));
    let outside: Vec<_> = files
        .iter()
        .filter(|file| !file.starts_with(root().join("src/store")))
        .filter(|file| {
            let text = std::fs::read_to_string(file).unwrap();
            text.lines().any(|line| line.split("//").next().unwrap().contains("mongodb::"))
        })
        .collect();
    assert_eq!(outside, Vec::<&PathBuf>::new());
}
