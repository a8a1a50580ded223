//! Where a job only adds up or counts, functions add up what they emit before the host gets it. Results and counters
//! are those of single emits.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use aviary::shuffle::{Accumulator, Builtin};
use aviary::toolchain::{self, Language};
use aviary::value::tag;
use aviary::value::{RawVal, RawValBuf};
use aviary::wasm::{
    Host, HostOptions, Instance, InstanceOptions, Level, Limits, Sink, SinkError, Stage, Sums,
};
use bson::{Bson, Document, doc, oid::ObjectId};

use crate::common::{Bed, root};
use crate::compilers::there;

/// Pairs of one document.
const PAIRS: usize = 500;
/// Emits of each of the keys that repeat.
const EACH: usize = 200;
/// More keys than a table holds.
const DISTINCT: usize = 20_000;

/// What is emitted for keys of one kind.
fn values() -> Vec<(&'static str, Vec<Bson>)> {
    let decimal = |text: &str| Bson::Decimal128(text.parse().unwrap());
    let large = 17_592_186_044_415.0;
    vec![
        ("ints", vec![1.into(), i32::MAX.into(), i32::MAX.into(), i32::MIN.into(), (-7).into()]),
        ("longs", vec![i64::MAX.into(), 1_i64.into(), i64::MIN.into(), i64::MAX.into()]),
        (
            "exact",
            vec![0.25.into(), large.into(), large.into(), (-3.5).into(), (1.0 / 256.0).into()],
        ),
        ("inexact", vec![0.1.into(), 0.25.into(), 1e300.into(), (-1e300).into(), 0.7.into()]),
        ("negative", vec![(-large).into(), (-0.25).into(), (-large).into()]),
        ("negative zero", vec![(-0.0).into()]),
        ("zeros", vec![(-0.0).into(), 0.0.into()]),
        ("NaN", vec![1.0.into(), f64::NAN.into(), 2.0.into()]),
        ("infinite", vec![f64::INFINITY.into(), 0.5.into()]),
        ("decimals", vec![decimal("0.1"), 1.into(), 0.5.into(), decimal("-7E+3")]),
        ("mixed", vec![1.into(), 2_i64.into(), 0.5.into(), 3.into()]),
    ]
}

/// Keys of every shape that a table takes, and of others.
fn keys(name: &str, index: u8) -> Vec<Bson> {
    vec![
        name[..2].into(),
        format!("déjà vu {name}").into(),
        format!("{name:-<28}").into(),
        format!("{name:-<29}").into(),
        format!("{name} {}", "and so on ".repeat(30)).into(),
        ObjectId::from_bytes([index; 12]).into(),
        i32::from(index).into(),
        doc! { "key": name }.into(),
    ]
}

/// Pairs of few keys, each with many values.
fn repeated() -> Vec<(Bson, Bson)> {
    let mut pairs = Vec::new();
    for (index, (name, values)) in (1..).zip(values()) {
        for (at, key) in keys(name, index).into_iter().enumerate() {
            let of_key = values.iter().cycle().skip(at).take(EACH);
            pairs.extend(of_key.map(|value| (key.clone(), value.clone())));
        }
    }
    // Mixed, the same each time.
    let len = pairs.len();
    let mut mixed: Vec<_> = (0..len).map(|n| pairs[n * 7_919 % len].clone()).collect();
    // A symbol is equal to a text: of the two, the one that came first is the key.
    for (name, _) in values() {
        let (text, symbol) = (Bson::from(name), Bson::Symbol(name.into()));
        mixed.extend([&symbol, &text, &symbol, &text].map(|key| (key.clone(), 1.into())));
        let (text, symbol) = (format!("t {name}").into(), Bson::Symbol(format!("t {name}")));
        mixed.extend([&text, &symbol, &text, &symbol].map(|key| (key.clone(), 1.into())));
    }
    mixed
}

fn documents(pairs: impl IntoIterator<Item = (Bson, Bson)>) -> Vec<Document> {
    let pairs: Vec<Document> = pairs.into_iter().map(|(k, v)| doc! { "k": k, "v": v }).collect();
    (0_i32..)
        .zip(pairs.chunks(PAIRS))
        .map(|(id, some)| doc! { "_id": id, "pairs": some.to_vec() })
        .collect()
}

/// Emits each pair of a document.
fn source(language: Language) -> PathBuf {
    root().join(format!("tests/languages/sources/sums.{}", language.extensions()[0]))
}

/// The same, with every emit a call of the host.
fn without_sums(language: Language) -> String {
    let text = std::fs::read_to_string(source(language)).unwrap();
    match language {
        Language::C | Language::Cpp => format!("#define AVIARY_NO_SUMS\n{text}"),
        Language::Rust => format!("{text}\naviary::no_sums!();\n"),
        Language::Go => format!("{text}\nfunc init() {{\n\taviary.Sums = false\n}}\n"),
        Language::Zig => {
            format!("{text}\npub const aviary_options: aviary.Options = .{{ .sums = false }};\n")
        }
        Language::AssemblyScript => {
            format!("import {{ disableSums }} from \"aviary\";\n{text}\ndisableSums();\n")
        }
    }
}

