//! A host of the JavaScript guest that writes down everything a program does.

use std::sync::OnceLock;
use std::time::Duration;

use aviary::shuffle::{Combine, Fold, Table};
use aviary::value::{RawVal, RawValBuf};
use bson::raw::RawArrayBuf;
use bson::{Bson, RawDocument, rawdoc};
use wasmtime::{
    Caller, Config, Enabled, Engine, InstanceAllocationStrategy, InstancePre, Linker, Memory,
    Module, OptLevel, PoolingAllocationConfig, Result, Store, StoreLimits, StoreLimitsBuilder,
    TypedFunc,
};

use crate::random::Random;

/// Memory of an instance, in bytes.
const MEMORY_BYTES_MAX: usize = 128 << 20;
/// How often the engine's epoch moves on, in milliseconds.
const TICK_MS: u64 = 200;
/// How many of these a call may take. Programs take much less, unless one does not end.
const TICKS_MAX: u64 = 15;
/// The time that the clock shows, in nanoseconds since 1970.
const CLOCK_NS: u64 = 1_700_000_000_123_000_000;
/// Instances at once: two for each thread.
const INSTANCES_MAX: u32 = 128;

/// What a program did: every emit, log line and count in order, and how each call ended.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Transcript {
    /// All of it.
    pub bytes: Vec<u8>,
    /// How many pairs were emitted.
    pub emits: u32,
    /// How many calls failed.
    pub failures: u32,
    /// Whether one did not end, so that there is nothing to compare.
    pub endless: bool,
}

impl Transcript {
    fn note(&mut self, what: u8, parts: [&[u8]; 2]) {
        self.bytes.push(what);
        for part in parts {
            self.bytes.extend_from_slice(&u32::try_from(part.len()).unwrap().to_le_bytes());
            self.bytes.extend_from_slice(part);
        }
    }
}

struct Guest {
    seen: Transcript,
    limits: StoreLimits,
    memory: Option<Memory>,
    random: Random,
    /// Where emits go instead, as a worker's do whose reduce adds up.
    table: Option<Table>,
}

/// The compiled guest.
pub struct Machine {
    engine: Engine,
    linked: InstancePre<Guest>,
}

/// An instance of the guest.
pub struct Instance {
    store: Store<Guest>,
    memory: Memory,
    alloc: TypedFunc<u32, u32>,
    load: TypedFunc<(u32, u32), ()>,
    map: TypedFunc<(u32, u32), ()>,
    reduce: TypedFunc<(u32, u32), ()>,
    known: TypedFunc<(), i32>,
    /// How many reduces were known.
    pub known_reduces: u64,
}

fn memory(caller: &mut Caller<'_, Guest>) -> Memory {
    let known = caller.data().memory;
    known.unwrap_or_else(|| {
        let memory = caller.get_export("memory").unwrap().into_memory().unwrap();
        caller.data_mut().memory = Some(memory);
        memory
    })
}

/// Notes two pieces of the guest's memory.
fn note(caller: &mut Caller<'_, Guest>, what: u8, parts: [(u32, u32); 2]) {
    let (bytes, guest) = memory(caller).data_and_store_mut(caller);
    let [a, b] = parts.map(|(ptr, len)| &bytes[ptr as usize..][..len as usize]);
    guest.seen.note(what, [a, b]);
}

/// Takes an emit.
fn emit(caller: &mut Caller<'_, Guest>, parts: [(u32, u32); 2]) {
    let (bytes, guest) = memory(caller).data_and_store_mut(caller);
    let [key, value] = parts.map(|(ptr, len)| &bytes[ptr as usize..][..len as usize]);
    match &mut guest.table {
        Some(table) => add(table, key, value),
        None => guest.seen.note(b'E', [key, value]),
    }
}

fn add(table: &mut Table, key: &[u8], value: &[u8]) {
    let [key, value] = [key, value].map(|tagged| RawVal { tag: tagged[0], bytes: &tagged[1..] });
    table.add(key, value).unwrap();
}

