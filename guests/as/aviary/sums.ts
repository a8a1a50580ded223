// Sums of what a map emits, made before the host gets them.
//
// A job whose values are only summed or counted does not care in how many emits its sums come. So while a map runs, an
// emit of a short text, or of an ObjectId, with a number is an addition in a table of the keys that came lately, and
// the host is given each key once: when the call ends, when a key makes room for another, and before more than
// BYTES_MAX are waiting, so that the limit on what a record may emit is kept.
//
// Only sums that are exact are made: of integers within their type, and of doubles that are multiples of 1/256 as long
// as the sum is below 2^44. Any other value goes to the host as it is. Where keys rarely repeat, the table costs more
// than it saves; it then rests for a while.

import { Type } from "./bytes";
import { host_emit_total } from "./host";

/** A text of up to 28 bytes, with its type, its length and its NUL. */
const KEY_BYTES_MAX: u32 = 34;
const SETS_BITS: u64 = 13;
const WAYS: usize = 2;
const ENTRIES: usize = WAYS << <usize>SETS_BITS;
const SCALE: f64 = 256;
const SUM_MAX: f64 = 17592186044416; // 2^44
const BYTES_MAX: u32 = 1 << 20;
/** Of so many emits, at most half may have had keys that were not in the table, or it rests for so many more. */
const JUDGED: u32 = 8192;
const REST: u32 = 1 << 17;

/** An entry of the table, which is memory that no collector knows. */
@unmanaged
class Entry {
  /** An integer, or the bits of a double. */
  sum: i64;
  /** 0: free. */
  emits: u32;
  type: u8;
  keyLen: u8;
}
/** Where an entry's key begins, and how far entries are apart. */
const KEY: usize = 14;
const STRIDE: usize = 48;

let allowed: bool = true;
let wanted: bool = false;
let open: bool = false;
/** The entries, and behind them the numbers of those that are not free, or were not. */
let entries: usize = 0;
let used: usize = 0;
let usedLen: usize = 0;
/** Bytes that the emits waiting here would have had. */
let bytes: u32 = 0;
/** Emits taken since the last judgement, and those among them whose key was not in the table. */
let taken: u32 = 0;
let missed: u32 = 0;
let rest: u32 = 0;

/**
 * Makes every emit a call of the host. Without it, where a job reduces by `_sum` or `_count`, a map's emits of one key
 * are added up first, which changes neither results nor counters. It is called outside of all functions.
 */
export function disableSums(): void {
  allowed = false;
}

/** The host says whether sums are all that is wanted. */
export function aviary_sums(answer: i32): void {
  wanted = answer == 1 && allowed;
  if (wanted && entries == 0) {
    const size = ENTRIES * (STRIDE + sizeof<u16>());
    entries = heap.alloc(size);
    memory.fill(entries, 0, size);
    used = entries + ENTRIES * STRIDE;
  }
}

/** Sums from here on, where they are wanted. */
export function beginSums(): void {
  open = wanted;
}

/** Gives the host what is waiting. */
export function endSums(): void {
  if (open) flush();
  open = false;
}

/** Whether the pair, each with its type, was taken. Otherwise it goes to the host. */
// @ts-ignore: decorator
@inline
export function take(key: usize, keyLen: u32, value: usize, valueLen: u32): bool {
  return open && add(key, keyLen, value, valueLen);
}

function add(key: usize, keyLen: u32, value: usize, valueLen: u32): bool {
  const keyType = load<u8>(key);
  // Of equal keys, the first one stays: a symbol is equal to a text.
  if (keyType == Type.Symbol) flush();
  if (keyLen > KEY_BYTES_MAX || (keyType != Type.String && keyType != Type.ObjectId)) return false;
  const type = load<u8>(value);
  if (type != Type.Double && type != Type.Int32 && type != Type.Int64) return false;
  if (rest > 0) {
    rest--;
    return false;
  }
  const number = type == Type.Int32 ? <i64>load<i32>(value, 1) : load<i64>(value, 1);
  if (type == Type.Double && !isExact(number)) return false;
  const entry = entryOf(key, keyLen);
  if (entry.emits > 0 && !addTo(entry, type, number)) give(entry);
  if (entry.emits == 0) {
    entry.sum = number;
    entry.type = type;
  }
  entry.emits++;
  bytes += keyLen + valueLen;
  if (bytes > BYTES_MAX) flush();
  if (++taken == JUDGED) {
    if (missed > JUDGED / 2) rest = REST;
    taken = 0;
    missed = 0;
  }
  return true;
}

