//! A `mapReduce` command, as given to MongoDB, in terms of our flags.
//!
//! The text is extended JSON, or what a person would type into mongosh: that is JavaScript, so it is
//! evaluated where users' functions run, in the sandbox, by the interpreter that has the shell's types.

use std::io::Read as _;
use std::path::Path;

use bson::{Bson, Document, RawDocumentBuf, doc};

use super::args::JobFunctions;
use super::output::exact;
use crate::error::{Error, Result};
use crate::terminal::tell;
use crate::wasm::{
    self, GuestError, Host, Instance, InstanceOptions, Level, Limits, Script, Sink, SinkError,
    Stage,
};

/// Evaluates the text; see there.
const EVALUATE: &str = include_str!("command.js");

/// How long the text may take.
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// What a command says beyond what makes up a job's functions and input.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Rest {
    /// As for `--out`.
    pub(super) out: String,
    /// As for `--out-db`.
    pub(super) out_db: Option<String>,
    /// As for `--tag`.
    pub(super) tag: Option<String>,
    /// What is not done as the command says, for a person to read.
    pub(super) notes: Vec<String>,
}

/// Reads the command that `--command` names and fills the flags it stands for.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Usage`] for what is no command that a server would take,
/// [`Error::Refused`] for what cannot be done here.
pub(super) async fn apply(host: &Host, given: &str, job: &mut JobFunctions) -> Result<Rest> {
    let given = read(given)?;
    let (db, command) = match serde_json::from_str::<serde_json::Value>(&given) {
        Ok(json) => (None, document(json)?),
        Err(_) => {
            let host = host.clone();
            tokio::task::spawn_blocking(move || evaluate(&host, &given))
                .await
                .map_err(|e| Error::Internal(format!("evaluating the command panicked: {e}")))??
        }
    };
    let mut command = command;
    let named = match command.remove("$db") {
        Some(name) => Some(text("$db", name)?),
        None => db,
    };
    let mut rest = translate(command, job)?;
    if named.is_some() && job.input_db.is_none() {
        // Unless it says otherwise, a command writes to the database that it reads.
        if rest.out != "inline" && rest.out_db.is_none() {
            rest.out_db.clone_from(&named);
        }
        job.input_db = named;
    }
    Ok(rest)
}

/// The text itself, of a file, or of standard input.
fn read(given: &str) -> Result<String> {
    let path = Path::new(given);
    if given == "-" {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .map_err(|e| Error::io("read standard input", e))?;
        return Ok(text);
    }
    if given.contains(['{', '(']) && !path.is_file() {
        return Ok(given.to_owned());
    }
    std::fs::read_to_string(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::NotFound {
            what: format!("file {given}"),
            hint: "--command takes a file, - for standard input, or the command itself".into(),
        },
        _ => Error::io(format!("read {given}"), e),
    })
}

fn document(json: serde_json::Value) -> Result<Document> {
    match Bson::try_from(json) {
        Ok(Bson::Document(command)) => Ok(command),
        Ok(_) => Err(bad("it is no document")),
        Err(e) => Err(bad(&e.to_string())),
    }
}

fn bad(why: &str) -> Error {
    Error::Usage(format!("--command is not a mapReduce command: {why}"))
}

/// Takes what the text sends.
#[derive(Default)]
struct Sent {
    db: Option<Bson>,
    command: Option<Bson>,
}

impl Sink for Sent {
    fn emit(&mut self, key: &[u8], value: &[u8]) -> std::result::Result<(), SinkError> {
        let value_of = |raw: &[u8]| -> std::result::Result<Bson, SinkError> {
            Ok(crate::shuffle::RawVal::parse(raw)?.to_bson()?)
        };
        (self.db, self.command) = (Some(value_of(key)?), Some(value_of(value)?));
        Ok(())
    }
    fn count(&mut self, _name: &str, _delta: i64) {}
    fn log(&mut self, _level: Level, text: &str) {
        tell!("{text}");
    }
}