fn define(linker: &mut Linker<Guest>) -> Result<()> {
    type From<'a> = Caller<'a, Guest>;
    linker.func_wrap(
        "aviary",
        "emit",
        |mut from: From<'_>, k: u32, kn: u32, v: u32, vn: u32| {
            from.data_mut().seen.emits += 1;
            emit(&mut from, [(k, kn), (v, vn)]);
        },
    )?;
    linker.func_wrap(
        "aviary",
        "emit_sum",
        |mut from: From<'_>, k: u32, kn: u32, sum: f64, emits: u32| {
            from.data_mut().seen.emits += emits;
            let (bytes, guest) = memory(&mut from).data_and_store_mut(&mut from);
            let table = guest.table.as_mut().expect("sums are not wanted");
            add(table, &bytes[k as usize..][..kn as usize], &tagged(&double(sum)));
        },
    )?;
    linker.func_wrap("aviary", "count", |mut from: From<'_>, p: u32, n: u32, delta: u64| {
        note(&mut from, b'C', [(p, n), (0, 0)]);
        from.data_mut().seen.bytes.extend_from_slice(&delta.to_le_bytes());
    })?;
    linker.func_wrap("aviary", "log", |mut from: From<'_>, level: u32, p: u32, n: u32| {
        note(&mut from, b'L', [(p, n), (0, 0)]);
        from.data_mut().seen.bytes.extend_from_slice(&level.to_le_bytes());
    })?;
    linker.func_wrap("aviary", "fail", |mut from: From<'_>, p: u32, n: u32| -> Result<()> {
        note(&mut from, b'F', [(p, n), (0, 0)]);
        Err(wasmtime::Error::msg("the function failed"))
    })?;
    linker.func_wrap("aviary", "scope", |_: From<'_>, _: u32, _: u32| 0_u32)?;
    let wasi = "wasi_snapshot_preview1";
    linker.func_wrap(wasi, "clock_time_get", |mut from: From<'_>, _: u32, _: u64, at: u32| {
        memory(&mut from).write(&mut from, at as usize, &CLOCK_NS.to_le_bytes())?;
        wasmtime::Result::Ok(0_u32)
    })?;
    linker.func_wrap(wasi, "random_get", |mut from: From<'_>, at: u32, n: u32| {
        let bytes: Vec<u8> = (0..n).map(|_| from.data_mut().random.byte()).collect();
        memory(&mut from).write(&mut from, at as usize, &bytes)?;
        wasmtime::Result::Ok(0_u32)
    })?;
    Ok(())
}

impl Machine {
    /// Compiles the guest, or another build of it that `AVIARY_JS_GUEST` names.
    pub fn new() -> Self {
        let mut pool = PoolingAllocationConfig::new();
        pool.total_core_instances(INSTANCES_MAX)
            .total_memories(INSTANCES_MAX)
            .total_tables(INSTANCES_MAX)
            .max_memory_size(MEMORY_BYTES_MAX)
            .linear_memory_keep_resident(1 << 20)
            .pagemap_scan(Enabled::Auto);
        let mut config = Config::new();
        config
            .cranelift_opt_level(OptLevel::Speed)
            .cranelift_nan_canonicalization(true)
            .epoch_interruption(true)
            .max_wasm_stack(16 << 20)
            .async_stack_size(16 << 20)
            .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        let engine = Engine::new(&config).unwrap();
        let committed = concat!(env!("CARGO_MANIFEST_DIR"), "/guests/js/quickjs.wasm");
        let guest = std::env::var("AVIARY_JS_GUEST").unwrap_or_else(|_| committed.to_owned());
        let module = Module::from_file(&engine, guest).unwrap();
        let mut linker = Linker::new(&engine);
        define(&mut linker).unwrap();
        let linked = linker.instantiate_pre(&module).unwrap();
        Self { engine, linked }
    }

    /// The one that all tests share, with an epoch that moves on.
    pub fn shared() -> &'static Self {
        static MACHINE: OnceLock<Machine> = OnceLock::new();
        MACHINE.get_or_init(|| {
            let machine = Self::new();
            let engine = machine.engine.weak();
            std::thread::spawn(move || {
                while let Some(engine) = engine.upgrade() {
                    engine.increment_epoch();
                    drop(engine);
                    std::thread::sleep(Duration::from_millis(TICK_MS));
                }
            });
            machine
        })
    }

    /// Starts an instance with the fast paths on or off. Its emits are noted one by one, or go to a table.
    pub fn start(&self, fast: bool, table: bool) -> Instance {
        let limits = StoreLimitsBuilder::new().memory_size(MEMORY_BYTES_MAX).build();
        let guest = Guest {
            seen: Transcript::default(),
            limits,
            memory: None,
            random: Random::new(7),
            table: None,
        };
        let mut store = Store::new(&self.engine, guest);
        store.limiter(|guest| &mut guest.limits);
        store.set_epoch_deadline(TICKS_MAX);
        let instance = self.linked.instantiate(&mut store).unwrap();
        let memory = instance.get_memory(&mut store, "memory").unwrap();
        store.data_mut().memory = Some(memory);
        let start = instance.get_typed_func::<(), ()>(&mut store, "_initialize").unwrap();
        start.call(&mut store, ()).unwrap();
        let switch =
            instance.get_typed_func::<i32, ()>(&mut store, "aviary_js_fast_paths").unwrap();
        switch.call(&mut store, i32::from(fast)).unwrap();
        if table {
            store.data_mut().table = Some(Table::new(Combine::Folded(Fold::Sum)));
        }
        if table && fast {
            let sums = instance.get_typed_func::<i32, ()>(&mut store, "aviary_js_sums").unwrap();
            sums.call(&mut store, 2).unwrap();
        }
        let alloc = instance.get_typed_func(&mut store, "aviary_alloc").unwrap();
        let mut stage = |name| instance.get_typed_func(&mut store, name).unwrap();
        let (load, map, reduce) = (stage("aviary_js_load"), stage("map"), stage("reduce"));
        let known = instance.get_typed_func(&mut store, "aviary_js_known").unwrap();
        Instance { store, memory, alloc, load, map, reduce, known, known_reduces: 0 }
    }
}