/// A key's sum, and how many emits.
struct Total {
    sum: Accumulator,
    emits: u64,
}

/// Adds up what it is given, as a worker does.
#[derive(Default)]
struct Adding {
    wants: bool,
    totals: BTreeMap<Vec<u8>, Total>,
    /// Whether a key that is text came first as a string or as a symbol.
    first: BTreeMap<Vec<u8>, u8>,
    emits: u64,
    sums: u64,
}

impl Adding {
    fn add(&mut self, key: &[u8], value: &[u8], emits: u32) -> Result<(), SinkError> {
        if let [kind @ (tag::STRING | tag::SYMBOL), text @ ..] = key {
            self.first.entry(text.to_vec()).or_insert(*kind);
        }
        let new = || Total { sum: Accumulator::new(Builtin::Sum), emits: 0 };
        let total = self.totals.entry(key.to_vec()).or_insert_with(new);
        total.emits += u64::from(emits);
        Ok(total.sum.add(RawVal { tag: value[0], bytes: &value[1..] })?)
    }

    /// For each key the sum and how many emits.
    fn results(&self) -> BTreeMap<&[u8], (RawValBuf, u64)> {
        let result = |total: &Total| (total.sum.finish(), total.emits);
        self.totals.iter().map(|(key, total)| (key.as_slice(), result(total))).collect()
    }
}

impl Sink for Adding {
    fn emit(&mut self, key: &[u8], value: &[u8]) -> Result<(), SinkError> {
        self.emits += 1;
        self.add(key, value, 1)
    }
    fn wants_sums(&self) -> Option<Sums> {
        self.wants.then_some(Sums::InAnyOrder)
    }
    fn emit_total(&mut self, key: &[u8], value: &[u8], emits: u32) -> Result<(), SinkError> {
        self.sums += 1;
        assert!(emits > 0);
        self.add(key, value, emits)
    }
    fn count(&mut self, _name: &str, _delta: i64) {}
    fn log(&mut self, _level: Level, _text: &str) {}
}

/// Maps the documents, a few to a call; with what was emitted, its bytes.
fn mapped(module: &[u8], wants: bool, documents: &[Document]) -> (Adding, u64) {
    static HOST: OnceLock<Host> = OnceLock::new();
    let host = HOST.get_or_init(|| Host::new(HostOptions::default()).unwrap());
    let module = host.load(&blake3::hash(module), module).unwrap();
    let limits = Limits { call_timeout: Duration::from_secs(600), ..Limits::default() };
    let options = InstanceOptions { limits, ..InstanceOptions::default() };
    let sink = Adding { wants, ..Adding::default() };
    let mut instance = Instance::new(&module, options, sink).unwrap();
    let mut bytes = 0;
    for some in documents.chunks(7) {
        let input: Vec<u8> = some.iter().flat_map(|one| one.to_vec().unwrap()).collect();
        instance.call_batch(Stage::Map, &input, some.len()).unwrap();
        bytes += instance.output_bytes();
    }
    (instance.into_sink(), bytes)
}

/// Each language's function gives the host the same sums as one that does not add up, in fewer calls.
pub fn are_those_of_single_emits() {
    let repeated = documents(repeated());
    let key = |n: usize| Bson::from((n % DISTINCT).to_string());
    // Three times each, in one call: keys make room for others.
    let many: Vec<Document> = (0..DISTINCT * 3).map(|n| doc! { "k": key(n / 3), "v": 1 }).collect();
    let many = doc! { "pairs": many };
    // Often, and never twice in a call: a table rests.
    let seldom = documents((0..30_000).map(|n| (key(n), 1.into())));
    let one_key = documents((0..20_000).map(|_| ("k".into(), 1.5.into())));
    for language in Language::ALL.into_iter().filter(|language| there(*language)) {
        let dir = tempfile::tempdir().unwrap();
        let plain = dir.path().join(format!("plain.{}", language.extensions()[0]));
        std::fs::write(&plain, without_sums(language)).unwrap();
        let [summing, plain] =
            [source(language), plain].map(|path| toolchain::build(&[path]).unwrap().module);
        let both = |documents: &[Document]| {
            let (with, bytes) = mapped(&summing, true, documents);
            let pairs: usize =
                documents.iter().map(|one| one.get_array("pairs").unwrap().len()).sum();
            for (module, wants) in [(&plain, true), (&summing, false)] {
                let (without, bytes_without) = mapped(module, wants, documents);
                assert_eq!((without.sums, without.emits), (0, pairs as u64), "{language}");
                assert_eq!(bytes, bytes_without, "{language}");
                assert_eq!(with.results(), without.results(), "{language}");
                assert_eq!(with.first, without.first, "{language}");
            }
            (with.emits, with.sums, pairs as u64)
        };
        let (emits, sums, pairs) = both(&repeated);
        assert!(
            sums > 0 && emits + sums < pairs,
            "{language}: {emits} emits, {sums} sums of {pairs}"
        );
        let (emits, sums, _) = both(std::slice::from_ref(&many));
        assert!(emits == 0 && sums >= DISTINCT as u64, "{language}: {emits} emits, {sums} sums");
        let (emits, sums, _) = both(&seldom);
        assert!(emits > 20_000 && sums < 10_000, "{language}: {emits} emits, {sums} sums");
        let (emits, sums, _) = both(&one_key);
        assert!(emits == 0 && sums < 50, "{language}: {emits} emits, {sums} sums");
    }
}

