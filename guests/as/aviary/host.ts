// What the host gives a function, and what failing looks like.

// @ts-ignore: decorator
@external("aviary", "emit")
export declare function host_emit(key: usize, keyLen: u32, value: usize, valueLen: u32): void;
// @ts-ignore: decorator
@external("aviary", "emit_total")
export declare function host_emit_total(key: usize, keyLen: u32, value: usize, valueLen: u32, emits: u32): void;
// @ts-ignore: decorator
@external("aviary", "count")
declare function host_count(name: usize, len: u32, delta: i64): void;
// @ts-ignore: decorator
@external("aviary", "log")
declare function host_log(level: i32, text: usize, len: u32): void;
// @ts-ignore: decorator
@external("aviary", "fail")
declare function host_fail(text: usize, len: u32): void;
// @ts-ignore: decorator
@external("aviary", "scope")
export declare function host_scope(at: usize, room: u32): u32;
// @ts-ignore: decorator
@external("wasi_snapshot_preview1", "random_get")
declare function random_get(at: usize, len: u32): i32;
// @ts-ignore: decorator
@external("wasi_snapshot_preview1", "clock_time_get")
declare function clock_time_get(clock: i32, precision: i64, at: usize): i32;

/** How much a line of the log matters. */
export enum Level {
  Error,
  Warn,
  Info,
  Debug,
  Trace,
}

/** Says that this record is bad, and why. Does not return; `throw new Error(text)` does the same. */
export function fail(text: string): void {
  const bytes = String.UTF8.encode(text, false, String.UTF8.ErrorMode.REPLACE);
  host_fail(changetype<usize>(bytes), bytes.byteLength);
  unreachable();
}

/** Adds to a counter of the job. */
export function count(name: string, delta: i64 = 1): void {
  const bytes = String.UTF8.encode(name, false, String.UTF8.ErrorMode.REPLACE);
  host_count(changetype<usize>(bytes), bytes.byteLength, delta);
}

/** Writes a line into the worker's log. */
export function log(text: string, level: Level = Level.Info): void {
  const bytes = String.UTF8.encode(text, false, String.UTF8.ErrorMode.REPLACE);
  host_log(level, changetype<usize>(bytes), bytes.byteLength);
}

/** What the compiler is told to call for `throw`, a failed assertion, or an index out of range. */
export function aborted(message: string | null, file: string | null, line: u32, column: u32): void {
  const what = message !== null ? message : "the function stopped";
  const where = file !== null ? file : "?";
  fail(what + "\nat " + where + ":" + line.toString() + ":" + column.toString());
}

/** What the compiler is told to take `Math.random` from: the same job and task give the same numbers. */
export function seeded(): f64 {
  const at = memory.data(8);
  random_get(at, 8);
  return reinterpret<f64>((load<u64>(at) >> 12) | 0x3ff0000000000000) - 1.0;
}

/** The job's snapshot time, in milliseconds since 1970. There is no other clock. */
export function now(): i64 {
  const at = memory.data(8);
  clock_time_get(0, 0, at);
  return <i64>(load<u64>(at) / 1000000);
}

/** What the compiler is told to take for `console`. */
export namespace console {
  export function log(text: string = ""): void {
    logged(text, Level.Info);
  }
  export function info(text: string = ""): void {
    logged(text, Level.Info);
  }
  export function debug(text: string = ""): void {
    logged(text, Level.Debug);
  }
  export function warn(text: string = ""): void {
    logged(text, Level.Warn);
  }
  export function error(text: string = ""): void {
    logged(text, Level.Error);
  }
}

// The namespace's own `log` hides this module's.
function logged(text: string, level: Level): void {
  log(text, level);
}