impl Instance {
    /// Gives a call its input. False if the guest failed, after which the instance is of no more use.
    fn feed(&mut self, which: fn(&Self) -> &TypedFunc<(u32, u32), ()>, input: &[u8]) -> bool {
        let len = u32::try_from(input.len()).unwrap();
        self.store.set_epoch_deadline(TICKS_MAX);
        let at = self.alloc.call(&mut self.store, len).unwrap();
        self.memory.write(&mut self.store, at as usize, input).unwrap();
        let function = which(self).clone();
        let Err(error) = function.call(&mut self.store, (at, len)) else { return true };
        let seen = &mut self.store.data_mut().seen;
        seen.failures += 1;
        match error.downcast_ref::<wasmtime::Trap>() {
            Some(wasmtime::Trap::Interrupt) => seen.endless = true,
            Some(trap) => seen.note(b'T', [trap.to_string().as_bytes(), &[]]),
            None => {}
        }
        false
    }

    fn map(&mut self, documents: &[u8]) -> bool {
        let whole = self.feed(|instance| &instance.map, documents);
        self.give_table(whole);
        whole
    }

    /// Notes what is in the table. Of a call that failed, nothing is kept.
    fn give_table(&mut self, whole: bool) {
        let guest = self.store.data_mut();
        let Some(table) = &mut guest.table else { return };
        if !whole {
            table.clear();
        }
        let seen = &mut guest.seen;
        let drained: Result<()> = table.drain_sorted(1, |group| {
            seen.note(b'G', [&tagged(&group.key.into()), &[]]);
            group.values.for_each(|value| seen.note(b'V', [&tagged(&value.into()), &[]]));
            Ok(())
        });
        drained.unwrap();
    }

    /// Reduces groups as a worker does: where the function is known, it is called only with what it must be called for.
    fn reduce(&mut self, groups: &[u8]) -> bool {
        let fold = match self.known.call(&mut self.store, ()).unwrap() {
            0 => return self.feed(|instance| &instance.reduce, groups),
            1 => Fold::Sum,
            2 => Fold::Min,
            3 => Fold::Max,
            other => panic!("{other} is no reduce"),
        };
        self.known_reduces += 1;
        let mut rest = groups;
        while let Some(len) = rest.first_chunk::<4>() {
            let (group, after) = rest.split_at(u32::from_le_bytes(*len) as usize);
            rest = after;
            if !self.reduce_known(fold, RawDocument::from_bytes(group).unwrap()) {
                return false;
            }
        }
        true
    }

    fn reduce_known(&mut self, fold: Fold, group: &RawDocument) -> bool {
        let mut joined = None;
        let mut values = group.get_array("v").unwrap().into_iter().peekable();
        while let Some(Ok(value)) = values.peek() {
            let value = RawValBuf::from_bson(&Bson::try_from(*value).unwrap()).unwrap();
            let Some(number) = fold.join(joined, value.as_raw()) else { break };
            joined = Some(number);
            values.next();
        }
        let key = group.get("k").unwrap().unwrap();
        let mut called_with = RawArrayBuf::new();
        if let Some(number) = joined {
            if values.peek().is_none() {
                let key = RawValBuf::from_bson(&Bson::try_from(key).unwrap()).unwrap();
                let guest = self.store.data_mut();
                guest.seen.emits += 1;
                match &mut guest.table {
                    Some(table) => add(table, &tagged(&key), &tagged(&double(number))),
                    None => guest.seen.note(b'E', [&tagged(&key), &tagged(&double(number))]),
                }
                return true;
            }
            called_with.push(number);
        }
        for value in values {
            called_with.push(value.unwrap());
        }
        let group = rawdoc! { "k": key, "v": called_with };
        self.feed(|instance| &instance.reduce, group.as_bytes())
    }

    /// Runs a program on documents and groups. Returns what it did, and whether the instance can take another.
    pub fn run(&mut self, sources: &[u8], documents: &[u8], groups: &[u8]) -> (Transcript, bool) {
        let whole = self.feed(|instance| &instance.load, sources)
            && self.map(documents)
            && self.reduce(groups);
        self.give_table(whole);
        (std::mem::take(&mut self.store.data_mut().seen), whole)
    }
}

fn double(number: f64) -> RawValBuf {
    RawValBuf::from_bson(&Bson::Double(number)).unwrap()
}

fn tagged(value: &RawValBuf) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.as_raw().append_to(&mut bytes);
    bytes
}
