//! What a command is called: its name, its collection and the shape of what it asks for.
//!
//! Two runs of one job do not send the same commands in the same order: polls and renewals go by the
//! clock. So a point is not "the 17th command" but "the second command of this label", which is the
//! same step of the job in every run.

use bson::{Bson, Document};

/// Commands that keep a connection, a topology or a session, and nothing of a job.
const UPKEEP: [&str; 8] = [
    "hello",
    "ismaster",
    "isMaster",
    "ping",
    "endSessions",
    "refreshSessions",
    "buildInfo",
    "saslStart",
];
/// So much of a label tells commands apart.
const DEPTH_MAX: usize = 4;

/// A request as it passes.
pub struct Request {
    /// By which its reply can be told.
    pub id: i32,
    body: Document,
    /// The first document of a sequence that follows the body.
    first: Option<Document>,
}

impl Request {
    /// Reads a message; `None` when it is no command.
    pub fn parse(message: &[u8]) -> Option<Self> {
        const OP_MSG: i32 = 2013;
        let int = |at: usize| {
            Some(i32::from_le_bytes(message.get(at..at + 4)?.try_into().expect("four bytes")))
        };
        if int(12)? != OP_MSG {
            return None;
        }
        let mut rest = message.get(20..)?;
        let mut request = Self { id: int(4)?, body: Document::new(), first: None };
        // A checksum of four bytes may be at the end; the driver sends none.
        while rest.len() > 5 {
            let (kind, section) = rest.split_first()?;
            let length = i32::from_le_bytes(section.get(..4)?.try_into().expect("four bytes"));
            let (section, after) = section.split_at_checked(usize::try_from(length).ok()?)?;
            if *kind == 0 {
                request.body = Document::from_reader(section).ok()?;
            } else {
                let name = section.get(4..)?.iter().position(|byte| *byte == 0)?;
                request.first = Document::from_reader(section.get(4 + name + 1..)?).ok();
            }
            rest = after;
        }
        Some(request)
    }

    /// What the command is called, or `None` for one that is no point: upkeep, a wait for a change
    /// stream's next event, what functions logged.
    pub fn label(&self) -> Option<String> {
        let (name, argument) = self.body.iter().next()?;
        if UPKEEP.contains(&name.as_str()) {
            return None;
        }
        if name == "getMore" {
            let awaits = self.body.contains_key("maxTimeMS");
            let of = self.body.get_str("collection").unwrap_or_default();
            return (!awaits).then(|| format!("getMore {}", general(of)));
        }
        let first = self.first.as_ref().or_else(|| first_of(&self.body, "documents"));
        if name == "insert" {
            let kind = first.and_then(|first| first.get_str("kind").ok()).unwrap_or_default();
            if kind == "log" {
                return None;
            }
            return Some(
                format!("insert {} {kind}", general(argument.as_str()?)).trim().to_owned(),
            );
        }
        let mut label = match argument {
            Bson::String(collection) => format!("{name} {}", general(collection)),
            _ => name.clone(),
        };
        for part in
            ["filter", "query", "q", "update", "u", "pipeline", "updates", "deletes", "to", "key"]
        {
            if let Some(value) = self.body.get(part) {
                label.push(' ');
                label.push_str(&shape(part, value, 0));
            }
        }
        if let Some(first) = first {
            label.push_str(&shape("first", &Bson::Document(first.clone()), 0));
        }
        Some(label)
    }
}

fn first_of<'a>(body: &'a Document, field: &str) -> Option<&'a Document> {
    body.get_array(field).ok()?.first()?.as_document()
}

/// A name without what differs from run to run: ids and tokens.
fn general(name: &str) -> String {
    // Commands to `admin` name the database, which is each run's own.
    let name = match name.split_once('.') {
        Some((db, name)) if db.starts_with("case") => name,
        _ => name,
    };
    name.split('-')
        .map(|part| if is_random(part) { "*" } else { part })
        .collect::<Vec<_>>()
        .join("-")
}

fn is_random(part: &str) -> bool {
    part.len() >= 16 && part.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The fields of a value, and of its fields; only words of the protocol are told in full.
fn shape(field: &str, value: &Bson, depth: usize) -> String {
    const WORDS: [&str; 6] = ["kind", "state", "code", "outcome", "to", "renaming"];
    match value {
        Bson::Document(_) | Bson::Array(_) if depth >= DEPTH_MAX => "…".to_owned(),
        Bson::Document(fields) => {
            let inner: Vec<String> = fields
                .iter()
                .map(|(name, value)| match shape(name, value, depth + 1) {
                    inner if inner.is_empty() => general(name),
                    inner => format!("{}:{inner}", general(name)),
                })
                .collect();
            format!("{{{}}}", inner.join(","))
        }
        Bson::Array(items) => {
            let inner: Vec<String> = items
                .iter()
                .take(4)
                .map(|item| shape(field, item, depth + 1))
                .filter(|inner| !inner.is_empty())
                .collect();
            if inner.is_empty() { String::new() } else { format!("[{}]", inner.join(",")) }
        }
        Bson::String(text) if WORDS.contains(&field) && text.len() < 24 => {
            text.split('.').map(general).collect::<Vec<_>>().join(".")
        }
        _ => String::new(),
    }
}

/// A label in a few characters, to name it on a command line.
pub fn digest(label: &str) -> String {
    // FNV-1a: the same on every machine and with every compiler.
    let hash = label.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{:06x}", hash & 0xff_ffff)
}