/// What a job of single emits gives, for some keys whose values are exact, computed here.
fn expected(pairs: &[(Bson, Bson)]) -> Vec<(Bson, Bson)> {
    let key = |name: &str| Bson::from(format!("déjà vu {name}"));
    let of = |name| {
        let wanted = key(name);
        let found = pairs.iter().filter(move |(key, _)| *key == wanted);
        found.map(|(_, value)| value.clone()).collect::<Vec<_>>()
    };
    let integer = |value: &Bson| value.as_i64().or(value.as_i32().map(i64::from)).unwrap();
    let whole = |name| of(name).iter().map(|value| i128::from(integer(value))).sum::<i128>();
    // Multiples of 1/256, rounded once.
    let parts = |value: &Bson| (value.as_f64().unwrap() * 256.0) as i128;
    let real = |name| of(name).iter().map(parts).sum::<i128>() as f64 / 256.0;
    vec![
        (key("ints"), i64::try_from(whole("ints")).unwrap().into()),
        // Beyond 64 bits, a sum of integers is a double.
        (key("longs"), (whole("longs") as f64).into()),
        (key("exact"), real("exact").into()),
        (key("negative"), real("negative").into()),
        (key("zeros"), 0.0.into()),
    ]
}

/// The same of whole jobs.
pub async fn change_neither_results_nor_counters(bed: &Bed) {
    let _coordinator = bed.coordinator();
    let _worker = bed.worker();
    let pairs = repeated();
    let others = [Bson::Null, "text".into(), true.into(), doc! { "a": 1 }.into()];
    let counted = pairs.iter().enumerate().map(|(n, (key, value))| {
        let value = if n % 5 == 0 { &others[n / 5 % others.len()] } else { value };
        (key.clone(), value.clone())
    });
    bed.load("summed", documents(pairs.clone())).await;
    bed.load("counted", documents(counted)).await;
    for language in Language::ALL.into_iter().filter(|language| there(*language)) {
        let plain = format!("plain.{}", language.extensions()[0]);
        let plain = bed.file(&plain, &without_sums(language)).display().to_string();
        let summing = source(language).display().to_string();
        for (input, reduce) in [("summed", "_sum"), ("counted", "_count")] {
            let mut found = Vec::new();
            for map in [&summing, &plain] {
                let mut args = vec!["submit", "-q", "-o", "name", "-c", input, "--map", map];
                args.extend(["--reduce", reduce, "--out", "replace:sums"]);
                let ran = bed.aviary(&args).await.ok();
                let counters = ["counters", ran.stdout.trim(), "-o", "json"];
                let counters = bed.aviary(&counters).await.ok().json().remove(0);
                assert_eq!(counters["emit"], pairs.len(), "{language}: {counters}");
                let rows: Vec<Vec<u8>> =
                    bed.all("sums").await.iter().map(|row| row.to_vec().unwrap()).collect();
                found.push((rows, counters));
            }
            // By their bytes, so that each zero is itself and each NaN is equal.
            assert!(found[0] == found[1], "{language}, {reduce}: {found:?}");
            let rows = bed.all("sums").await;
            let row = |key: &Bson| rows.iter().find(|row| row.get("_id") == Some(key)).unwrap();
            if reduce == "_sum" {
                for (key, sum) in expected(&pairs) {
                    assert_eq!(row(&key).get("value"), Some(&sum), "{language}: {key}");
                }
                // A sum begins with 0, to which a negative zero adds nothing.
                let zero = row(&"déjà vu negative zero".into()).get_f64("value").unwrap();
                assert_eq!(zero.to_bits(), 0, "{language}: {zero}");
                let nan = row(&"déjà vu NaN".into()).get_f64("value").unwrap();
                assert!(nan.is_nan(), "{language}: {nan}");
            } else {
                let each = i64::try_from(EACH).unwrap();
                let key = Bson::from(doc! { "key": "mixed" });
                assert_eq!(row(&key).get_i64("value").unwrap(), each, "{language}");
            }
        }
    }
}