/// Runs the text, and returns the database it names, if any, and the command it sends.
fn evaluate(host: &Host, text: &str) -> Result<(Option<String>, Document)> {
    let module = host
        .load(wasm::js_guest_digest(), wasm::JS_GUEST)
        .map_err(|e| Error::Internal(e.to_string()))?;
    let internal = |e: bson::error::Error| Error::Internal(e.to_string());
    let options = InstanceOptions {
        limits: Limits { call_timeout: TIMEOUT, ..Limits::default() },
        now_ms: bson::DateTime::now().timestamp_millis(),
        seed: rand::random(),
        scope: Document::new().to_vec().map_err(internal)?,
        script: Some(Script { map: Some(EVALUATE.to_owned()), ..Script::default() }),
        ..InstanceOptions::default()
    };
    let input = RawDocumentBuf::try_from(&doc! { "text": text }).map_err(internal)?;
    let mut instance = Instance::new(&module, options, Sent::default())
        .map_err(|e| Error::Internal(e.to_string()))?;
    instance.call(Stage::Map, input.as_bytes()).map_err(|e| match e {
        GuestError::Failed { message, .. } => bad(&message),
        other => bad(&other.to_string()),
    })?;
    match instance.into_sink() {
        Sent { db: Some(db), command: Some(Bson::Document(command)) } => {
            Ok((db.as_str().map(str::to_owned), command))
        }
        _ => Err(bad("it is no document")),
    }
}

/// Fills the flags from a command document.
fn translate(command: Document, job: &mut JobFunctions) -> Result<Rest> {
    let mut rest = Rest::default();
    let mut scope = Document::new();
    let mut own_scopes = Document::new();
    let (mut map, mut reduce, mut out) = (None, None, None);
    for (name, value) in command {
        // The servers take null for a field that is not there.
        if matches!(value, Bson::Null | Bson::Undefined) && name != "out" {
            continue;
        }
        match name.as_str() {
            "mapReduce" | "mapreduce" => job.collection = text(&name, value)?,
            "map" => map = Some(function(&name, value, &mut own_scopes)?),
            "reduce" => reduce = Some(function(&name, value, &mut own_scopes)?),
            "finalize" => job.finalize = Some(function(&name, value, &mut own_scopes)?),
            "out" => out = Some(value),
            "query" => job.query = exact(sub_document(&name, value)?),
            "sort" => {
                let sort = sub_document(&name, value)?;
                job.sort = (!sort.is_empty()).then(|| exact(sort));
            }
            "collation" => {
                let collation = sub_document(&name, value)?;
                job.collation = (!collation.is_empty()).then(|| exact(collation));
            }
            "limit" => {
                let limit = integer(&name, &value)?;
                if limit < 1 {
                    return Err(bad("its limit must be positive"));
                }
                job.limit = Some(limit);
            }
            "scope" => scope = sub_document(&name, value)?,
            "comment" => {
                rest.tag = Some(match value {
                    Bson::String(text) => text,
                    other => other.into_relaxed_extjson().to_string(),
                });
            }
            "readConcern" => refuse_read_concern(&value)?,
            "maxTimeMS" => rest.notes.push(
                "maxTimeMS is not looked at: a job outlives its client; --timeout bounds the \
                 waiting, --record-timeout a function"
                    .into(),
            ),
            "writeConcern" => rest.notes.push(
                "writeConcern is not looked at: every result is acknowledged by a majority".into(),
            ),
            "bypassDocumentValidation" if truthy(&value) => rest.notes.push(
                "bypassDocumentValidation is not looked at: results must satisfy the target's \
                 validator"
                    .into(),
            ),
            "jsMode" if truthy(&value) => {
                rest.notes.push("jsMode is not looked at: it changes no result".into());
            }
            "jsMode" | "verbose" | "bypassDocumentValidation" => {}
            // What drivers and shells add to any command.
            "lsid" | "$clusterTime" | "$readPreference" | "$configServerState" => {}
            _ => return Err(bad(&format!("it has the unknown field {name}"))),
        }
    }
    if job.collection.is_empty() {
        return Err(bad("it has no field mapReduce that names a collection"));
    }
    job.map = Some(map.ok_or_else(|| bad("it has no map"))?);
    job.reduce = Some(reduce.ok_or_else(|| bad("it has no reduce"))?);
    output(out.ok_or_else(|| bad("it has no out"))?, &mut rest)?;
    for (name, value) in own_scopes {
        if scope.get(&name).is_some_and(|other| *other != value) {
            return Err(Error::refused(
                format!("the functions' scopes have {name} with different values"),
                "give it one name for each value",
            ));
        }
        scope.insert(name, value);
    }
    job.scope = exact(scope);
    Ok(rest)
}

