//! `aviary insert` and `aviary functions`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::args::{Format, Global};
use super::output;
use crate::config;
use crate::error::{Error, Result};
use crate::functions::{self, CheckedFor, Source};
use crate::job::{Limits, OutputMode};
use crate::store::Store;
use crate::store::catalogue::{FunctionRow, StoredFunction};
use crate::store::retry::until_known;
use crate::terminal::{one_line, tell};
use crate::toolchain::Language;
use crate::wasm::Stage;

#[derive(Debug, Args)]
pub(super) struct InsertArgs {
    /// Files: .js, .wasm or .wat, each a function; or sources in Go, Rust, C, C++, Zig or
    /// AssemblyScript, compiled to one module for each language.
    #[arg(required = true, value_name = "FILE")]
    pub(super) files: Vec<PathBuf>,
    /// A name under which jobs can find it; only for one function.
    #[arg(long, value_name = "N")]
    pub(super) name: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct FunctionsArgs {
    #[command(subcommand)]
    pub(super) verb: Option<FunctionsVerb>,
}

#[derive(Debug, Subcommand)]
pub(super) enum FunctionsVerb {
    /// List them, the youngest first.
    List,
    /// Show one: the text that it was made from on standard output, the rest on standard error.
    Show {
        /// A name, name@version or digest.
        function: String,
        /// Write its bytes, the module or script itself, to this file.
        #[arg(long, value_name = "FILE")]
        save: Option<PathBuf>,
    },
    /// Remove some; refused for one that a job needs which has not ended.
    Rm {
        /// Names, name@version or digests. The function goes, and every name's version that leads to it.
        #[arg(required = true, value_name = "FUNCTION")]
        functions: Vec<String>,
    },
}

pub(super) async fn insert(global: &Global, args: InsertArgs) -> Result<()> {
    let groups = modules(&args.files);
    if let Some(name) = &args.name {
        functions::check_name(name)?;
        if groups.len() > 1 {
            return Err(Error::Usage("--name goes with one function".into()));
        }
    }
    // Which memory it may use is for the jobs to say.
    let limits = Limits { memory_mb: config::GUEST_MEMORY_MB_MAX, ..Limits::default() };
    let host = super::daemons::host(limits.memory_mb)?;
    let any_job =
        CheckedFor { scope: &bson::Document::new(), limits: &limits, mode: OutputMode::Inline };
    let mut sources = Vec::new();
    for group in &groups {
        let source = match group.as_slice() {
            [file] => Source::read(&host, file)?,
            files => Source::compile(&host, files)?,
        };
        if source.language == "js" {
            // Any stage will do: what is to be found out is whether it parses to a function.
            source.check_stage(&host, script_stage(&source), &any_job).await?;
        }
        sources.push(source);
    }
    let store = global.store("aviary-insert").await?;
    if !store.takes_functions().await? {
        until_known(async |_| store.init().await).await?;
    }
    for source in sources {
        let stored = until_known(async |_| source.store(&store).await).await?;
        let version = match &args.name {
            Some(name) => {
                Some(until_known(async |_| store.name_function(name, &stored.digest).await).await?)
            }
            None => None,
        };
        match global.format() {
            Format::Json => output::line(json!({
                "digest": stored.digest,
                "language": stored.language,
                "file": source.file,
                "name": args.name,
                "version": version,
                "stages": source.stages,
                "toolchain": source.toolchain,
                "size": source.content.len(),
            }))?,
            Format::Name | Format::Table | Format::Wide => output::line(&stored.digest)?,
        }
    }
    Ok(())
}

/// Files that become one module together: those of one language that is compiled, with their headers.
/// Every other file is a function by itself.
fn modules(files: &[PathBuf]) -> Vec<Vec<PathBuf>> {
    let mut groups: Vec<Vec<PathBuf>> = Vec::new();
    let (headers, others): (Vec<_>, Vec<_>) = files
        .iter()
        .partition(|file| Language::ALL.iter().any(|language| language.is_header(file)));
    for file in others {
        let language = Language::of(file);
        let same = |group: &&mut Vec<PathBuf>| {
            language.is_some() && group.first().is_some_and(|first| Language::of(first) == language)
        };
        match groups.iter_mut().find(same) {
            Some(group) => group.push(file.clone()),
            None => groups.push(vec![file.clone()]),
        }
    }
    for header in headers {
        let takes = |group: &&mut Vec<PathBuf>| {
            let language = group.first().and_then(|first| Language::of(first));
            language.is_some_and(|language| language.is_header(header))
        };
        match groups.iter_mut().find(takes) {
            Some(group) => group.push(header.clone()),
            None => groups.push(vec![header.clone()]),
        }
    }
    groups
}

/// A script that defines functions by name is checked for the one it defines.
fn script_stage(source: &Source) -> Stage {
    let text = String::from_utf8_lossy(&source.content);
    let defines = |stage: &Stage| {
        let name = stage.to_string();
        text.contains(&format!("function {name}")) || text.contains(&format!("const {name}"))
    };
    [Stage::Map, Stage::Reduce, Stage::Combine, Stage::Finalize]
        .into_iter()
        .find(defines)
        .unwrap_or(Stage::Map)
}

pub(super) async fn run(global: &Global, args: FunctionsArgs) -> Result<()> {
    let store = global.store("aviary-functions").await?;
    match args.verb.unwrap_or(FunctionsVerb::List) {
        FunctionsVerb::List => list(global, &store).await,
        FunctionsVerb::Show { function, save } => {
            show(global, &find(&store, &function).await?, save.as_deref())
        }
        FunctionsVerb::Rm { functions } => {
            for function in functions {
                let found = find(&store, &function).await?;
                store.remove_function(&found).await?;
                if !global.quiet {
                    tell!("function {} ({}) is removed", found.digest, found.file);
                }
            }
            Ok(())
        }
    }
}

async fn find(store: &Store, function: &str) -> Result<StoredFunction> {
    store.find_function(function).await?.ok_or_else(|| Error::NotFound {
        what: format!("function {function}"),
        hint: "aviary functions list shows what there is".into(),
    })
}

async fn list(global: &Global, store: &Store) -> Result<()> {
    let listed = store.list_functions().await?;
    output::tell_unreadable(global, &listed.unreadable);
    let rows = listed.rows;
    if rows.is_empty() && listed.unreadable.is_empty() {
        output::hint_at_db(global, store, "no functions");
    }
    let wide = global.format() == Format::Wide;
    let mut headings = vec!["digest", "names", "language", "file", "stages", "bytes"];
    if wide {
        headings.extend(["toolchain", "created"]);
    }
    let columns = |row: &FunctionRow| {
        let mut columns = vec![
            row.digest.get(..12).unwrap_or(&row.digest).to_owned(),
            row.names.join(", "),
            row.language.clone(),
            row.file.clone(),
            row.stages.join(", "),
            row.size.to_string(),
        ];
        if wide {
            columns.push(row.toolchain.clone().unwrap_or_default());
            columns.push(output::date(Some(row.created)).unwrap_or_default());
        }
        columns
    };
    let digest = |row: &FunctionRow| row.digest.clone();
    output::print_rows(global.format(), &rows, digest, row_json, &headings, columns)
}

fn row_json(row: &FunctionRow) -> Value {
    json!({
        "digest": row.digest,
        "names": row.names,
        "language": row.language,
        "file": row.file,
        "stages": row.stages,
        "size": row.size,
        "toolchain": row.toolchain,
        "created": output::date(Some(row.created)),
    })
}

/// Prints what ran: a script's text, or the source that a module was built from. What is known about it
/// goes to standard error, or both together into JSON.
fn show(global: &Global, found: &StoredFunction, save: Option<&Path>) -> Result<()> {
    if !found.is_intact() {
        return Err(Error::refused(
            format!("the stored bytes of function {} are not what its digest says", found.digest),
            "the catalogue was tampered with or damaged: insert the function again",
        ));
    }
    if let Some(path) = save {
        std::fs::write(path, &found.content.bytes)
            .map_err(|e| Error::io(format!("write {}", path.display()), e))?;
    }
    let script = found.language == "js";
    let mut sources: Vec<(&str, &str)> =
        found.sources.iter().map(|s| (s.name.as_str(), s.text.as_str())).collect();
    let text = String::from_utf8_lossy(&found.content.bytes);
    if script {
        sources.push((&found.file, &text));
    }
    match global.format() {
        Format::Name => output::line(&found.digest)?,
        Format::Json => output::line(json!({
            "digest": found.digest,
            "language": found.language,
            "file": found.file,
            "stages": found.stages,
            "size": found.size,
            "toolchain": found.toolchain,
            "created": output::date(Some(found.created)),
            "sources": sources.iter().map(|(name, text)| json!({ "name": name, "text": text }))
                .collect::<Vec<_>>(),
        }))?,
        Format::Table | Format::Wide => {
            if !global.quiet {
                tell!("{}", manifest(found));
            }
            for (name, text) in &sources {
                if sources.len() > 1 {
                    output::line(format!("// {}", one_line(name)))?;
                }
                output::line(text)?;
            }
            if sources.is_empty() && !global.quiet {
                tell!("no source is stored with it");
            }
        }
    }
    Ok(())
}

fn manifest(found: &StoredFunction) -> String {
    let mut lines = vec![
        format!("digest     {}", found.digest),
        format!("file       {}", found.file),
        format!("language   {}", found.language),
    ];
    if !found.stages.is_empty() {
        lines.push(format!("stages     {}", found.stages.join(", ")));
    }
    if let Some(toolchain) = &found.toolchain {
        lines.push(format!("toolchain  {toolchain}"));
    }
    lines.push(format!("bytes      {}", found.size));
    lines.push(format!("created    {}", output::date(Some(found.created)).unwrap_or_default()));
    // What is in them was given by whoever stored the function.
    lines.iter().map(|line| one_line(line)).collect::<Vec<_>>().join("\n")
}
