//! The peak memory of a worker with two slots over a collection several times its limit.

use anyhow::{Result, ensure};
use bson::{Document, doc};
use comfy_table::{Table, presets};

use super::bed::{AVIARY, Bed};
use super::jobs::REDUCE;
use super::{data, process};

/// The input at scale 1, in bytes.
const INPUT_BYTES: f64 = 1.5e9;
/// What a worker with two slots may have resident at most, in bytes.
const RSS_BYTES_MAX: u64 = 512 << 20;

const INPUT: &str = "large";
const OUT: &str = "large-out";
const WORDS: &str = "function () { for (const word of this.text.split(' ')) emit(word, 1); }";
const IDS: &str = "function () { emit(this._id, 1); }";
/// Nothing shrinks: the whole input goes through the shuffle.
const TEXTS: &str = "function () { emit(this._id, this.text); }";
const FIRST: &str = "function (key, values) { return values[0]; }";

/// Runs each job in a worker of its own; says whether all kept the limit.
pub async fn run(scale: f64) -> Result<bool> {
    let bed = Bed::start().await?;
    let texts = data::texts_of_bytes(INPUT_BYTES * scale);
    eprintln!("loading {texts} texts");
    data::load_texts(&bed.db(), INPUT, texts).await?;
    let words = format!("{}/guests/c/word_count.wasm", env!("CARGO_MANIFEST_DIR")).into();
    let words_js = bed.file("words.js", WORDS)?;
    let ids = bed.file("ids.js", IDS)?;
    let whole = bed.file("texts.js", TEXTS)?;
    let first = bed.file("first.js", FIRST)?.to_string_lossy().into_owned();
    let reduce = bed.file("sum.js", REDUCE)?.to_string_lossy().into_owned();
    let jobs = [
        ("word count, C map, _sum", &words, "_sum", false),
        ("word count, JS map, JS reduce", &words_js, reduce.as_str(), false),
        ("a key for each document, JS map, _sum", &ids, "_sum", true),
        ("a key for each document, JS map, JS reduce", &ids, reduce.as_str(), true),
        ("each text under its own key, JS map, JS reduce", &whole, first.as_str(), true),
    ];
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header([
        "job",
        "results",
        "wall s",
        "worker's peak RSS, MiB",
        "below 512 MiB",
    ]);
    let mut kept = true;
    for (name, map, reduce, distinct) in jobs {
        let daemons = bed.daemons(AVIARY, "memory")?;
        let began = std::time::Instant::now();
        bed.submit(AVIARY, INPUT, map, reduce, OUT, &[]).await?;
        let wall = began.elapsed().as_secs_f64();
        let peak = process::peak_rss_bytes(daemons.worker.pid())?;
        let out = bed.db().collection::<Document>(OUT);
        let results = out.count_documents(doc! {}).await?;
        ensure!(!distinct || results == u64::from(texts), "{name}: {results} results of {texts}");
        eprintln!("{name}: {wall:.1} s, peak {} MiB", peak >> 20);
        let passed = peak < RSS_BYTES_MAX;
        kept &= passed;
        table.add_row([
            name.to_owned(),
            results.to_string(),
            format!("{wall:.1}"),
            format!("{:.0}", peak as f64 / f64::from(1 << 20)),
            (if passed { "PASS" } else { "FAIL" }).to_owned(),
        ]);
        for daemon in [&daemons.worker, &daemons.coordinator] {
            daemon.stop(std::time::Duration::from_secs(30)).await?;
        }
    }
    println!("{table}");
    println!(
        "{texts} texts, {:.2} GB; one worker with two slots for each job",
        INPUT_BYTES * scale / 1e9
    );
    bed.db().collection::<Document>(INPUT).drop().await?;
    bed.set.shutdown().await?;
    Ok(kept)
}
