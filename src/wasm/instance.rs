//! A running guest: one store, its limits, its sink.

use std::time::Duration;

use wasmtime::{Memory, ModuleExport, Store, TypedFunc, WasmParams, WasmResults};

use super::abi::{Known, Stage, Step};
use super::ended::{Bounds, Ended, classify};
use super::error::GuestError;
use super::guest::{Guest, GuestOptions};
use super::interrupt::{self, Interrupt};
use super::js::Script;
use super::limits::{INPUT_BYTES_MAX, Limits, OUTPUT_RECORDS_MAX};
use super::module::Module;
use super::sink::{Sink, Sums};

/// What an instance is started with.
#[derive(Debug, Clone, Default)]
pub struct InstanceOptions {
    /// What it may use.
    pub limits: Limits,
    /// The time that its clock shows, in milliseconds since 1970.
    pub now_ms: i64,
    /// Where its randomness comes from.
    pub seed: [u8; 32],
    /// The job's parameters, one BSON document.
    pub scope: Vec<u8>,
    /// The sources for the JavaScript guest; `None` for every other module.
    pub script: Option<Script>,
    /// Who is asked, while it runs, whether it may go on.
    pub interrupt: Interrupt,
}

/// A guest that runs for one task. It keeps its state from call to call; after any error it refuses
/// further calls and should be dropped.
pub struct Instance<S: Sink> {
    store: Store<Guest<S>>,
    memory: Memory,
    alloc: TypedFunc<u32, u32>,
    stages: Stages,
    /// Keeps the deadline thread running.
    module: Module,
    limits: Limits,
    known: Option<Known>,
    poisoned: bool,
}

type StageFunction = TypedFunc<(u32, u32), ()>;

/// A reduce in the streaming form.
#[derive(Clone)]
struct Stream {
    begin: StageFunction,
    next: StageFunction,
    end: TypedFunc<(), ()>,
}

/// What is called: a function with input, or one that takes none.
enum Entry<'a> {
    Fed(&'a StageFunction, &'a [u8]),
    Bare(&'a TypedFunc<(), ()>),
}

#[derive(Default)]
struct Stages {
    map: Option<StageFunction>,
    combine: Option<StageFunction>,
    reduce: Option<StageFunction>,
    finalize: Option<StageFunction>,
    stream: Option<Stream>,
    /// How the JavaScript guest takes its sources.
    js_load: Option<StageFunction>,
    /// How it says whether the reduce among them streams.
    js_streams: Option<TypedFunc<(), i32>>,
    /// How it says what the reduce, or the combine, among them does, if that is known.
    js_known: Option<TypedFunc<(), i32>>,
    /// How it is told that sums are wanted.
    js_sums: Option<TypedFunc<i32, ()>>,
}

impl<S: Sink> Instance<S> {
    /// Starts an instance: its start function, `_initialize`, and loading the script all together
    /// have the time of one call.
    ///
    /// # Errors
    /// If one of these fails, or there is no place for another instance.
    pub fn new(module: &Module, options: InstanceOptions, sink: S) -> Result<Self, GuestError> {
        let js = module.info().js;
        if js != options.script.is_some() {
            return Err(GuestError::Script { given: options.script.is_some() });
        }
        let shared = module.shared();
        let limits = options.limits;
        let guest = Guest::new(
            sink,
            GuestOptions {
                memory_bytes_max: limits.memory_bytes_max.min(shared.memory_bytes_max),
                log_bytes_max: limits.log_bytes_max,
                scope: options.scope,
                now_ms: options.now_ms,
                seed: options.seed,
            },
        );
        let mut store = Store::new(&shared.engine, guest);
        store.limiter(|guest| guest);
        interrupt::watch(&mut store, &options.interrupt);
        interrupt::allow(&mut store, shared.ticker.ticks(limits.call_timeout));
        store.data_mut().begin(limits.call_timeout);
        let started = instantiate(&mut store, module);
        let mut instance = match started {
            Ok((memory, alloc, stages)) => Self {
                store,
                memory,
                alloc,
                stages,
                module: module.clone(),
                limits,
                known: None,
                poisoned: false,
            },
            Err((step, error)) => {
                let ended = Ended::Runtime(error);
                let guest = store.data_mut();
                guest.log.flush(&mut guest.sink);
                let bounds = Bounds::new(shared, &limits);
                return Err(classify(guest, step, ended, &bounds));
            }
        };
        if let Some(script) = options.script {
            instance.load(&script)?;
        }
        Ok(instance)
    }

