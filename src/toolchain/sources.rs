//! The files that a person gave, read and checked before anything is compiled.

use std::path::{Path, PathBuf};

use super::{Job, Language, scan};
use crate::config::SOURCE_BYTES_MAX;
use crate::error::{Error, Result};
use crate::files;

/// One source file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Its name, without its directory.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// The files that make up one module.
#[derive(Debug)]
pub(super) struct Sources {
    pub(super) language: Language,
    pub(super) files: Vec<SourceFile>,
    /// Where the first one lies.
    pub(super) dir: PathBuf,
}

/// A function that a file defines at its top level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Defined<'a> {
    pub(super) file: &'a SourceFile,
    pub(super) line: usize,
}

impl Sources {
    pub(super) fn read(paths: &[PathBuf]) -> Result<Self> {
        let Some((language, first)) =
            paths.iter().find_map(|path| Some((Language::of(path)?, path)))
        else {
            let shown: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
            return Err(Error::refused(format!("{} is no source file", shown.join(", ")), ""));
        };
        let mut files: Vec<SourceFile> = Vec::new();
        for path in paths {
            if Language::of(path) != Some(language) && !language.is_header(path) {
                return Err(Error::refused(
                    format!(
                        "{} and {} are of different languages",
                        first.display(),
                        path.display()
                    ),
                    "one module is made of files of one language; give the others by themselves",
                ));
            }
            let file = read(path)?;
            if files.iter().any(|other| other.name == file.name) {
                return Err(Error::refused(
                    format!("two files are called {}", file.name),
                    "rename one of them: a module's files lie in one directory",
                ));
            }
            files.push(file);
        }
        let dir = first.parent().map(Path::to_path_buf).unwrap_or_default();
        Ok(Self { language, files, dir })
    }

    /// Those that are compiled, which headers are not.
    pub(super) fn compiled(&self) -> impl Iterator<Item = &SourceFile> {
        self.files.iter().filter(|file| Language::of(Path::new(&file.name)).is_some())
    }

    /// The names, for people.
    pub(super) fn names(&self) -> String {
        let names: Vec<&str> = self.files.iter().map(|file| file.name.as_str()).collect();
        names.join(", ")
    }

    /// Where a function is defined. Defined twice, the compiler says so.
    pub(super) fn defined(&self, keyword: &str, name: &str) -> Option<Defined<'_>> {
        self.compiled().find_map(|file| {
            let functions = scan::functions(self.language, &file.text, keyword);
            let found = functions.into_iter().find(|function| function.name == name)?;
            Some(Defined { file, line: found.line })
        })
    }
}

impl Job<'_> {
    /// Writes the files to where they are compiled.
    pub(super) fn place(&self, dir: &Path) -> Result<()> {
        for file in &self.sources.files {
            write(&dir.join(&file.name), &file.text)?;
        }
        Ok(())
    }
}

/// Writes one file, with the directories that it is in.
pub(super) fn write(path: &Path, text: &str) -> Result<()> {
    let parent = path.parent().unwrap_or(path);
    std::fs::create_dir_all(parent)
        .and_then(|()| std::fs::write(path, text))
        .map_err(|e| Error::io(format!("write {}", path.display()), e))
}

fn read(path: &Path) -> Result<SourceFile> {
    let shown = path.display();
    let text = files::read_text(path, SOURCE_BYTES_MAX)?;
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    // The names of ours, and names that compilers skip or take for something else than a file.
    let unusable = name.is_empty()
        || name.starts_with(['-', '.', '_', '@'])
        || name.starts_with("aviary")
        || name.ends_with("_test.go")
        || name.chars().any(|c| c.is_control() || matches!(c, '"' | '\\' | '\'' | '/'));
    if unusable {
        return Err(Error::refused(
            format!("{shown} cannot be compiled under this name"),
            "give it a plain name that does not begin with aviary, like map or word_count",
        ));
    }
    Ok(SourceFile { name, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(files: &[(&str, &[u8])]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = files
            .iter()
            .map(|(name, bytes)| {
                let path = dir.path().join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(&path, bytes).unwrap();
                path
            })
            .collect();
        Sources::read(&paths).unwrap_err().to_string()
    }

    #[test]
    fn files_that_cannot_make_one_module_are_refused() {
        assert!(refusal(&[("a.go", b""), ("b.rs", b"")]).contains("different languages"));
        assert!(refusal(&[("a.go", b""), ("x/a.go", b"")]).contains("two files are called a.go"));
        assert!(refusal(&[("a.go", b"\xff")]).contains("not text in UTF-8"));
        assert!(refusal(&[("a_test.go", b"")]).contains("under this name"));
        assert!(refusal(&[("aviary_exports.go", b"")]).contains("under this name"));
        assert!(refusal(&[("a\"b.c", b"")]).contains("under this name"));
        let large = vec![b' '; SOURCE_BYTES_MAX + 1];
        assert!(refusal(&[("a.zig", large.as_slice())]).contains("at most"));
    }

    #[test]
    fn a_header_lies_beside_what_is_compiled() {
        let dir = tempfile::tempdir().unwrap();
        let paths = ["words.h", "map.c"].map(|name| dir.path().join(name));
        for path in &paths {
            std::fs::write(path, "").unwrap();
        }
        let sources = Sources::read(&paths).unwrap();
        assert_eq!(sources.language, Language::C);
        assert_eq!(
            sources.compiled().map(|file| file.name.as_str()).collect::<Vec<_>>(),
            ["map.c"]
        );
        assert_eq!(sources.names(), "words.h, map.c");
    }
}
