//! Telling a person what takes long, without deciding how it is shown.

use std::fmt;
use std::sync::Arc;

/// Receives a line for each step that may take more than a moment. Cheap to clone.
#[derive(Clone)]
pub struct Progress(Arc<dyn Fn(&str) + Send + Sync>);

impl Progress {
    /// Calls `report` with each line (no line end).
    pub fn new(report: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(report))
    }

    /// Says nothing.
    #[must_use]
    pub fn silent() -> Self {
        Self::new(|_| {})
    }

    /// Reports one step.
    pub fn say(&self, line: &str) {
        (self.0)(line);
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::silent()
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Progress")
    }
}
