//! A `mapReduce` command, as given to MongoDB, in terms of a request.

use bson::{Bson, Document};

use crate::error::{Error, Result};
use crate::value::extjson::{self, Form};

/// What a command says.
#[derive(Debug, Default, PartialEq)]
pub struct Translated {
    /// The input.
    pub collection: String,
    /// Its database, if the command names one.
    pub db: Option<String>,
    /// The map function's text.
    pub map: String,
    /// The reduce function's text.
    pub reduce: String,
    /// The finalize function's text.
    pub finalize: Option<String>,
    /// Only documents that match.
    pub query: Document,
    /// The order in which `limit` counts.
    pub sort: Option<Document>,
    /// How strings compare.
    pub collation: Option<Document>,
    /// At most this many documents.
    pub limit: Option<i64>,
    /// Parameters for the functions.
    pub scope: Document,
    /// `inline`, or a mode and a collection as in `replace:totals`.
    pub out: String,
    /// The output's database, if it is another than the job's own.
    pub out_db: Option<String>,
    /// The command's comment.
    pub tag: Option<String>,
    /// What is not done as the command says, for a person to read.
    pub notes: Vec<String>,
}

/// How the refusal of what is no command begins.
pub(crate) const NOT_A_COMMAND: &str = "--command is not a mapReduce command: ";

/// The refusal of what is no command.
pub(crate) fn bad(why: &str) -> Error {
    Error::Usage(format!("{NOT_A_COMMAND}{why}"))
}

/// Reads a command document.
///
/// # Errors
/// [`Error::Usage`] for what is no command that a server would take, [`Error::Refused`] for what cannot be done
/// here.
pub fn translate(command: Document) -> Result<Translated> {
    let mut rest = Translated::default();
    let mut scope = Document::new();
    let mut own_scopes = Document::new();
    let (mut map, mut reduce, mut out) = (None, None, None);
    for (name, value) in command {
        // The servers take null for a field that is not there.
        if matches!(value, Bson::Null | Bson::Undefined) && name != "out" {
            continue;
        }
        match name.as_str() {
            "mapReduce" | "mapreduce" => rest.collection = text(&name, value)?,
            "$db" => rest.db = Some(text(&name, value)?),
            "map" => map = Some(function(&name, value, &mut own_scopes)?),
            "reduce" => reduce = Some(function(&name, value, &mut own_scopes)?),
            "finalize" => rest.finalize = Some(function(&name, value, &mut own_scopes)?),
            "out" => out = Some(value),
            "query" => rest.query = sub_document(&name, value)?,
            "sort" => {
                let sort = sub_document(&name, value)?;
                rest.sort = (!sort.is_empty()).then_some(sort);
            }
            "collation" => {
                let collation = sub_document(&name, value)?;
                rest.collation = (!collation.is_empty()).then_some(collation);
            }
            "limit" => {
                let limit = integer(&name, &value)?;
                if limit < 1 {
                    return Err(bad("its limit must be positive"));
                }
                rest.limit = Some(limit);
            }
            "scope" => scope = sub_document(&name, value)?,
            "comment" => {
                rest.tag = Some(match value {
                    Bson::String(text) => text,
                    other => extjson::of_bson(&other, Form::Relaxed).to_string(),
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
    if rest.collection.is_empty() {
        return Err(bad("it has no field mapReduce that names a collection"));
    }
    rest.map = map.ok_or_else(|| bad("it has no map"))?;
    rest.reduce = reduce.ok_or_else(|| bad("it has no reduce"))?;
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
    rest.scope = scope;
    if rest.db.is_some() && rest.out != "inline" && rest.out_db.is_none() {
        // Unless it says otherwise, a command writes to the database that it reads.
        rest.out_db.clone_from(&rest.db);
    }
    Ok(rest)
}

/// `out`: a name, or one of the modes with what belongs to it.
fn output(out: Bson, rest: &mut Translated) -> Result<()> {
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

/// A number as the servers read it: what is behind its point is left out.
fn integer(name: &str, value: &Bson) -> Result<i64> {
    match value {
        Bson::Int32(n) => Ok(i64::from(*n)),
        Bson::Int64(n) => Ok(*n),
        #[expect(clippy::cast_possible_truncation, reason = "casts saturate, as the servers' do")]
        Bson::Double(n) if !n.is_nan() => Ok(*n as i64),
        other => Err(bad(&format!("its {name} is no number: {other}"))),
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
