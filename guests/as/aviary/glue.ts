// What the module's entry is made of. Functions rather than an object: while garbage is collected, nothing but
// globals may refer to what lives on.

import { Type, documentSize } from "./bytes";
import { Doc, Role, Value, Values } from "./value";
import { beginSums, endSums } from "./sums";
import { emit } from "./write";

export { aviary_sums } from "./sums";

/** Input, or growth of memory in pages, after which garbage is collected. */
const INPUT_BYTES_MAX: usize = 256 << 10;
const GROWTH_PAGES_MAX: i32 = 64;
/** What a record is taken to cost besides its bytes. */
const RECORD_BYTES: usize = 64;

let inputAt: usize = 0;
let inputRoom: usize = 0;
let at: usize = 0;
let end: usize = 0;
let one: Doc = new Doc(0, 0);
let group: Value = Value.null();
let sinceCollected: usize = 0;
let pagesCollected: i32 = 0;

export function aviary_abi_v1(): void {}

/** Room for the input of the next call. */
export function aviary_alloc(len: u32): usize {
  if (<usize>len > inputRoom) {
    if (inputAt != 0) heap.free(inputAt);
    inputRoom = max<usize>(len, 4096);
    inputAt = heap.alloc(inputRoom);
  }
  return inputAt;
}

/** Begins a call with this input. */
export function begin(ptr: usize, len: u32): void {
  at = ptr;
  end = ptr + len;
}

/** Begins a call of a map. */
export function beginMap(ptr: usize, len: u32): void {
  beginSums();
  begin(ptr, len);
}

/** Ends it. */
export function endMap(): void {
  endSums();
}

/** Goes to the next record of the input. */
export function next(): bool {
  tidy();
  if (at >= end) return false;
  const len = documentSize(at, end);
  one = new Doc(at, len);
  at += len;
  sinceCollected += <usize>len + RECORD_BYTES;
  return true;
}

/** The document to map. */
export function doc(): Doc {
  return one;
}

/** The key of the group. */
export function key(): Value {
  const k = one.get("k");
  group = new Value(k.type, k.at, k.size, Role.Key);
  return group;
}

/** The key of the group, copied: it is needed until the group ends, in later calls. */
export function keptKey(): Value {
  group = key().keep();
  return group;
}

/** The values of the group. */
export function values(): Values {
  return one.get("v").array();
}

/** The value to finalize. */
export function value(): Value {
  const v = one.get("v");
  return new Value(v.type, v.at, v.size);
}

/** Emits the group's result. */
export function result<T>(value: T): void {
  emit(group, value);
}

function tidy(): void {
  if (sinceCollected < INPUT_BYTES_MAX && memory.size() - pagesCollected < GROWTH_PAGES_MAX) return;
  __collect();
  sinceCollected = 0;
  pagesCollected = memory.size();
}
