//! From flags to a job: its functions found and checked, its fields read.

use bson::Document;

use crate::cli::args::JobFunctions;
use crate::config;
use crate::error::{Error, Result};
use crate::files;
use crate::functions::{self, CheckedFor, Given};
use crate::job::{FunctionRef, Input, JobSpec, Limits, OutputMode, ReadMode, Reducer};
use crate::store::Store;
use crate::store::retry::until_known;
use crate::wasm::{Host, Stage};

/// A job's functions as given, found and checked, none of them stored yet.
pub(in crate::cli) struct Found {
    pub(in crate::cli) map: Given,
    pub(in crate::cli) combine: Option<Given>,
    pub(in crate::cli) reduce: Option<FoundReduce>,
    pub(in crate::cli) finalize: Option<Given>,
}

impl Found {
    /// Map, combine, reduce and finalize.
    pub(super) fn stages(&self) -> [Option<&Given>; 4] {
        let reduce = match &self.reduce {
            Some(FoundReduce::Function(given)) => Some(given),
            Some(FoundReduce::Builtin(_)) | None => None,
        };
        [Some(&self.map), self.combine.as_ref(), reduce, self.finalize.as_ref()]
    }

    pub(super) fn given(&self) -> impl Iterator<Item = &Given> {
        self.stages().into_iter().flatten()
    }
}

/// A reduce as given.
pub(in crate::cli) enum FoundReduce {
    Builtin(Reducer),
    Function(Given),
}

/// Finds and checks every function that a job names.
pub(in crate::cli) async fn find(
    store: Option<&Store>,
    host: &Host,
    args: &JobFunctions,
    job: &CheckedFor<'_>,
) -> Result<Found> {
    let named = named_stages(store, host, args, job.scope).await?;
    let one = async |text: &Option<String>, stage| match text {
        Some(text) => Given::find(store, host, text, stage, job).await.map(Some),
        None => Ok(None),
    };
    let map = one(&named.map, Stage::Map)
        .await?
        .ok_or_else(|| Error::Usage("no map given; use --map or --module".into()))?;
    let reduce = match &named.reduce {
        None => None,
        Some(text) => Some(match functions::builtin(text)? {
            Some(builtin) => FoundReduce::Builtin(builtin),
            None => {
                FoundReduce::Function(Given::find(store, host, text, Stage::Reduce, job).await?)
            }
        }),
    };
    if args.no_combine && !matches!(reduce, Some(FoundReduce::Function(_))) {
        return Err(Error::Usage("--no-combine needs a --reduce that is a function".into()));
    }
    if named.combine.is_some() && matches!(reduce, Some(FoundReduce::Builtin(_))) {
        return Err(Error::Usage(
            "a built-in reduce combines on the map side by itself; leave --combine out".into(),
        ));
    }
    if named.combine.as_ref().is_some_and(|text| functions::builtin(text).ok().flatten().is_some())
    {
        return Err(Error::Usage(
            "a built-in goes with --reduce; it combines on the map side by itself".into(),
        ));
    }
    Ok(Found {
        map,
        combine: one(&named.combine, Stage::Combine).await?,
        reduce,
        finalize: one(&named.finalize, Stage::Finalize).await?,
    })
}

struct Named {
    map: Option<String>,
    combine: Option<String>,
    reduce: Option<String>,
    finalize: Option<String>,
}

/// `--module` stands for each stage that it exports and that no other flag names.
async fn named_stages(
    store: Option<&Store>,
    host: &Host,
    args: &JobFunctions,
    scope: &Document,
) -> Result<Named> {
    let mut named = Named {
        map: args.map.clone(),
        combine: args.combine.clone(),
        reduce: args.reduce.clone(),
        finalize: args.finalize.clone(),
    };
    let Some(module) = &args.module else { return Ok(named) };
    let path = std::path::Path::new(module);
    let stages = if path.is_file() {
        match functions::Source::read(host, path)? {
            script if script.language == "js" => script.script_stages(host, scope).await?,
            module => module.stages,
        }
    } else {
        let found = match store {
            Some(store) => store.find_function(module).await?,
            None => None,
        };
        let found = found.ok_or_else(|| functions::not_found(module))?;
        match found.language.as_str() {
            "js" => {
                let text = String::from_utf8_lossy(&found.content.bytes);
                functions::script::stages(host, &text, scope).await?
            }
            _ => found.stages,
        }
    };
    if stages.is_empty() {
        return Err(Error::refused(
            format!("{module} does not say by names which stages it has"),
            "name its functions map, reduce, … for --module, or give it as --map, --reduce, …",
        ));
    }
    for (stage, slot) in [
        ("map", &mut named.map),
        ("combine", &mut named.combine),
        ("reduce", &mut named.reduce),
        ("finalize", &mut named.finalize),
    ] {
        if slot.is_none() && stages.iter().any(|s| s == stage) {
            *slot = Some(module.clone());
        }
    }
    // The module's combine belongs to its own reduce.
    let is_builtin = |text: &String| functions::builtin(text).ok().flatten().is_some();
    if args.no_combine || named.reduce.as_ref().is_some_and(is_builtin) {
        named.combine.clone_from(&args.combine);
    }
    Ok(named)
}

