//! `aviary demo`: everything at once, on real text, on a real server.

use std::io::Write as _;
use std::path::PathBuf;

use bson::{Bson, doc, rawdoc};
use clap::{Args, Parser};

use super::args::{Cli, Command, Global};
use super::cluster::{DB_DEFAULT, Local, LocalOptions};
use super::uri_file::Address;
use super::{corpus, output};
use crate::error::{Error, Result};
use crate::job::JobState;
use crate::store::Store;
use crate::store::jobs::JobFilter;
use crate::terminal::tell;

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Bytes of text to count words in.
    #[arg(long, default_value = "64000000", value_name = "N")]
    pub(super) bytes: u64,
    /// Generate the text even where source text is found.
    #[arg(long)]
    pub(super) generated: bool,
    /// Write every word and its count here, as JSON lines.
    #[arg(long, value_name = "FILE")]
    pub(super) export: Option<PathBuf>,
}

/// What the demo runs; also an example of its own.
const MAP: &str = include_str!("../../examples/word_count.js");

pub(super) async fn run(global: &Global, args: DemoArgs) -> Result<()> {
    let stop = super::daemons::stop_on_signal()?;
    let local = Local::start(LocalOptions {
        shards: 0,
        members: 1,
        workers: 2,
        slots: 1,
        dir: None,
        port: None,
        stays: false,
        db: DB_DEFAULT.to_owned(),
        env: global.for_daemons(),
        quiet: global.quiet,
    })
    .await?;
    let mut outcome = tokio::select! {
        outcome = show(global, &args, &local) => outcome,
        () = stop.cancelled() => Ok(()),
    };
    // The wait for the job hears the interrupt too; either way the demo is what was ended.
    if stop.is_cancelled() || matches!(outcome, Err(Error::WaitTimeout { .. })) {
        outcome = Err(Error::JobCancelled("demo".into()));
    }
    // Whatever happened, nothing is left behind.
    let stopped = local.stop().await;
    outcome.and(stopped)
}

async fn show(global: &Global, args: &DemoArgs, local: &Local) -> Result<()> {
    let say = |line: &str| {
        if !global.quiet {
            tell!("{line}");
        }
    };
    let demo = Global { address: Address::at(local.uri().to_owned()), db: None, ..global.clone() };
    let store = demo.store("aviary-demo").await?;
    let loaded = load(&store, args).await?;
    say(&loaded);

    let map = local.dir().join("word_count.js");
    std::fs::write(&map, MAP).map_err(|e| Error::io("write the function", e))?;
    say("\nThe map function, in JavaScript; the reduce is the built-in _sum:\n");
    say(&MAP.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n"));
    say("\n$ aviary submit -c texts --map word_count.js --reduce _sum --out replace:words\n");
    let submit =
        ["aviary", "submit", "-c", "texts", "--reduce", "_sum", "--out", "replace:words", "--map"];
    let submit = submit.into_iter().map(Into::into).chain([map.into_os_string()]);
    let parsed = Cli::try_parse_from(submit).map_err(|e| Error::Internal(e.to_string()))?;
    let Command::Submit(submit) = parsed.command else {
        return Err(Error::Internal("submit does not parse as submit".into()));
    };
    super::submit::run(&demo, *submit).await?;

    say("\nThe ten commonest words:");
    print_top(&store).await?;
    if let Some(path) = &args.export {
        export(&store, path).await?;
    }
    let filter = JobFilter { limit: 1, ..JobFilter::default() };
    let job = store.jobs(&filter).await?.rows.into_iter().next();
    if let Some(job) = job.filter(|job| job.state == JobState::Succeeded) {
        say(&format!(
            "\nThis ran as job {} in {} map and {} reduce tasks on 2 workers; all of it was \
             documents in\nthe collections aviary, aviary-funcs and aviary-intermediates. Next:\n\n    \
             aviary up --detach            a deployment that stays; prints its URI\n    \
             aviary submit --help          jobs over your own collections\n    \
             aviary tasks last             what each task did (with --uri)\n    \
             aviary down                   stops the deployment\n",
            job.id, job.map_tasks, job.reduce_tasks
        ));
    }
    Ok(())
}

/// Loads the corpus, one document a file.
async fn load(store: &Store, args: &DemoArgs) -> Result<String> {
    const BATCH_BYTES: usize = 8 << 20;
    let bytes = args.bytes.max(1);
    let mut texts = if args.generated { Vec::new() } else { corpus::sources(bytes) };
    let what = if texts.is_empty() {
        texts = corpus::generated(bytes);
        "generated texts"
    } else {
        "source files of the crates that Aviary is built from"
    };
    let (mut batch, mut size, mut total) = (Vec::new(), 0, 0_usize);
    let count = texts.len();
    for text in texts {
        size += text.text.len();
        total += text.text.len();
        batch.push(rawdoc! { "_id": text.id, "text": text.text });
        if size >= BATCH_BYTES {
            store.load(DEMO_COLLECTION, &batch).await?;
            (batch, size) = (Vec::new(), 0);
        }
    }
    if !batch.is_empty() {
        store.load(DEMO_COLLECTION, &batch).await?;
    }
    Ok(format!("loaded {count} {what}, {} MB, into the collection texts", total / 1_000_000))
}

const DEMO_COLLECTION: &str = "texts";

async fn print_top(store: &Store) -> Result<()> {
    let mut table = output::table(&["word", "count"]);
    let order = doc! { "value": -1, "_id": 1 };
    store
        .results(store.db_name(), "words", order, 10, |row| {
            let word = row.get_str("_id").unwrap_or("?").to_owned();
            let count =
                row.get("value").ok().flatten().and_then(|count| Bson::try_from(count).ok());
            let count = count.as_ref().map(output::number).unwrap_or_default();
            table.add_row([word, count]);
            Ok(())
        })
        .await?;
    table.print()
}

async fn export(store: &Store, path: &std::path::Path) -> Result<()> {
    let failed = |e| Error::io(format!("write {}", path.display()), e);
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).map_err(failed)?);
    store
        .results(store.db_name(), "words", doc! { "_id": 1 }, 0, |row| {
            let line = output::result(&row);
            writeln!(file, "{line}").map_err(failed)
        })
        .await?;
    file.flush().map_err(failed)
}
