//! `aviary insert` and `aviary functions`.

use std::path::PathBuf;

use serde_json::json;

use super::args::{Format, FunctionsArgs, FunctionsVerb, Global, InsertArgs};
use super::output;
use crate::error::{Error, Result};
use crate::functions::Source;
use crate::toolchain::Language;
use crate::wasm::Stage;

pub(super) async fn insert(global: &Global, args: InsertArgs) -> Result<()> {
    let groups = modules(&args.files);
    if args.name.is_some() && groups.len() > 1 {
        return Err(Error::Usage("--name goes with one function".into()));
    }
    let host = super::daemons::host(1024)?;
    let mut sources = Vec::new();
    for group in &groups {
        let source = match group.as_slice() {
            [file] => Source::read(&host, file)?,
            files => Source::compile(&host, files)?,
        };
        if source.language == "js" {
            // Any stage will do: what is to be found out is whether it parses to a function.
            source.check_stage(&host, script_stage(&source), &bson::Document::new()).await?;
        }
        sources.push(source);
    }
    let store = global.store("aviary-insert").await?;
    if !store.is_initialised().await? {
        store.init().await?;
    }
    for source in sources {
        let stored = source.store(&store).await?;
        if let Some(name) = &args.name {
            store.name_function(name, &stored.digest).await?;
        }
        match global.format() {
            Format::Json => println!(
                "{}",
                json!({
                    "digest": stored.digest,
                    "language": stored.language,
                    "file": source.file,
                    "toolchain": source.toolchain,
                    "name": args.name,
                    "stages": source.stages,
                    "size": source.content.len(),
                })
            ),
            Format::Name | Format::Table | Format::Wide => println!("{}", stored.digest),
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
        FunctionsVerb::List => {
            let rows = store.list_functions().await?;
            output::print_rows(
                global.format(),
                &rows,
                |row| row.digest.clone(),
                |row| {
                    json!({
                        "digest": row.digest,
                        "names": row.names,
                        "language": row.language,
                        "file": row.file,
                        "stages": row.stages,
                        "size": row.size,
                        "created": output::date(Some(row.created)),
                    })
                },
                &["digest", "names", "language", "file", "stages", "bytes"],
                |row| {
                    vec![
                        row.digest.get(..12).unwrap_or(&row.digest).to_owned(),
                        row.names.join(", "),
                        row.language.clone(),
                        row.file.clone(),
                        row.stages.join(", "),
                        row.size.to_string(),
                    ]
                },
            );
            Ok(())
        }
        FunctionsVerb::Show { function } => {
            let found = store.find_function(&function).await?.ok_or_else(|| Error::NotFound {
                what: format!("function {function}"),
                hint: "aviary functions list shows what there is".into(),
            })?;
            if found.language == "js" {
                println!("{}", String::from_utf8_lossy(&found.content.bytes));
            } else {
                println!(
                    "{}",
                    json!({
                        "digest": found.digest,
                        "language": found.language,
                        "file": found.file,
                        "stages": found.stages,
                        "size": found.size,
                    })
                );
            }
            Ok(())
        }
    }
}
