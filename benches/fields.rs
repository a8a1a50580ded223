//! What reading one field costs in JavaScript when the document around it is large: `cargo bench --bench fields`.
//!
//! Each document is handed to four scripts: one that reads no field, one that reads the last field once, one that reads
//! it a hundred times, anew each time, one that reads every field. The third less the first is what reading a field
//! costs a hundred times. All are measured in turns in one run, and of each the smallest time is shown, since whatever
//! disturbs only adds. What the first takes is handing the document over: its bytes are copied into the sandbox. Each
//! time counts after a call that does not, so that none of the scripts finds in the processor's caches what another has
//! brought there.
//!
//! A field is found by passing over the fields before it, so what a single read costs grows with their number. The
//! documents of many fields show this, and are not judged: it is no matter of bytes.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use aviary::wasm::{
    Host, HostOptions, Instance, InstanceOptions, JS_GUEST, Limits, Module, Nowhere, Script, Stage,
    js_guest_digest,
};
use bson::{RawDocumentBuf, doc};

/// Times that every row is measured; those of many fields less often, as their scripts take long.
const ROUNDS: usize = 3_000;
const ROUNDS_OF_MANY: usize = 1_000;
/// Rows from here on are of many fields.
const MANY: usize = 4;
/// Documents handed over in one call: one, as a worker does with documents of a megabyte.
const DOCS: usize = 1;
/// A large document may cost so many times what a small one does.
const RATIO_MAX: f64 = 3.0;

/// How often the third script reads its field.
const READS: u32 = 100;
/// Read no field, one once, one a hundred times, every one.
const SCRIPTS: [&str; 4] = [
    "function () { emit(0, 1) }",
    "function () { const k = this.k; emit(0, 1) }",
    "function () { let k; for (let i = 0; i < 100; i++) k = this.k; emit(0, 1) }",
    "function () { let k; for (const name in this) k = this[name]; emit(0, 1) }",
];

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("fields: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A batch of documents whose field `k` lies behind `fields` others that have `bytes` together.
fn batch(fields: usize, bytes: usize) -> Result<Vec<u8>> {
    let mut batch = Vec::new();
    for n in 0..DOCS {
        let mut doc = doc! { "_id": n as i64 };
        for field in 0..fields {
            doc.insert(format!("pad{field}"), "x".repeat(bytes / fields));
        }
        doc.insert("k", n as i32);
        batch.extend_from_slice(RawDocumentBuf::try_from(&doc)?.as_bytes());
    }
    Ok(batch)
}

fn start(module: &Module, map: &str) -> Result<Instance<Nowhere>> {
    let options = InstanceOptions {
        limits: Limits { call_timeout: Duration::from_secs(60), ..Limits::default() },
        scope: b"\x05\0\0\0\0".to_vec(),
        script: Some(Script { map: Some(map.into()), ..Script::default() }),
        ..InstanceOptions::default()
    };
    Ok(Instance::new(module, options, Nowhere)?)
}

struct Row {
    name: &'static str,
    input: Vec<u8>,
    /// An instance of each script, and its best time.
    scripts: Vec<(Instance<Nowhere>, Duration)>,
}

impl Row {
    /// What a script takes for one document, in nanoseconds.
    fn cost(&self, script: usize) -> f64 {
        let best = self.scripts.get(script).map_or(Duration::ZERO, |(_, best)| *best);
        best.as_secs_f64() * 1e9 / DOCS as f64
    }

    /// What a read costs, of a hundred.
    fn field(&self) -> f64 {
        (self.cost(2) - self.cost(0)) / f64::from(READS)
    }

    /// What the only read costs.
    fn once(&self) -> f64 {
        self.cost(1) - self.cost(0)
    }
}

fn run() -> Result<bool> {
    let host = Host::new(HostOptions::default())?;
    let guest = host.load(js_guest_digest(), JS_GUEST)?;
    let mut rows = Vec::new();
    for (name, fields, bytes) in [
        ("1 kB in one field", 1, 1_000),
        ("1 MB in one field", 1, 1_000_000),
        ("1 kB in ten fields", 10, 1_000),
        ("1 MB in ten fields", 10, 1_000_000),
        ("1 kB in 20 fields", 20, 1_000),
        ("1 MB in 20,000 fields", 20_000, 1_000_000),
    ] {
        let scripts = SCRIPTS.map(|script| Ok((start(&guest, script)?, Duration::MAX)));
        let scripts = scripts.into_iter().collect::<Result<_>>()?;
        rows.push(Row { name, input: batch(fields, bytes)?, scripts });
    }
    let (judged, many) = rows.split_at_mut(MANY);
    for (rows, rounds) in [(judged, ROUNDS), (many, ROUNDS_OF_MANY)] {
        for _ in 0..rounds {
            for row in &mut *rows {
                for (instance, best) in &mut row.scripts {
                    instance.call(Stage::Map, &row.input).with_context(|| row.name)?;
                    let began = Instant::now();
                    instance.call(Stage::Map, &row.input).with_context(|| row.name)?;
                    *best = began.elapsed().min(*best);
                }
            }
        }
    }
    println!(
        "{:<21} {:>12} {:>12} {:>12} {:>12} {:>12}",
        "a document of", "none read", "one once", "a hundred", "every one", "one read"
    );
    for row in &rows {
        let [none, once, hundred, every] = [0, 1, 2, 3].map(|script| row.cost(script));
        let field = row.field();
        println!(
            "{:<21} {none:>9.0} ns {once:>9.0} ns {hundred:>9.0} ns {every:>9.0} ns {field:>9.0} ns",
            row.name
        );
    }
    let (judged, many) = rows.split_at(MANY);
    let mut kept = true;
    for pair in judged.chunks(2) {
        if let [small, large] = pair {
            let ratio = large.field() / small.field();
            kept &= ratio <= RATIO_MAX;
            println!(
                "reading one field costs {ratio:.2} times as much of {} as of {} (at most {RATIO_MAX})",
                large.name, small.name
            );
        }
    }
    for row in many {
        let (once, handed) = (row.once(), row.cost(0));
        println!(
            "the only read of the last field of {} costs {once:.0} ns, {:.1} times what handing it over does",
            row.name,
            once / handed
        );
    }
    Ok(kept)
}
