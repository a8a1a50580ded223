//! What happened, one JSON document a line. The check reads nothing else.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::jobs::Kind;

/// Documents by `_id`, numbers as they compare.
pub type Content = BTreeMap<i64, serde_json::Map<String, serde_json::Value>>;

/// One line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Event {
    /// Milliseconds since the start.
    pub at: u64,
    #[serde(flatten)]
    pub what: What,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum What {
    Run {
        seed: u64,
        deployment: String,
        seconds: u64,
        classes: Vec<String>,
    },
    /// `code` is the exit code of `submit`: 0 is an acknowledgement, after anything else the job may be there.
    Submitted {
        n: i64,
        db: String,
        kind: Kind,
        target: String,
        factor: i64,
        code: i32,
        id: Option<String>,
        said: String,
    },
    CancelAsked {
        n: i64,
        code: i32,
    },
    Removed {
        n: i64,
        code: i32,
    },
    /// A fault that happened so many times.
    Fault {
        class: String,
        times: i64,
        detail: String,
    },
    /// How a job ended, as its document says.
    Ended {
        n: i64,
        id: String,
        state: String,
        began_to_publish: bool,
        counters: BTreeMap<String, i64>,
        error: Option<String>,
    },
    /// A job that had not ended long after the last fault.
    Stuck {
        n: i64,
        what: String,
    },
    Inline {
        n: i64,
        #[serde(with = "pairs")]
        content: Content,
    },
    Content {
        db: String,
        target: String,
        #[serde(with = "pairs")]
        content: Content,
    },
    /// Something of a job that is over.
    Left {
        db: String,
        what: String,
    },
    /// A daemon that ended by itself, or did not end in good order when asked to.
    Daemon {
        name: String,
        what: String,
    },
}

/// Content as a list, for names in JSON are no numbers.
mod pairs {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::Content;

    pub fn serialize<S: Serializer>(content: &Content, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(content.iter())
    }

    pub fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Content, D::Error> {
        type Pair = (i64, serde_json::Map<String, serde_json::Value>);
        Ok(Vec::<Pair>::deserialize(from)?.into_iter().collect())
    }
}

/// The history as it is written.
pub struct History {
    began: Instant,
    path: PathBuf,
    inner: Mutex<(File, Vec<Event>)>,
}

impl History {
    pub fn create(path: &Path) -> Self {
        let file = File::create(path).expect("a history file");
        Self { began: Instant::now(), path: path.to_owned(), inner: Mutex::new((file, Vec::new())) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn add(&self, what: What) {
        let at = u64::try_from(self.began.elapsed().as_millis()).expect("a short run");
        let event = Event { at, what };
        let line = serde_json::to_string(&event).expect("JSON");
        let mut inner = self.inner.lock().expect("a lock");
        writeln!(inner.0, "{line}").expect("written");
        inner.1.push(event);
    }

    pub fn events(&self) -> Vec<Event> {
        self.inner.lock().expect("a lock").1.clone()
    }
}

/// Reads a history again.
pub fn read(path: &Path) -> Vec<Event> {
    let text = std::fs::read_to_string(path).expect("the history");
    text.lines().map(|line| serde_json::from_str(line).expect("an event")).collect()
}
