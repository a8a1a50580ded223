//! One run of a compiler.

use std::io::Read as _;
use std::process::{Command, Stdio};

use super::Job;
use crate::config::COMPILER_TEXT_BYTES_MAX;
use crate::error::{Error, Result};

impl Job<'_> {
    /// Runs a compiler in the job's directory. What it complains of is the error, cleaned of what a
    /// person did not write.
    ///
    /// # Errors
    /// [`Error::Refused`] with the compiler's words.
    pub(super) fn run(&self, command: &mut Command, keep: impl Fn(&str) -> bool) -> Result<()> {
        let action = || format!("run {}", self.tool.program.display());
        let mut child = command
            .current_dir(self.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| Error::io(action(), e))?;
        let mut text = Vec::new();
        if let Some(mut stderr) = child.stderr.take() {
            let limit = COMPILER_TEXT_BYTES_MAX as u64;
            stderr
                .by_ref()
                .take(limit)
                .read_to_end(&mut text)
                // The rest is read too, or the compiler would wait for ever to write it.
                .and_then(|_| std::io::copy(&mut stderr, &mut std::io::sink()))
                .map_err(|e| Error::io(action(), e))?;
        }
        let status = child.wait().map_err(|e| Error::io(action(), e))?;
        if status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&text);
        // Some compilers name files by where they were compiled, which is no place of the user's.
        let here = format!("{}/", self.dir.display());
        let text = text.replace(&here, "");
        let text = plain(&text);
        let all: Vec<&str> =
            text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        let mut lines: Vec<&str> = all
            .iter()
            .filter(|line| keep(line))
            .map(|line| line.strip_prefix("./").unwrap_or(line))
            .collect();
        if lines.is_empty() {
            lines = all;
        }
        let why = if lines.is_empty() {
            format!("{} ended with {status} and said nothing", self.tool.name)
        } else {
            lines.join("\n")
        };
        Err(Error::refused(
            format!("{} does not compile ({}):\n{why}", self.sources.names(), self.tool.name),
            "",
        ))
    }
}

/// Removes what colours text on a terminal, which not every compiler can be told to leave out.
fn plain(text: &str) -> String {
    let mut parts = text.split('\u{1b}');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.push_str(part.split_once('m').map_or(part, |(_, rest)| rest));
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_left_out() {
        assert_eq!(plain("\u{1b}[91mERROR\u{1b}[0m here"), "ERROR here");
        assert_eq!(plain("no colours"), "no colours");
    }
}