    /// Runs a stage on one batch of input, under a deadline of its own. All of it may emit as much as
    /// one record may.
    ///
    /// # Errors
    /// If the guest fails or exceeds a limit, or the sink refuses its output. What the guest
    /// emitted before that has reached the sink and must not be kept.
    pub fn call(&mut self, stage: Stage, input: &[u8]) -> Result<(), GuestError> {
        self.call_batch(stage, input, 1)
    }

    /// The same on so many records, which together may emit as much as each of them may, but no more than
    /// [`OUTPUT_RECORDS_MAX`] of them. Whether one has emitted more than its part is not known, only
    /// [`Instance::output_bytes`].
    ///
    /// # Errors
    /// As [`Instance::call`].
    pub fn call_batch(
        &mut self,
        stage: Stage,
        input: &[u8],
        records: usize,
    ) -> Result<(), GuestError> {
        self.usable(stage)?;
        let function = match stage {
            Stage::Map => self.stages.map.clone(),
            Stage::Combine => self.stages.combine.clone(),
            Stage::Reduce => self.stages.reduce.clone(),
            Stage::Finalize => self.stages.finalize.clone(),
        };
        let Some(function) = function else {
            return Err(GuestError::NotExported { stage });
        };
        self.may_emit(records);
        self.run(Step::Stage(stage), Entry::Fed(&function, input))
    }

    /// Whether its reduce has the streaming form, so that [`Stage::Reduce`] cannot be called in one.
    pub const fn streams(&self) -> bool {
        self.stages.stream.is_some()
    }

    /// What its reduce, or its combine, makes of doubles, if it is one that need not be called to know.
    pub const fn known(&self) -> Option<Known> {
        self.known
    }

    /// Begins a group of a reduce that streams: one document `{k}`.
    ///
    /// # Errors
    /// As [`Instance::call`]; [`GuestError::NotExported`] if it does not stream.
    pub fn reduce_begin(&mut self, input: &[u8]) -> Result<(), GuestError> {
        let stream = self.stream()?;
        self.may_emit(1);
        self.run(Step::Stage(Stage::Reduce), Entry::Fed(&stream.begin, input))
    }

    /// Gives the group its next values, one document `{v: [..]}`, under a deadline of their own.
    ///
    /// # Errors
    /// As [`Instance::reduce_begin`].
    pub fn reduce_next(&mut self, input: &[u8]) -> Result<(), GuestError> {
        let stream = self.stream()?;
        self.run(Step::Stage(Stage::Reduce), Entry::Fed(&stream.next, input))
    }

    /// Ends the group, which may emit its result.
    ///
    /// # Errors
    /// As [`Instance::reduce_begin`].
    pub fn reduce_end(&mut self) -> Result<(), GuestError> {
        let stream = self.stream()?;
        self.run(Step::Stage(Stage::Reduce), Entry::Bare(&stream.end))
    }

    /// Changes how long each further call may take.
    pub const fn set_call_timeout(&mut self, timeout: Duration) {
        self.limits.call_timeout = timeout;
    }

    /// Bytes of keys and values emitted by the last call, or since the last group began.
    pub fn output_bytes(&self) -> u64 {
        self.store.data().output_bytes
    }

    fn usable(&self, stage: Stage) -> Result<(), GuestError> {
        if self.poisoned { Err(GuestError::Poisoned { stage }) } else { Ok(()) }
    }

    fn stream(&self) -> Result<Stream, GuestError> {
        let stage = Stage::Reduce;
        self.usable(stage)?;
        self.stages.stream.clone().ok_or(GuestError::NotExported { stage })
    }