/// `out`: a name, or one of the modes with what belongs to it.
fn output(out: Bson, rest: &mut Rest) -> Result<()> {
    let out = match out {
        Bson::String(name) => {
            rest.out = format!("replace:{name}");
            return Ok(());
        }
        Bson::Document(out) => out,
        _ => return Err(bad("its out is neither a name nor a document")),
    };
    let fields = out.len();
    let mut modes = 0;
    for (name, value) in out {
        match name.as_str() {
            "inline" => {
                if fields > 1 {
                    return Err(bad("inline must stand alone in out"));
                }
                if integer(&name, &value).ok() != Some(1) {
                    return Err(bad("inline takes 1 and nothing else"));
                }
                rest.out = "inline".into();
                modes += 1;
            }
            "replace" | "merge" | "reduce" => {
                rest.out = format!("{name}:{}", text(&name, value)?);
                modes += 1;
            }
            "db" => rest.out_db = Some(text(&name, value)?),
            "sharded" if truthy(&value) => rest.notes.push(
                "sharded is not looked at: a target that is sharded stays so, and a new one is not"
                    .into(),
            ),
            "nonAtomic" if !truthy(&value) => {
                return Err(bad("nonAtomic can only be true"));
            }
            "sharded" | "nonAtomic" => {}
            _ => return Err(bad(&format!("its out has the unknown field {name}"))),
        }
    }
    match modes {
        1 => Ok(()),
        0 => Err(bad("its out names no mode: inline, replace, merge or reduce")),
        _ => Err(bad("its out names several modes")),
    }
}

/// A function's text; the scope it may come with is put with the others.
fn function(name: &str, value: Bson, scopes: &mut Document) -> Result<String> {
    match value {
        Bson::String(text) | Bson::JavaScriptCode(text) | Bson::Symbol(text) => Ok(text),
        Bson::JavaScriptCodeWithScope(code) => {
            for (field, value) in code.scope {
                if scopes.get(&field).is_some_and(|other| *other != value) {
                    return Err(Error::refused(
                        format!("the functions' scopes have {field} with different values"),
                        "give it one name for each value",
                    ));
                }
                scopes.insert(field, value);
            }
            Ok(code.code)
        }
        other => Err(bad(&format!("its {name} is no function: {other}"))),
    }
}

fn text(name: &str, value: Bson) -> Result<String> {
    match value {
        Bson::String(text) if !text.is_empty() => Ok(text),
        other => Err(bad(&format!("its {name} is no name: {other}"))),
    }
}

fn sub_document(name: &str, value: Bson) -> Result<Document> {
    match value {
        Bson::Document(document) => Ok(document),
        other => Err(bad(&format!("its {name} is no document: {other}"))),
    }
}

fn integer(name: &str, value: &Bson) -> Result<i64> {
    match value {
        Bson::Int32(n) => Ok(i64::from(*n)),
        Bson::Int64(n) => Ok(*n),
        #[expect(clippy::cast_possible_truncation, reason = "whole numbers of this size are exact")]
        Bson::Double(n) if n.fract() == 0.0 && n.abs() < 9e15 => Ok(*n as i64),
        other => Err(bad(&format!("its {name} is no whole number: {other}"))),
    }
}

fn truthy(value: &Bson) -> bool {
    match value {
        Bson::Boolean(yes) => *yes,
        Bson::Int32(n) => *n != 0,
        Bson::Int64(n) => *n != 0,
        Bson::Double(n) => n.abs() > 0.0,
        _ => true,
    }
}

/// The servers take no other for this command.
fn refuse_read_concern(value: &Bson) -> Result<()> {
    let level = value.as_document().and_then(|concern| concern.get_str("level").ok());
    match level {
        None | Some("local" | "available") => Ok(()),
        Some(other) => Err(bad(&format!("it does not go with the read concern {other}"))),
    }
}
