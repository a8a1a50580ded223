//! Files that people name: read no further than they may be long, for a device or a pipe may never end.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result};

/// Reads a file of at most so many bytes.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Usage`] for a directory, [`Error::Refused`] when it is longer, [`Error::Io`].
pub fn read(path: &Path, bytes_max: usize) -> Result<Vec<u8>> {
    let file = File::open(path).map_err(|e| Error::unreadable(path, e))?;
    read_from(file, &path.display().to_string(), bytes_max)
}

/// Reads a file of text.
///
/// # Errors
/// Those of [`read`]; [`Error::Usage`] when it is not UTF-8.
pub fn read_text(path: &Path, bytes_max: usize) -> Result<String> {
    text(read(path, bytes_max)?, &path.display().to_string())
}

/// Reads text from what is open already; `shown` is what people call it.
///
/// # Errors
/// Those of [`read_text`].
pub fn read_text_from(from: impl Read, shown: &str, bytes_max: usize) -> Result<String> {
    text(read_from(from, shown, bytes_max)?, shown)
}

fn read_from(from: impl Read, shown: &str, bytes_max: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    from.take(limit).read_to_end(&mut bytes).map_err(|e| Error::unreadable(Path::new(shown), e))?;
    if bytes.len() > bytes_max {
        return Err(Error::refused(
            format!("{shown} is too long"),
            format!("it may have at most {bytes_max} bytes"),
        ));
    }
    Ok(bytes)
}

/// Text of bytes that were read from `shown`.
///
/// # Errors
/// [`Error::Usage`] when they are not UTF-8.
pub fn text(bytes: Vec<u8>, shown: &str) -> Result<String> {
    let no_text = std::io::Error::from(std::io::ErrorKind::InvalidData);
    String::from_utf8(bytes).map_err(|_| Error::unreadable(Path::new(shown), no_text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_may_be_as_long_as_it_may_be_and_a_device_does_not_go_on_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "12345").unwrap();
        assert_eq!(read_text(&file, 5).unwrap(), "12345");
        for (path, most) in [(file.as_path(), 4), (Path::new("/dev/zero"), 1 << 20)] {
            let error = read(path, most).unwrap_err();
            let told = format!("{error}");
            assert!(told.contains("is too long"), "{told}");
        }
        std::fs::write(&file, b"\xff").unwrap();
        assert!(matches!(read_text(&file, 5).unwrap_err(), Error::Usage(_)));
        assert!(matches!(read(dir.path(), 5).unwrap_err(), Error::Usage(_)));
        assert!(matches!(read(&dir.path().join("none"), 5).unwrap_err(), Error::NotFound { .. }));
    }
}
