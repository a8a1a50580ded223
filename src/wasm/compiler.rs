//! Compiling in a process of its own, under limits.
//!
//! What compiling takes is known only by doing it: a module that passes every check may still need far more memory or
//! time than its size says. So a worker has a child of the same program do it ([`super::compile_child`]), which
//! limits its own memory and processor time and ends when it exceeds them, and never goes on without its parent. The
//! child is given the module through one pipe and gives the code back through another; it is given no file, no variable
//! and no argument that anybody but this process has chosen.
//!
//! Of a child that did not do it, what ended it says whose fault that is: its limits are the module's, since they
//! are the same everywhere. A child that could not be started, was killed by another hand or got no processor says
//! that this machine is short of something.

use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::compile_child::{FLAG_CPU, FLAG_MEMORY, FLAG_SCARCE, NO_MEMORY, REFUSED, VERB};
use super::limits::{
    COMPILATIONS_MAX, COMPILE_CPU_SECONDS_MAX, COMPILE_MEMORY_BYTES_MAX, COMPILE_THREADS_MAX,
    COMPILE_TIME_MAX, COMPILED_BYTES_MAX,
};

/// How often it is looked whether a child has ended.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// The end of what a child says that is kept, in bytes.
const SAID_BYTES_MAX: usize = 4 << 10;
/// What a process is ended with that has used up its processor time.
const SIGXCPU: i32 = 24;
const SIGKILL: i32 = 9;
const SIGABRT: i32 = 6;
const SIGSEGV: i32 = 11;

/// Where modules are compiled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Compiler {
    /// In this process, whatever it takes.
    #[default]
    Here,
    /// In a child, which is this program: it must hand over to [`super::compile_child::main`].
    Child(PathBuf),
}

impl Compiler {
    /// A child of the program that runs now, even if its file is replaced meanwhile.
    #[must_use]
    pub fn of_this_program() -> Self {
        let running = PathBuf::from("/proc/self/exe");
        if running.exists() {
            return Self::Child(running);
        }
        std::env::current_exe().map_or(Self::Here, Self::Child)
    }
}

/// What compiling one module may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompileLimits {
    /// Address space, in bytes.
    pub memory_bytes: u64,
    /// Processor time, in seconds.
    pub cpu_seconds: u64,
    /// Time by the clock, which also passes while other processes have the processors.
    pub time: Duration,
}

impl Default for CompileLimits {
    fn default() -> Self {
        Self {
            memory_bytes: COMPILE_MEMORY_BYTES_MAX,
            cpu_seconds: COMPILE_CPU_SECONDS_MAX,
            time: COMPILE_TIME_MAX,
        }
    }
}

/// Why a child gave no code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoCode {
    /// The compiler refuses the module, or fails on it.
    Refused(String),
    /// The module needs more than it may have.
    Exceeds { what: &'static str, limit: u64 },
    /// This machine lacks something.
    Short(String),
}

/// Code that a child of this process has made and handed over through a pipe between the two of them.
/// Only [`compile`] makes one.
pub(crate) struct FromChild(Vec<u8>);

impl FromChild {
    pub(crate) fn code(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn into_code(self) -> Vec<u8> {
        self.0
    }
}

/// Lets so many compile at once.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    busy: Mutex<usize>,
    free: Condvar,
}

pub(crate) struct Turn<'a>(&'a Turns);

impl Turns {
    pub(crate) fn take(&self) -> Turn<'_> {
        let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let mut busy = self
            .free
            .wait_while(busy, |busy| *busy >= COMPILATIONS_MAX)
            .unwrap_or_else(PoisonError::into_inner);
        *busy += 1;
        Turn(self)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.busy.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.free.notify_one();
    }
}