    fn may_emit(&mut self, records: usize) {
        let guest = self.store.data_mut();
        guest.output_bytes = 0;
        let records = records.clamp(1, OUTPUT_RECORDS_MAX) as u64;
        guest.output_bytes_max = self.limits.output_bytes_max.saturating_mul(records);
    }

    /// Where the output goes.
    pub fn sink(&self) -> &S {
        &self.store.data().sink
    }

    /// Where the output goes.
    pub fn sink_mut(&mut self) -> &mut S {
        &mut self.store.data_mut().sink
    }

    /// Ends the instance and returns its sink.
    pub fn into_sink(self) -> S {
        self.store.into_data().sink
    }

    /// The guest's memory, in bytes; it never shrinks.
    pub fn memory_bytes(&self) -> usize {
        self.memory.data_size(&self.store)
    }

    /// Log text that was dropped because of the limit, in bytes.
    pub fn log_bytes_dropped(&self) -> u64 {
        self.store.data().log.bytes_dropped()
    }

    /// Whether an earlier call failed, so that every further one is refused.
    pub const fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    fn load(&mut self, script: &Script) -> Result<(), GuestError> {
        let Some(function) = self.stages.js_load.take() else {
            return Err(GuestError::Script { given: true });
        };
        self.run(Step::Load, Entry::Fed(&function, &script.to_bson()))?;
        let streams = match self.stages.js_streams.take() {
            Some(streams) => {
                let answer = streams.call(&mut self.store, ());
                answer.map_err(|error| self.ended(Step::Load, Ended::Runtime(error)))? != 0
            }
            None => false,
        };
        self.known = match self.stages.js_known.take() {
            Some(known) => {
                let answer = known.call(&mut self.store, ());
                Known::of(answer.map_err(|error| self.ended(Step::Load, Ended::Runtime(error)))?)
            }
            None => None,
        };
        if let Some(sums) = self.stages.js_sums.take()
            && let Some(wanted) = self.store.data().sink.wants_sums()
        {
            let wanted = match wanted {
                Sums::InAnyOrder => 1,
                Sums::InOrder => 2,
            };
            let told = sums.call(&mut self.store, wanted);
            told.map_err(|error| self.ended(Step::Load, Ended::Runtime(error)))?;
        }
        // The interpreter exports every stage; those without a source do not exist.
        let has = script.stages();
        let keep = |stage, function| if has.contains(stage) { function } else { None };
        let stages = std::mem::take(&mut self.stages);
        self.stages = Stages {
            map: keep(Stage::Map, stages.map),
            combine: keep(Stage::Combine, stages.combine),
            reduce: keep(Stage::Reduce, stages.reduce),
            finalize: keep(Stage::Finalize, stages.finalize),
            stream: stages.stream.filter(|_| streams),
            js_load: None,
            js_streams: None,
            js_known: None,
            js_sums: None,
        };
        if streams {
            self.stages.reduce = None;
        }
        Ok(())
    }

    fn run(&mut self, step: Step, entry: Entry<'_>) -> Result<(), GuestError> {
        if let Entry::Fed(_, input) = entry
            && input.len() > INPUT_BYTES_MAX
        {
            return Err(GuestError::Input { step, len: input.len(), max: INPUT_BYTES_MAX });
        }
        let shared = self.module.shared();
        let ticks = shared.ticker.ticks(self.limits.call_timeout);
        interrupt::allow(&mut self.store, ticks);
        let guest = self.store.data_mut();
        guest.begin(self.limits.call_timeout);
        guest.memory_refused = false;
        guest.in_stage = matches!(step, Step::Stage(_));
        let ended = match entry {
            Entry::Fed(function, input) => self.feed(function, input),
            Entry::Bare(function) => function.call(&mut self.store, ()).map_err(Ended::from),
        };
        let guest = self.store.data_mut();
        guest.in_stage = false;
        guest.log.flush(&mut guest.sink);
        ended.map_err(|ended| self.ended(step, ended))
    }

