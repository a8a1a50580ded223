//! A `mapReduce` command, as given to MongoDB, in terms of our flags.
//!
//! The text is extended JSON, or what a person would type into mongosh: that is JavaScript, so it is
//! evaluated where users' functions run, in the sandbox, by the interpreter that has the shell's types.

use std::path::Path;

use bson::{Bson, Document, RawDocument};

use super::args::JobFunctions;
use super::output::exact;
use crate::config;
use crate::error::{Error, Result};
use crate::files;
use crate::functions::script;
use crate::request::command::{NOT_A_COMMAND, Translated, bad, translate};
use crate::terminal::tell;
use crate::value::extjson::{self, Of};
use crate::wasm::{GuestError, Host, Level, Sink, SinkError};

/// Evaluates the text; see there.
const EVALUATE: &str = include_str!("command.js");

/// Memory for evaluating a document.
const EVALUATE_MEMORY_MB: u64 = 256;

/// Reads the command that `--command` names and fills the flags it stands for.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Usage`] for what is no command that a server would take,
/// [`Error::Refused`] for what cannot be done here.
pub(super) async fn apply(host: &Host, given: &str, job: &mut JobFunctions) -> Result<Translated> {
    let given = read(given)?;
    let (db, mut command) = match extjson::document(&given, Of::Query) {
        Ok(command) => (None, decoded(&command).map_err(|why| bad(&why))?),
        // What is JSON is read as JSON: as JavaScript it would lose what is there twice.
        Err(why) if extjson::is_json(&given) => return Err(bad(&why)),
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
        let limit = config::DOCUMENT_TEXT_BYTES_MAX;
        return files::read_text_from(std::io::stdin(), "standard input", limit);
    }
    if given.contains(['{', '(']) && !path.is_file() {
        return Ok(given.to_owned());
    }
    files::read_text(path, config::DOCUMENT_TEXT_BYTES_MAX).map_err(|error| match error {
        Error::NotFound { what, .. } => Error::NotFound {
            what,
            hint: "--command takes a file, - for standard input, or the command itself".into(),
        },
        other => other,
    })
}

fn decoded(document: &RawDocument) -> std::result::Result<Document, String> {
    Document::try_from(document).map_err(|e| e.to_string())
}

/// A document as text of a flag has it: extended JSON, or what a person would type into mongosh.
///
/// # Errors
/// What is wrong, in words.
pub(super) fn document(text: &str) -> std::result::Result<Document, String> {
    let strict = match extjson::document(text, Of::Query) {
        Ok(document) => return decoded(&document),
        Err(why) => why,
    };
    if extjson::is_json(text) {
        return Err(strict);
    }
    // What has its names in quotes is meant as JSON, whose own mistake is what helps.
    let is_json =
        text.trim_start().strip_prefix('{').is_some_and(|rest| rest.trim_start().starts_with('"'));
    let evaluated = || {
        let host = super::daemons::host(EVALUATE_MEMORY_MB)?;
        tokio::task::block_in_place(|| evaluate(&host, text))
    };
    match evaluated() {
        Ok((_, document)) => Ok(document),
        Err(_) if is_json => Err(strict),
        Err(Error::Usage(why)) => Err(why.strip_prefix(NOT_A_COMMAND).unwrap_or(&why).to_owned()),
        Err(error) => Err(error.to_string()),
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
            Ok(crate::value::RawVal::parse(raw)?.to_bson()?)
        };
        (self.db, self.command) = (Some(value_of(key)?), Some(value_of(value)?));
        Ok(())
    }
    fn count(&mut self, _name: &str, _delta: i64) {}
    fn log(&mut self, _level: Level, text: &str) {
        tell!("{text}");
    }
}

/// Makes whole numbers integers where these hold them, as mongosh does with what it sends.
fn whole_numbers(value: &mut Bson) {
    match value {
        Bson::Document(fields) => fields.iter_mut().for_each(|(_, value)| whole_numbers(value)),
        Bson::Array(items) => items.iter_mut().for_each(whole_numbers),
        Bson::Double(number)
            if number.fract() == 0.0 && !(*number == 0.0 && number.is_sign_negative()) =>
        {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "the cast saturates, and is checked"
            )]
            let whole = *number as i32;
            if f64::from(whole) == *number {
                *value = Bson::Int32(whole);
            }
        }
        _ => {}
    }
}

/// Runs the text, and returns the database it names, if any, and the command it sends.
fn evaluate(host: &Host, text: &str) -> Result<(Option<String>, Document)> {
    let sent = script::evaluate(host, EVALUATE, text, &Document::new(), Sent::default())?;
    match sent.map_err(|e| match e {
        GuestError::Failed { message, .. } => bad(&message),
        other => bad(&other.to_string()),
    })? {
        Sent { db: Some(db), command: Some(mut command) } => {
            whole_numbers(&mut command);
            let Bson::Document(command) = command else { return Err(bad("it is no document")) };
            Ok((db.as_str().map(str::to_owned), command))
        }
        _ => Err(bad("it is no document")),
    }
}