/** Whether a double can be a part of an exact sum: a multiple of 1/256 that is not too large, and no negative zero. */
function isExact(number: i64): bool {
  const real = reinterpret<f64>(number), scaled = real * SCALE;
  return abs(real) < SUM_MAX && trunc(scaled) == scaled && number != i64.MIN_VALUE;
}

/** Adds a number to the sum, if that is of its type and stays exact. */
function addTo(entry: Entry, type: u8, number: i64): bool {
  if (entry.type != type) return false;
  if (type == Type.Double) {
    const real = reinterpret<f64>(entry.sum) + reinterpret<f64>(number);
    if (!(abs(real) < SUM_MAX)) return false;
    entry.sum = reinterpret<i64>(real);
    return true;
  }
  const old = entry.sum, sum = old + number;
  // Both of one sign, and the sum of the other.
  if (((old ^ sum) & (number ^ sum)) < 0) return false;
  if (type == Type.Int32 && sum != <i64>(<i32>sum)) return false;
  entry.sum = sum;
  return true;
}

/** The last word of a key ends where the key ends, so it may share bytes with the one before. */
function hash(key: usize, len: u32): usize {
  const factor: u64 = 0x9e3779b97f4a7c15;
  let mixed: u64 = len;
  let last: u64 = 0;
  if (len < 8) {
    for (let i: u32 = 0; i < len; i++) last = (last << 8) | load<u8>(key + i);
  } else {
    const end = key + len - 8;
    for (let at = key; at < end; at += 8) {
      mixed = (mixed ^ load<u64>(at)) * factor;
      mixed ^= mixed >> 32;
    }
    last = load<u64>(end);
  }
  // The upper bits, to which every bit of the last word comes.
  return <usize>(((mixed ^ last) * factor) >> (64 - SETS_BITS));
}

function has(entry: Entry, key: usize, len: u32): bool {
  if (entry.emits == 0 || entry.keyLen != len) return false;
  const kept = changetype<usize>(entry) + KEY;
  if (len < 8) {
    for (let i: u32 = 0; i < len; i++) {
      if (load<u8>(kept + i) != load<u8>(key + i)) return false;
    }
    return true;
  }
  const last = len - 8;
  for (let i: u32 = 0; i < last; i += 8) {
    if (load<u64>(kept + i) != load<u64>(key + i)) return false;
  }
  return load<u64>(kept + last) == load<u64>(key + last);
}

/** The entry of a key, or one that is free for it. */
function entryOf(key: usize, len: u32): Entry {
  const set = entries + hash(key, len) * (WAYS * STRIDE);
  const first = changetype<Entry>(set), second = changetype<Entry>(set + STRIDE);
  if (has(first, key, len)) return first;
  if (has(second, key, len)) return second;
  const entry = second.emits < first.emits ? second : first;
  if (entry.emits > 0) {
    give(entry);
  } else {
    if (usedLen == ENTRIES) flush();
    store<u16>(used + usedLen * sizeof<u16>(), <u16>((changetype<usize>(entry) - entries) / STRIDE));
    usedLen++;
  }
  memory.copy(changetype<usize>(entry) + KEY, key, len);
  entry.keyLen = <u8>len;
  missed++;
  return entry;
}

function give(entry: Entry): void {
  const value = memory.data(9);
  store<u8>(value, entry.type);
  // The lower half of a small integer is that integer.
  store<i64>(value, entry.sum, 1);
  const size: u32 = entry.type == Type.Int32 ? 5 : 9;
  host_emit_total(changetype<usize>(entry) + KEY, entry.keyLen, value, size, entry.emits);
  bytes -= (<u32>entry.keyLen + size) * entry.emits;
  entry.emits = 0;
}

function flush(): void {
  for (let i: usize = 0; i < usedLen; i++) {
    const entry = changetype<Entry>(entries + <usize>load<u16>(used + i * sizeof<u16>()) * STRIDE);
    if (entry.emits > 0) give(entry);
  }
  usedLen = 0;
}