/// Storing the same function twice is storing it once.
pub(super) async fn given_stored(store: &Store, given: &Given) -> Result<FunctionRef> {
    until_known(async |_| given.stored(store).await).await
}

pub(super) fn reference(given: &Given) -> FunctionRef {
    match given {
        Given::Known(known) => known.clone(),
        Given::Named(name) => functions::named(name),
        Given::New(source) => FunctionRef {
            digest: source.digest(),
            language: source.language.to_owned(),
            name: Some(source.file.clone()),
        },
    }
}

/// The job as it will be once its functions are stored.
pub(super) fn referring(spec: &JobSpec, found: &Found) -> JobSpec {
    let mut spec = spec.clone();
    spec.map = reference(&found.map);
    spec.combine = found.combine.as_ref().map(reference);
    spec.finalize = found.finalize.as_ref().map(reference);
    spec.reduce = found.reduce.as_ref().map(|reduce| match reduce {
        FoundReduce::Builtin(builtin) => builtin.clone(),
        FoundReduce::Function(given) => Reducer::Function(reference(given)),
    });
    spec
}

/// The input that the flags describe.
pub(in crate::cli) fn input(args: &JobFunctions, db: &str, read: ReadMode) -> Result<Input> {
    let optional = |flag: &str, text: &Option<String>| {
        text.as_ref().map(|text| ejson_document(flag, text)).transpose()
    };
    Ok(Input {
        db: args.input_db.clone().unwrap_or_else(|| db.to_owned()),
        collection: args.collection.clone(),
        query: query(&args.query)?,
        sort: optional("--sort", &args.sort)?,
        limit: args.limit,
        projection: optional("--projection", &args.projection)?,
        collation: optional("--collation", &args.collation)?,
        read,
    })
}

/// The query, if it is no larger than a job may carry along.
pub(super) fn query(text: &str) -> Result<Document> {
    let query = ejson_document("--query", text)?;
    let bytes =
        query.to_vec().map_err(|e| Error::Usage(format!("--query does not serialise: {e}")))?;
    if bytes.len() > config::QUERY_BYTES_MAX {
        return Err(Error::Usage(format!(
            "--query has {} bytes, and a job carries at most {} along; leave out documents in the map \
             instead, or give several jobs a part each, with --out merge:NAME",
            bytes.len(),
            config::QUERY_BYTES_MAX
        )));
    }
    crate::store::shape::check(&bytes).map_err(|why| {
        Error::Usage(format!("--query {}", why.strip_prefix("it ").unwrap_or(&why)))
    })?;
    Ok(query)
}

/// The limits that the flags describe.
pub(in crate::cli) fn limits(args: &JobFunctions) -> Limits {
    let ms = |timeout: humantime::Duration| {
        u64::try_from(std::time::Duration::from(timeout).as_millis()).unwrap_or(u64::MAX)
    };
    Limits {
        memory_mb: args.memory_mb,
        record_timeout_ms: ms(args.record_timeout),
        task_timeout_ms: args.task_timeout.map(ms),
        record_output_bytes: args.record_output,
        log_bytes: args.log_bytes,
    }
}

/// A flag's document: extended JSON, what one would type into mongosh, or a file with either.
pub(in crate::cli) fn ejson_document(flag: &str, text: &str) -> Result<Document> {
    let bad = |what: &str, why: &str| {
        Error::Usage(format!(
            "{flag}{what} is no document, like '{{v: {{$gt: 5}}}}' or '{{\"v\": {{\"$gt\": 5}}}}': {why}"
        ))
    };
    if text.trim_start().starts_with(['{', '[', '"']) {
        return super::command::document(text).map_err(|why| bad("", &why));
    }
    let path = std::path::Path::new(text);
    match files::read_text(path, config::DOCUMENT_TEXT_BYTES_MAX) {
        Ok(read) => super::command::document(&read).map_err(|why| bad(&format!(" {text}"), &why)),
        Err(Error::NotFound { .. }) => {
            Err(bad("", &format!("it begins with no brace, and there is no file {text}")))
        }
        Err(error) => Err(error),
    }
}

pub(super) fn parse_out(text: &str) -> Result<(OutputMode, Option<String>)> {
    let not_understood = || {
        Error::Usage(format!(
            "--out {text} is not understood; use replace:NAME, merge:NAME, reduce:NAME, \
             update:NAME or inline"
        ))
    };
    match text.split_once(':') {
        None if text == "inline" => Ok((OutputMode::Inline, None)),
        Some((mode, name)) if !name.is_empty() => {
            let mode = match mode {
                "replace" => OutputMode::Replace,
                "merge" => OutputMode::Merge,
                "reduce" => OutputMode::Reduce,
                "update" => OutputMode::Update,
                _ => return Err(not_understood()),
            };
            Ok((mode, Some(name.to_owned())))
        }
        _ => Err(not_understood()),
    }
}
