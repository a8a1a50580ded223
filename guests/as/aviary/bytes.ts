// A growing buffer, and what BSON looks like in it.

import { fail } from "./host";

/** The types of BSON. `None` is what a field that is not there has. */
export enum Type {
  None = 0,
  Double = 0x01,
  String = 0x02,
  Document = 0x03,
  Array = 0x04,
  Binary = 0x05,
  Undefined = 0x06,
  ObjectId = 0x07,
  Bool = 0x08,
  Date = 0x09,
  Null = 0x0a,
  Regex = 0x0b,
  DbPointer = 0x0c,
  Code = 0x0d,
  Symbol = 0x0e,
  CodeWithScope = 0x0f,
  Int32 = 0x10,
  Timestamp = 0x11,
  Int64 = 0x12,
  Decimal = 0x13,
  MaxKey = 0x7f,
  MinKey = 0xff,
}

/** The name of a type, for messages. */
export function typeName(type: Type): string {
  switch (type) {
    case Type.Double: return "a double";
    case Type.String: return "a string";
    case Type.Document: return "a document";
    case Type.Array: return "an array";
    case Type.Binary: return "binary data";
    case Type.Undefined: return "undefined";
    case Type.ObjectId: return "an ObjectId";
    case Type.Bool: return "a boolean";
    case Type.Date: return "a date";
    case Type.Null: return "null";
    case Type.Regex: return "a regular expression";
    case Type.DbPointer: return "a DBPointer";
    case Type.Code: return "code";
    case Type.Symbol: return "a symbol";
    case Type.CodeWithScope: return "code with a scope";
    case Type.Int32: return "an int32";
    case Type.Timestamp: return "a timestamp";
    case Type.Int64: return "an int64";
    case Type.Decimal: return "a decimal128";
    case Type.MaxKey: return "MaxKey";
    case Type.MinKey: return "MinKey";
    default: return "missing";
  }
}

/** Bytes that grow at their end. */
export class Bytes {
  private data: StaticArray<u8> = new StaticArray<u8>(64);
  len: u32 = 0;

  get at(): usize {
    return changetype<usize>(this.data);
  }

  /** Room for so many bytes more; returns where they begin. */
  grow(more: u32): usize {
    const need = <u64>this.len + more;
    if (need > <u64>this.data.length) {
      if (need > 0x3fffffff) fail("a value is too large");
      const data = new StaticArray<u8>(<i32>max<u64>(need, <u64>this.data.length * 2));
      memory.copy(changetype<usize>(data), changetype<usize>(this.data), this.len);
      this.data = data;
    }
    const at = changetype<usize>(this.data) + this.len;
    this.len += more;
    return at;
  }

  put<T>(value: T): void {
    store<T>(this.grow(sizeof<T>()), value);
  }

  copy(from: usize, len: u32): void {
    memory.copy(this.grow(len), from, len);
  }

  /** A string as BSON has it: length, text, NUL. */
  text(value: string): void {
    const len = <u32>String.UTF8.byteLength(value);
    this.put<u32>(len + 1);
    this.utf8(value, len);
    this.put<u8>(0);
  }

  /** Text that ends with a NUL, so that it cannot hold one. */
  name(value: string): void {
    for (let i = 0, n = value.length; i < n; i++) {
      if (value.charCodeAt(i) == 0) fail("a field's name, or a regular expression, holds a NUL");
    }
    this.utf8(value, <u32>String.UTF8.byteLength(value));
    this.put<u8>(0);
  }

  private utf8(value: string, len: u32): void {
    const at = this.grow(len);
    String.UTF8.encodeUnsafe(changetype<usize>(value), value.length, at, false, String.UTF8.ErrorMode.REPLACE);
  }
}

function malformed(): void {
  fail("malformed BSON in the input");
}

/** The length of the document there, which must end before `end`. */
export function documentSize(at: usize, end: usize): u32 {
  if (end - at < 5) malformed();
  const len = load<u32>(at);
  if (len < 5 || <usize>len > end - at || load<u8>(at + len - 1) != 0) malformed();
  return len;
}

function textSize(at: usize, end: usize): u32 {
  if (end - at < 5) malformed();
  const len = load<u32>(at);
  if (len < 1 || <usize>len > end - at - 4 || load<u8>(at + len + 3) != 0) malformed();
  return len + 4;
}

/** The bytes of the NUL-terminated text there, NUL included. */
export function nameSize(at: usize, end: usize): u32 {
  let p = at;
  while (p < end && load<u8>(p) != 0) p++;
  if (p >= end) malformed();
  return <u32>(p - at + 1);
}

/** The bytes of a value of that type, which must end before `end`. */
export function valueSize(type: Type, at: usize, end: usize): u32 {
  let size: u32 = 0;
  switch (type) {
    case Type.Double: case Type.Date: case Type.Timestamp: case Type.Int64: size = 8; break;
    case Type.Int32: size = 4; break;
    case Type.Bool: size = 1; break;
    case Type.ObjectId: size = 12; break;
    case Type.Decimal: size = 16; break;
    case Type.Undefined: case Type.Null: case Type.MinKey: case Type.MaxKey: break;
    case Type.String: case Type.Code: case Type.Symbol: return textSize(at, end);
    case Type.Document: case Type.Array: return documentSize(at, end);
    case Type.DbPointer: size = textSize(at, end) + 12; break;
    case Type.Binary:
      if (end - at < 5) malformed();
      size = load<u32>(at);
      if (<usize>size > end - at - 5) malformed();
      return size + 5;
    case Type.CodeWithScope: {
      if (end - at < 14) malformed();
      size = load<u32>(at);
      if (size < 14 || <usize>size > end - at) malformed();
      const code = textSize(at + 4, at + size);
      if (documentSize(at + 4 + code, at + size) + code + 4 != size) malformed();
      return size;
    }
    case Type.Regex:
      size = nameSize(at, end);
      return size + nameSize(at + size, end);
    default: malformed();
  }
  if (<usize>size > end - at) malformed();
  return size;
}
