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
use crate::request::command::{Translated, bad, translate};
use crate::terminal::tell;
use crate::wasm::{
    self, GuestError, Host, Instance, InstanceOptions, Level, Limits, Script, Sink, SinkError,
    Stage,
};

/// Evaluates the text; see there.
const EVALUATE: &str = include_str!("command.js");

/// How long the text may take.
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// Reads the command that `--command` names and fills the flags it stands for.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Usage`] for what is no command that a server would take,
/// [`Error::Refused`] for what cannot be done here.
pub(super) async fn apply(host: &Host, given: &str, job: &mut JobFunctions) -> Result<Translated> {
    let given = read(given)?;
    let (db, mut command) = match serde_json::from_str::<serde_json::Value>(&given) {
        Ok(json) => (None, document(json)?),
        Err(_) => {
            let host = host.clone();
            tokio::task::spawn_blocking(move || evaluate(&host, &given))
                .await
                .map_err(|e| Error::Internal(format!("evaluating the command panicked: {e}")))??
        }
    };
    if let Some(db) = db.filter(|_| !command.contains_key("$db")) {
        command.insert("$db", db);
    }
    if job.input_db.is_some() {
        command.remove("$db");
    }
    let told = translate(command)?;
    job.collection.clone_from(&told.collection);
    job.map = Some(told.map.clone());
    job.reduce = Some(told.reduce.clone());
    job.finalize.clone_from(&told.finalize);
    job.query = exact(told.query.clone());
    job.sort = told.sort.clone().map(exact);
    job.collation = told.collation.clone().map(exact);
    job.limit = told.limit;
    job.scope = exact(told.scope.clone());
    job.input_db = job.input_db.take().or_else(|| told.db.clone());
    Ok(told)
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
