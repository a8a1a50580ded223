//! Every limit on a guest, with its unit last in the name.

use std::time::Duration;

/// Largest module that is accepted, in bytes of WebAssembly. Go guests are about 2 MB.
pub const MODULE_BYTES_MAX: usize = crate::config::FUNCTION_BYTES_MAX;
/// Most functions in a module, imports excluded.
pub const FUNCTIONS_MAX: usize = 100_000;
/// Largest body of one function, in bytes: compiling takes more than linear time in it.
pub const FUNCTION_BYTES_MAX: usize = 1 << 20;
/// Most compiling work in a module: branches times locals, added up over its functions, a nested
/// loop counting once a level. The compiler may have to merge each local at each branch, so that a
/// small function could keep it busy for minutes otherwise.
pub const MODULE_MERGES_MAX: u64 = 20_000_000;
/// Most operators of one function: what the compiler makes of a function it has in memory at once. A call
/// or a block counts as four, and what moves values (these, and branches) once more for each.
pub const FUNCTION_OPERATORS_MAX: u64 = 250_000;
/// Most operators of all functions, counted alike.
pub const MODULE_OPERATORS_MAX: u64 = 8_000_000;
/// Most operators of one function that move memory whose length it does not name as a constant, or names as more than
/// [`BULK_BYTES_MAX`]: each may take as long as moving all of its memory, and a deadline is looked at only where a
/// function or a loop begins.
pub const FUNCTION_BULK_OPERATORS_MAX: u64 = 1_000;
/// Memory that one operator may move without counting so, in bytes.
pub const BULK_BYTES_MAX: u32 = 64 << 10;
/// Most locals of one function, parameters excluded.
pub const FUNCTION_LOCALS_MAX: u64 = 50_000;
/// Most locals of all functions: ten bytes of a module may declare as many as one function may have.
pub const MODULE_LOCALS_MAX: u64 = 4_000_000;
/// Most types in a module.
pub const TYPES_MAX: usize = 10_000;
/// Most element segments in a module.
pub const ELEMENT_SEGMENTS_MAX: usize = 10_000;
/// Most elements of all segments.
pub const ELEMENTS_MAX: u64 = 1_000_000;
/// Longest module as text, in bytes: parsing it takes many times as much memory.
pub const TEXT_BYTES_MAX: usize = 8 << 20;
/// Longest script, in bytes.
pub const SCRIPT_BYTES_MAX: usize = 4 << 20;
/// Most globals in a module.
pub const GLOBALS_MAX: usize = 10_000;
/// Most imports in a module: more than the contract has, so that every wrong one can be listed.
pub const IMPORTS_MAX: usize = 1_000;
/// Most exports in a module.
pub const EXPORTS_MAX: usize = 10_000;
/// Most data segments in a module.
pub const DATA_SEGMENTS_MAX: usize = 100_000;
/// Most tables in a module.
pub const TABLES_MAX: usize = 4;
/// Most elements of one table, at the start and after growing.
pub const TABLE_ELEMENTS_MAX: usize = 65_536;
/// Most memories in a module.
pub const MEMORIES_MAX: usize = 1;
/// Most problems of a module that are listed.
pub const PROBLEMS_MAX: usize = 100;
/// Stack that a guest may use, in bytes of the calling thread's own. JavaScript needs this much for 10,000 calls within
/// each other.
pub const STACK_BYTES_MAX: usize = 16 << 20;
/// Stack of a thread that calls guests, in bytes: a guest's, and what the host needs besides. Only what is used of it is
/// memory.
pub const THREAD_STACK_BYTES: usize = STACK_BYTES_MAX + (4 << 20);
/// Memory that one instance may have unless the options say otherwise, in bytes.
pub const MEMORY_BYTES_DEFAULT: usize = 256 << 20;
/// Time that one call may take unless the options say otherwise.
pub const CALL_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
/// Bytes that one record may emit unless the options say otherwise.
pub const OUTPUT_BYTES_DEFAULT: u64 = 64 << 20;
/// As many times as much as one record may emit may all records of a call emit together. A call that
/// holds so much output in memory should be the exception.
pub const OUTPUT_RECORDS_MAX: usize = 4;
/// Log text kept of one instance unless the options say otherwise, in bytes.
pub const LOG_BYTES_DEFAULT: usize = 1 << 20;
/// Longest log line, in bytes; a longer one is cut into several.
pub const LOG_LINE_BYTES_MAX: usize = 8 << 10;
/// End of standard error kept for an error, in bytes.
pub const STDERR_TAIL_BYTES_MAX: usize = 4 << 10;
/// Longest text of a failure, in bytes; the rest is cut off.
pub const FAIL_TEXT_BYTES_MAX: usize = 16 << 10;
/// Longest name of a counter, in bytes; a longer one ends the call.
pub const COUNTER_NAME_BYTES_MAX: usize = 256;
/// Largest emitted key, in bytes, type byte included.
pub const KEY_BYTES_MAX: usize = 1 << 20;
/// Largest emitted value, in bytes, type byte included: what MongoDB stores in one document, and
/// room for the key beside it is the sink's concern.
pub const VALUE_BYTES_MAX: usize = 16 << 20;
/// Largest input of one call, in bytes.
pub const INPUT_BYTES_MAX: usize = 256 << 20;
/// Most random bytes handed out by one `random_get`.
pub const RANDOM_BYTES_MAX: usize = 1 << 20;
/// Most bytes taken by one `fd_write`, which then says how many it took: its pieces may overlap, so that a
/// small memory could otherwise stand for a text that keeps the host busy for hours.
pub const WRITE_BYTES_MAX: usize = 64 << 10;
/// Most pieces of one `fd_write`, and most subscriptions of one `poll_oneoff`.
pub const VECTORS_MAX: usize = 1_024;
/// Frames of a backtrace that are kept.
pub const BACKTRACE_FRAMES_MAX: usize = 20;
/// Compiled modules kept in memory.
pub const MODULES_IN_MEMORY_MAX: usize = 64;
/// Largest compiled module that is taken from a compiler or read back from disk, in bytes.
pub const COMPILED_BYTES_MAX: u64 = 256 << 20;
/// Modules compiled at once.
pub const COMPILATIONS_MAX: usize = 2;
/// Threads that one module is compiled with.
pub const COMPILE_THREADS_MAX: usize = 2;
/// Address space of a process that compiles one module, in bytes: its own program, and an arena and a stack for each
/// thread, are part of it.
pub const COMPILE_MEMORY_BYTES_MAX: u64 = 2 << 30;
/// Processor time for compiling one module, in seconds.
pub const COMPILE_CPU_SECONDS_MAX: u64 = 60;
/// Time for compiling one module. It is much longer than the processor time, so that what exceeds it is a machine that
/// is far too busy, or a child that is stuck.
pub const COMPILE_TIME_MAX: Duration = Duration::from_secs(600);

/// What one instance may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory, in bytes; the host's own upper bound holds besides.
    pub memory_bytes_max: usize,
    /// Time for one call, and for starting the instance. What the sink takes counts as well.
    pub call_timeout: Duration,
    /// Keys and values that one record emits, in bytes: a document for map, a key for the other stages.
    pub output_bytes_max: u64,
    /// Log text, in bytes over the instance's life; what exceeds it is dropped and counted.
    pub log_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes_max: MEMORY_BYTES_DEFAULT,
            call_timeout: CALL_TIMEOUT_DEFAULT,
            output_bytes_max: OUTPUT_BYTES_DEFAULT,
            log_bytes_max: LOG_BYTES_DEFAULT,
        }
    }
}