    /// The error of a call that did not return, after which there are no more.
    fn ended(&mut self, step: Step, ended: Ended) -> GuestError {
        self.poisoned = true;
        let bounds = Bounds::new(self.module.shared(), &self.limits);
        classify(self.store.data_mut(), step, ended, &bounds)
    }

    fn feed(&mut self, function: &StageFunction, input: &[u8]) -> Result<(), Ended> {
        let len = u32::try_from(input.len()).unwrap_or(u32::MAX);
        let ptr = self.alloc.call(&mut self.store, len)?;
        let room = self
            .memory
            .data_mut(&mut self.store)
            .get_mut(ptr as usize..)
            .and_then(|tail| tail.get_mut(..input.len()))
            // Allocators say by zero that they have nothing left.
            .filter(|room| ptr != 0 || room.is_empty());
        let Some(room) = room else {
            return Err(Ended::Alloc { ptr, len: input.len() });
        };
        room.copy_from_slice(input);
        Ok(function.call(&mut self.store, (ptr, len))?)
    }
}

impl<S: Sink> std::fmt::Debug for Instance<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance")
            .field("module", &self.module)
            .field("poisoned", &self.poisoned)
            .finish_non_exhaustive()
    }
}

type Started = (Memory, TypedFunc<u32, u32>, Stages);

/// Instantiates, finds the exports and runs `_initialize`.
fn instantiate<S: Sink>(
    store: &mut Store<Guest<S>>,
    module: &Module,
) -> Result<Started, (Step, wasmtime::Error)> {
    let start = |error| (Step::Start, error);
    let linked = module.linked::<S>().map_err(start)?;
    let instance = linked.instantiate(&mut *store).map_err(start)?;
    let exports = module.exports();
    let memory = exports
        .memory
        .and_then(|export| instance.get_module_export(&mut *store, &export)?.into_memory())
        .ok_or_else(|| start(wasmtime::Error::msg("no memory is exported")))?;
    store.data_mut().memory = Some(memory);
    let alloc = typed(store, instance, exports.alloc)
        .ok_or_else(|| start(wasmtime::Error::msg("aviary_alloc is not exported")))?;
    let [begin, next, end] = exports.stream;
    let stream = (typed(store, instance, begin))
        .zip(typed(store, instance, next))
        .zip(typed(store, instance, end))
        .map(|((begin, next), end)| Stream { begin, next, end });
    let js_load = typed(store, instance, exports.js_load);
    let stages = Stages {
        map: typed(store, instance, exports.map),
        combine: typed(store, instance, exports.combine),
        // Where there is a streaming form, it is the reduce; of JavaScript the sources decide later.
        reduce: typed(store, instance, exports.reduce)
            .filter(|_| stream.is_none() || js_load.is_some()),
        finalize: typed(store, instance, exports.finalize),
        stream,
        js_load,
        js_streams: typed(store, instance, exports.js_streams),
        js_known: typed(store, instance, exports.js_known),
        js_sums: typed(store, instance, exports.js_sums),
    };
    if let Some(initialize) = typed::<S, (), ()>(store, instance, exports.initialize) {
        let initialized = initialize.call(&mut *store, ());
        initialized.map_err(|error| (Step::Initialize, error))?;
    }
    if store.data().sink.wants_sums() == Some(Sums::InAnyOrder)
        && let Some(sums) = typed::<S, i32, ()>(store, instance, exports.sums)
    {
        sums.call(&mut *store, 1).map_err(start)?;
    }
    Ok((memory, alloc, stages))
}

/// An exported function, if it is there with this type.
fn typed<S: Sink, Params: WasmParams, Results: WasmResults>(
    store: &mut Store<Guest<S>>,
    instance: wasmtime::Instance,
    export: Option<ModuleExport>,
) -> Option<TypedFunc<Params, Results>> {
    let function = instance.get_module_export(&mut *store, &export?)?.into_func()?;
    function.typed(&*store).ok()
}
