//! What the guests of the nine runs that are compared with peers (`cargo bench --bench peers`) execute, in WebAssembly's
//! instructions as wasmtime counts them. The same modules and documents give the same counts on every machine, so a
//! change that makes one run grow by more than a tenth fails here, whatever else the machine does.
//!
//! After a change that is worth what it costs, or that saves, write the printed counts into the table.

use std::collections::BTreeMap;

use bson::{RawDocumentBuf, rawdoc};
use wasmtime::{Config, Engine, ExternType, Instance, Linker, Memory, Module, Store, Val};

use crate::peers_data::{order, text, vocabulary};
use crate::peers_jobs::{JOBS, Job, REDUCE};

/// Documents of each run.
const DOCS: u32 = 2_000;
/// More than any run takes.
const ENOUGH: u64 = 1 << 60;
const GROWTH_MAX: f64 = 1.1;

/// Instructions of each run: a map in C with sums, one in JavaScript with sums, and one with a reduce.
const COUNTED: [(&str, [u64; 3]); 3] = [
    ("sum by customer", [5_119_338, 8_146_965, 27_380_696]),
    ("units by sku", [12_237_669, 28_255_875, 53_419_067]),
    ("word count", [92_881_952, 150_988_511, 446_917_612]),
];

#[derive(Default)]
struct Sink {
    /// Values by key, each as its type and bytes.
    pairs: BTreeMap<Vec<u8>, Vec<Vec<u8>>>,
    /// How many emits there were, those of sums included.
    emits: u64,
}

struct Guest {
    store: Store<Sink>,
    instance: Instance,
    memory: Memory,
}

impl Guest {
    fn new(module: &Module) -> Self {
        let engine = module.engine();
        let mut store = Store::new(engine, Sink::default());
        store.set_fuel(ENOUGH).unwrap();
        let mut linker = Linker::<Sink>::new(engine);
        for import in module.imports() {
            let (space, name) = (import.module().to_owned(), import.name().to_owned());
            let ExternType::Func(of) = import.ty() else { panic!("{space}.{name}") };
            let called = name.clone();
            linker
                .func_new(&space, &name, of, move |mut caller, given, results| {
                    let at = |n: usize| u32::try_from(given[n].unwrap_i32()).unwrap() as usize;
                    let memory = caller.get_export("memory").unwrap().into_memory().unwrap();
                    let bytes = |n: usize| memory.data(&caller)[at(n)..][..at(n + 1)].to_vec();
                    match called.as_str() {
                        "emit" => {
                            let (key, value) = (bytes(0), bytes(2));
                            let sink = caller.data_mut();
                            sink.pairs.entry(key).or_default().push(value);
                            sink.emits += 1;
                        }
                        "emit_sum" => caller.data_mut().emits += at(3) as u64,
                        "emit_total" => caller.data_mut().emits += at(4) as u64,
                        "fail" => panic!("{}", String::from_utf8_lossy(&bytes(0))),
                        // No clock, no scope, no randomness.
                        _ => results.iter_mut().for_each(|result| *result = Val::I32(0)),
                    }
                    Ok(())
                })
                .unwrap();
        }
        let instance = linker.instantiate(&mut store, module).unwrap();
        let memory = instance.get_memory(&mut store, "memory").unwrap();
        let mut guest = Self { store, instance, memory };
        if guest.instance.get_func(&mut guest.store, "_initialize").is_some() {
            let start = guest.instance.get_typed_func::<(), ()>(&mut guest.store, "_initialize");
            start.unwrap().call(&mut guest.store, ()).unwrap();
        }
        guest
    }

    fn javascript(module: &Module, stages: &RawDocumentBuf) -> Self {
        let mut guest = Self::new(module);
        guest.call("aviary_js_load", stages.as_bytes());
        guest
    }

    fn wants_sums(&mut self, export: &str) {
        let told = self.instance.get_typed_func::<i32, ()>(&mut self.store, export).unwrap();
        told.call(&mut self.store, 1).unwrap();
    }

    fn call(&mut self, stage: &str, input: &[u8]) {
        let len = i32::try_from(input.len()).unwrap();
        let room = self.instance.get_typed_func::<i32, i32>(&mut self.store, "aviary_alloc");
        let at = room.unwrap().call(&mut self.store, len).unwrap();
        self.memory.write(&mut self.store, usize::try_from(at).unwrap(), input).unwrap();
        let stage = self.instance.get_typed_func::<(i32, i32), ()>(&mut self.store, stage);
        stage.unwrap().call(&mut self.store, (at, len)).unwrap();
    }

