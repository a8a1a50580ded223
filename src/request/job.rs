//! What job a request asks for, as far as the request alone says.

use crate::error::{Error, Result};
use crate::ids::JobId;
use crate::job::{FunctionRef, JobSpec, Output};

use super::command;
use super::convert;
use super::document::{self, Asked, FunctionWish, ReduceWish};

/// An error, and the field of the request that is at fault.
#[derive(Debug)]
pub struct Fault {
    /// None for what is about the request as a whole.
    pub field: Option<String>,
    /// What is wrong.
    pub error: Box<Error>,
}

impl Fault {
    /// Whether it may go well later.
    pub fn is_passing(&self) -> bool {
        self.error.is_transient()
    }
}

/// Names the field that an error is about.
pub trait At<T> {
    /// The same, of this field; of none if it is "".
    ///
    /// # Errors
    /// The error that there is.
    fn at(self, field: &str) -> std::result::Result<T, Fault>;
}

impl<T> At<T> for Result<T> {
    fn at(self, field: &str) -> std::result::Result<T, Fault> {
        let field = Some(field.to_owned()).filter(|field| !field.is_empty());
        self.map_err(|error| Fault { field, error: Box::new(error) })
    }
}

/// Puts what a command says in the place of the fields that it stands for. Returns what its author is to be told.
///
/// # Errors
/// [`Error::Usage`] for a command that cannot be a job.
pub fn translated(asked: &mut Asked) -> Result<Vec<String>> {
    let Some(command) = asked.command.take() else { return Ok(Vec::new()) };
    let told = command::translate(command)?;
    let script = |text: String| FunctionWish { js: Some(text), ..FunctionWish::default() };
    asked.input = Some(document::InputWish {
        collection: told.collection,
        db: told.db,
        query: told.query,
        sort: told.sort,
        limit: told.limit,
        collation: told.collation,
        ..document::InputWish::default()
    });
    asked.map = Some(script(told.map));
    asked.reduce = Some(if told.reduce.starts_with('_') {
        ReduceWish::Builtin(told.reduce)
    } else {
        ReduceWish::Function(Box::new(script(told.reduce)))
    });
    asked.finalize = told.finalize.map(script);
    asked.scope = told.scope;
    let mut out = document::OutWish { db: told.out_db, ..document::OutWish::default() };
    match told.out.split_once(':') {
        None => out.inline = Some(1),
        Some(("merge", name)) => out.merge = Some(name.to_owned()),
        Some(("reduce", name)) => out.reduce = Some(name.to_owned()),
        Some((_, name)) => out.replace = Some(name.to_owned()),
    }
    asked.out = Some(out);
    asked.tag = asked.tag.take().or(told.tag);
    Ok(told.notes)
}

/// The job's settings but for its functions, checked by themselves: whether the operator, the database and the catalogue
/// agree is another matter.
///
/// # Errors
/// The first field that is missing or cannot be, with why.
pub fn drafted(home: &str, id: &JobId, asked: &mut Asked) -> std::result::Result<JobSpec, Fault> {
    let missing = |field: &str, what: &str| Error::Usage(format!("{field} is missing: {what}"));
    let input =
        asked.input.take().ok_or_else(|| missing("input", "the documents to read")).at("input")?;
    let out = asked
        .out
        .take()
        .unwrap_or(document::OutWish { inline: Some(1), ..document::OutWish::default() });
    let (mode, db, name) = out.target().at("out")?;
    let output = Output {
        mode,
        db: db.unwrap_or(home).to_owned(),
        collection: name.map_or_else(|| Output::hidden(id), str::to_owned),
    };
    let placeholder = FunctionRef { digest: String::new(), language: "js".into(), name: None };
    let spec = JobSpec {
        input: input.input(home),
        map: placeholder,
        combine: None,
        reduce: None,
        finalize: None,
        skip_single_values: asked.skip_single_values,
        scope: std::mem::take(&mut asked.scope),
        output,
        partitions: convert::partitions(asked.partitions).at("partitions")?,
        limits: asked.limits.take().unwrap_or_default().limits().at("limits")?,
        no_combine: asked.no_combine,
        keep_intermediates: asked.keep_intermediates,
        on_error: asked.on_error,
    };
    spec.validate_without_functions(home).at("")?;
    Ok(spec)
}