/// Compiles a module in a child.
pub(crate) fn compile(
    program: &PathBuf,
    limits: &CompileLimits,
    pooling: bool,
    wasm: &[u8],
) -> Result<FromChild, NoCode> {
    let mut command = Command::new(program);
    command
        .arg(VERB)
        .args([FLAG_MEMORY, &limits.memory_bytes.to_string()])
        .args([FLAG_CPU, &limits.cpu_seconds.to_string()])
        .args((!pooling).then_some(FLAG_SCARCE))
        .env_clear()
        // Each thread has an arena and a stack, which count against the address space.
        .env("RAYON_NUM_THREADS", threads().to_string())
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let short = |what: &str| {
        let what = what.to_owned();
        move |error: io::Error| NoCode::Short(format!("{what}: {error}"))
    };
    let mut child =
        Reaped(command.spawn().map_err(short("a process to compile in could not be started"))?);
    let missing = || NoCode::Short("a pipe to the compiler is missing".to_owned());
    let mut input = child.0.stdin.take().ok_or_else(missing)?;
    let output = child.0.stdout.take().ok_or_else(missing)?;
    let words = child.0.stderr.take().ok_or_else(missing)?;
    // More than so much is not read; the child then waits for its time to be up, and is ended before.
    let too_much = std::sync::atomic::AtomicBool::new(false);
    let ended = thread::scope(|scope| {
        let spawn = || thread::Builder::new().name("compiling".to_owned());
        let no_thread = short("a thread to compile with could not be started");
        let feed = spawn().spawn_scoped(scope, move || {
            // One that does not read to the end has ended, and that says more.
            let _ = input.write_all(wasm);
        });
        let code = spawn().spawn_scoped(scope, || {
            let mut code = Vec::new();
            let read = output.take(COMPILED_BYTES_MAX + 1).read_to_end(&mut code);
            if code.len() as u64 > COMPILED_BYTES_MAX {
                too_much.store(true, std::sync::atomic::Ordering::Release);
            }
            read.map(|_| code)
        });
        let said = spawn().spawn_scoped(scope, move || tail(words));
        let threads = match (feed, code, said) {
            (Ok(_), Ok(code), Ok(said)) => Ok((code, said)),
            (Err(error), _, _) | (_, Err(error), _) | (_, _, Err(error)) => Err(no_thread(error)),
        };
        let begun = Instant::now();
        let status = loop {
            match child.0.try_wait() {
                Ok(Some(status)) => break Some(status),
                Ok(None)
                    if threads.is_ok()
                        && begun.elapsed() < limits.time
                        && !too_much.load(std::sync::atomic::Ordering::Acquire) =>
                {
                    thread::sleep(LOOK_EVERY);
                }
                Ok(None) | Err(_) => {
                    child.end();
                    break None;
                }
            }
        };
        let (code, said) = threads?;
        let code = code.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
        let said = said.join().unwrap_or_default();
        Ok((status, code.map_err(short("what was compiled could not be read"))?, said))
    });
    let (status, code, said) = ended?;
    if too_much.into_inner() {
        let limit = COMPILED_BYTES_MAX;
        return Err(NoCode::Exceeds { what: "compiled code in bytes", limit });
    }
    let Some(status) = status else {
        return Err(NoCode::Short(format!(
            "compiling got too little of the processors: it was not done after {} s",
            limits.time.as_secs()
        )));
    };
    if status.success() && !code.is_empty() {
        return Ok(FromChild(code));
    }
    Err(verdict(status, limits, said))
}

/// What became of a child that gave no code.
fn verdict(status: ExitStatus, limits: &CompileLimits, said: String) -> NoCode {
    let memory = || {
        let limit = limits.memory_bytes;
        match inherited_memory() {
            // It never had what it may have.
            Some(less) if less < limit => NoCode::Short(format!(
                "compiling needs more than the {less} bytes of address space that this process may have (ulimit -v)"
            )),
            _ => NoCode::Exceeds { what: "memory for compiling in bytes", limit },
        }
    };
    let cpu = NoCode::Exceeds {
        what: "processor time for compiling in seconds",
        limit: limits.cpu_seconds,
    };
    match (status.code(), status.signal()) {
        (Some(NO_MEMORY), _) => memory(),
        (Some(REFUSED), _) => NoCode::Refused(said),
        // A thread that it may not have, or a fault of the compiler's own.
        (Some(_), _) if said.contains("ThreadPool") => NoCode::Short(said),
        (Some(code), _) => NoCode::Refused(format!("the compiler ended with {code}: {said}")),
        (_, Some(SIGXCPU)) => cpu,
        // An allocation that fails ends a program of Rust like this, and so does a stack that is used up.
        (_, Some(SIGABRT)) if said.contains("memory allocation") => memory(),
        (_, Some(SIGABRT | SIGSEGV)) => {
            NoCode::Refused(format!("the compiler came to an end: {said}"))
        }
        (_, Some(SIGKILL)) => {
            NoCode::Short("compiling was killed, as systems do that are short of memory".to_owned())
        }
        (_, signal) => {
            let signal = signal.unwrap_or_default();
            NoCode::Short(format!("compiling was ended by signal {signal}"))
        }
    }
}

/// A child that is ended and waited for, whatever happens.
struct Reaped(Child);

impl Reaped {
    fn end(&mut self) {
        // One that has ended cannot be killed, which is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Reaped {
    fn drop(&mut self) {
        self.end();
    }
}

/// Threads that a child compiles with.
fn threads() -> usize {
    thread::available_parallelism().map_or(1, usize::from).min(COMPILE_THREADS_MAX)
}

/// The address space that a process of this one's may have at most, if that is limited.
fn inherited_memory() -> Option<u64> {
    use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
    let (_, most) = getrlimit(Resource::RLIMIT_AS).ok()?;
    (most != RLIM_INFINITY).then_some(most)
}

/// The end of what a child says.
fn tail(mut words: impl Read) -> String {
    let mut kept = Vec::new();
    let mut piece = [0; 1024];
    while let Ok(len @ 1..) = words.read(&mut piece) {
        kept.extend_from_slice(piece.get(..len).unwrap_or_default());
        let excess = kept.len().saturating_sub(SAID_BYTES_MAX);
        kept.drain(..excess);
    }
    String::from_utf8_lossy(&kept).trim().to_owned()
}
