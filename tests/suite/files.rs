//! The repository's own files.

use std::path::{Path, PathBuf};

/// The files below a directory with this extension, in directories whose names are not left out.
pub fn below(directory: &Path, extension: &str, left_out: &dyn Fn(&str) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && !path.is_symlink() && !left_out(name) {
            found.extend(below(&path, extension, left_out));
        } else if path.extension().is_some_and(|other| other == extension) {
            found.push(path);
        }
    }
    found
}
