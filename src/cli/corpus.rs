//! Text to try Aviary on: the source of the crates it was just built from, or generated words.

use std::path::{Path, PathBuf};

/// One document of the corpus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// `CRATE/PATH`, or a number.
    pub id: String,
    /// The file's text.
    pub text: String,
}

/// A larger file is data, not text that somebody wrote.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// A generated text's size.
const GENERATED_BYTES: usize = 16 << 10;

/// The crates that this program was built from, as its lock file names them.
const LOCK: &str = include_str!("../../Cargo.lock");

/// Up to `bytes` of source text, in an order that depends on nothing but the files. Empty where
/// cargo keeps no sources.
pub fn sources(bytes: u64) -> Vec<Text> {
    let mut texts = Vec::new();
    let mut left = bytes;
    for (name, root) in crate_directories() {
        let mut files = Vec::new();
        collect_files(&root, &mut files);
        files.sort();
        for file in files {
            let Ok(text) = std::fs::read_to_string(&file) else { continue };
            let size = text.len() as u64;
            if size > left {
                return texts;
            }
            left -= size;
            let path = file.strip_prefix(&root).unwrap_or(&file);
            texts.push(Text { id: format!("{name}/{}", path.display()), text });
        }
    }
    texts
}

/// About `bytes` of generated text, the same every time.
pub fn generated(bytes: u64) -> Vec<Text> {
    const WORDS: [&str; 24] = [
        "the", "of", "and", "to", "in", "a", "is", "that", "for", "it", "as", "was", "with", "be",
        "by", "on", "not", "he", "his", "but", "at", "are", "this", "aviary",
    ];
    let mut state: u64 = 0x2545_f491_4f6c_dd1d;
    let mut next = move || {
        // Xorshift64 (Marsaglia, 2003): any fixed sequence will do.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let count = bytes.div_ceil(GENERATED_BYTES as u64).max(1);
    (0..count)
        .map(|n| {
            let mut text = String::with_capacity(GENERATED_BYTES + 16);
            while text.len() < GENERATED_BYTES {
                let draw = next();
                // The smaller of two draws: words further back are rarer, as in real text.
                let (a, b) = (draw % 24, (draw >> 8) % 24);
                let word = usize::try_from(a.min(b)).ok().and_then(|at| WORDS.get(at));
                text.push_str(word.copied().unwrap_or("aviary"));
                if (draw >> 16) % 50 == 0 {
                    text.push_str(&format!("{}", (draw >> 24) % 1000));
                }
                text.push(' ');
            }
            Text { id: format!("{n:06}"), text }
        })
        .collect()
}

fn crate_directories() -> Vec<(String, PathBuf)> {
    let Some(registry) = cargo_home().map(|home| home.join("registry").join("src")) else {
        return Vec::new();
    };
    let Ok(indexes) = std::fs::read_dir(registry) else { return Vec::new() };
    let mut indexes: Vec<PathBuf> = indexes.flatten().map(|entry| entry.path()).collect();
    indexes.sort();
    let mut found = Vec::new();
    for name in locked_crates() {
        let root = indexes.iter().map(|index| index.join(&name)).find(|path| path.is_dir());
        found.extend(root.map(|root| (name, root)));
    }
    found
}

fn cargo_home() -> Option<PathBuf> {
    std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")))
}

fn locked_crates() -> Vec<String> {
    let value = |line: &str, field: &str| {
        let rest = line.strip_prefix(field)?.strip_prefix(" = \"")?;
        rest.strip_suffix('"').map(str::to_owned)
    };
    let mut crates = Vec::new();
    let mut name = None;
    for line in LOCK.lines() {
        if let Some(found) = value(line, "name") {
            name = Some(found);
        } else if let Some(version) = value(line, "version")
            && let Some(name) = name.take()
        {
            crates.push(format!("{name}-{version}"));
        }
    }
    crates
}

fn collect_files(dir: &Path, files: &mut Vec<PathBuf>) {
    const TEXT: [&str; 10] = ["rs", "md", "toml", "txt", "c", "h", "py", "s", "js", "json"];
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            collect_files(&path, files);
        } else if kind.is_file()
            && path.extension().and_then(|e| e.to_str()).is_some_and(|e| TEXT.contains(&e))
            && entry.metadata().is_ok_and(|m| m.len() <= FILE_BYTES_MAX)
        {
            files.push(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_text_is_the_same_every_time() {
        let texts = generated(100_000);
        assert_eq!(texts, generated(100_000));
        assert!(texts.iter().map(|t| t.text.len()).sum::<usize>() >= 100_000);
    }

    #[test]
    fn the_lock_file_names_its_crates() {
        assert!(locked_crates().iter().any(|name| name.starts_with("mongodb-3.")));
    }
}