    /// Instructions that calls of a stage take, once a first call has been made.
    fn counted(&mut self, stage: &str, batches: &[Vec<u8>]) -> u64 {
        self.call(stage, &batches[0]);
        *self.store.data_mut() = Sink::default();
        let before = self.store.get_fuel().unwrap();
        for batch in batches {
            self.call(stage, batch);
        }
        before - self.store.get_fuel().unwrap()
    }
}

/// The documents of a job's input, a hundred to a batch.
fn input(job: &Job) -> Vec<Vec<u8>> {
    let words = vocabulary();
    let one = |id| if job.input == "texts" { text(id, &words) } else { order(id) };
    let all: Vec<RawDocumentBuf> = (0..DOCS).map(one).collect();
    all.chunks(100)
        .map(|some| some.iter().flat_map(|one| one.as_bytes().to_vec()).collect())
        .collect()
}

/// What a reduce is given for one key: `{k, v}`.
fn group(key: &[u8], values: &[Vec<u8>]) -> Vec<u8> {
    let document = |elements: Vec<u8>| {
        let len = i32::try_from(elements.len() + 5).unwrap();
        [&len.to_le_bytes()[..], &elements, &[0]].concat()
    };
    let element =
        |name: &str, value: &[u8]| [&value[..1], name.as_bytes(), &[0], &value[1..]].concat();
    let items = values.iter().enumerate().flat_map(|(n, value)| element(&n.to_string(), value));
    let array = [&[4][..], &document(items.collect())].concat();
    document([element("k", key), element("v", &array)].concat())
}

/// Runs as a worker's engine has it, and counts.
fn engine() -> Engine {
    let mut config = Config::new();
    config.consume_fuel(true).cranelift_nan_canonicalization(true).max_wasm_stack(16 << 20);
    config.async_stack_size(17 << 20);
    Engine::new(&config).unwrap()
}

fn counts(job: &Job, javascript: &Module) -> [u64; 3] {
    let input = input(job);
    let guests = concat!(env!("CARGO_MANIFEST_DIR"), "/guests/c/");
    let in_c = Module::from_file(javascript.engine(), format!("{guests}{}", job.module)).unwrap();
    let mut in_c = Guest::new(&in_c);
    in_c.wants_sums("aviary_sums");
    let c = in_c.counted("map", &input);

    let mut sums = Guest::javascript(javascript, &rawdoc! { "map": job.map });
    sums.wants_sums("aviary_js_sums");
    let summed = sums.counted("map", &input);

    let mut plain = Guest::javascript(javascript, &rawdoc! { "map": job.map });
    let mut reduced = plain.counted("map", &input);
    let Sink { pairs, emits } = std::mem::take(plain.store.data_mut());
    assert_eq!(in_c.store.data().emits, emits, "{}: C emits as JavaScript does", job.name);
    assert_eq!(sums.store.data().emits, emits, "{}: sums count what they stand for", job.name);
    let groups: Vec<Vec<u8>> = pairs.iter().map(|(key, values)| group(key, values)).collect();
    let groups: Vec<Vec<u8>> = groups.chunks(100).map(|some| some.concat()).collect();
    let mut reduce = Guest::javascript(javascript, &rawdoc! { "reduce": REDUCE });
    reduced += reduce.counted("reduce", &groups);
    assert_eq!(
        reduce.store.data().emits,
        pairs.len() as u64,
        "{}: a result for each key",
        job.name
    );
    [c, summed, reduced]
}

#[test]
fn none_of_the_nine_runs_takes_more_instructions() {
    let quickjs = include_bytes!("../../guests/js/quickjs.wasm");
    let javascript = Module::new(&engine(), quickjs).unwrap();
    let mut grown = Vec::new();
    for (job, (name, known)) in JOBS.iter().zip(COUNTED) {
        assert_eq!(job.name, name);
        let now = counts(job, &javascript);
        println!("    ({name:?}, {now:?}),");
        for (run, (known, now)) in
            ["C", "JavaScript", "JavaScript, reduce too"].iter().zip(known.into_iter().zip(now))
        {
            let ratio = now as f64 / known as f64;
            println!("        {run}: {now}, {ratio:.3} of what it was");
            if ratio > GROWTH_MAX {
                grown.push(format!("{name}, {run}: {ratio:.3}"));
            }
        }
    }
    assert!(grown.is_empty(), "more instructions than before: {grown:?}");
}
