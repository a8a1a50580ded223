// Values, documents and arrays, read where they lie.

import { Bytes, Type, documentSize, nameSize, typeName, valueSize } from "./bytes";
import { fail, host_scope } from "./host";
import { put } from "./write";

/** What a value is to the function, for messages. */
export enum Role {
  Field,
  Element,
  Key,
  Value,
}

/**
 * One value of BSON, or none (`type` is `Type.None`) where a field is missing.
 *
 * It lies in the input, so it can be read only during the call that got it; `keep()` gives one to keep.
 * A reader like `number()` fails the record if the value has another type; `numberOr(0)` does not.
 */
export class Value {
  constructor(
    public readonly type: Type,
    /** Where the value's bytes begin, and how many they are. */
    public readonly at: usize,
    public readonly size: u32,
    private role: Role = Role.Value,
    private nameAt: usize = 0,
    /** The name of a missing field, and the memory of a value that does not lie in the input. */
    private missing: string = "",
    private owner: Bytes | null = null,
  ) {}

  /** Whether there is a value. */
  get exists(): bool {
    return this.type != Type.None;
  }

  /** Whether there is a value other than null and undefined. */
  get some(): bool {
    return this.exists && this.type != Type.Null && this.type != Type.Undefined;
  }

  get isNumber(): bool {
    return this.type == Type.Double || this.isInteger;
  }

  get isInteger(): bool {
    return this.type == Type.Int32 || this.type == Type.Int64;
  }

  get isString(): bool {
    return this.type == Type.String;
  }

  /** A double, int32 or int64 as a double. */
  number(): f64 {
    if (this.type == Type.Double) return load<f64>(this.at);
    if (!this.isInteger) this.mismatch("a number");
    return <f64>this.int64();
  }

  /** An int32 or int64. */
  int64(): i64 {
    if (this.type == Type.Int32) return load<i32>(this.at);
    if (this.type != Type.Int64) this.mismatch("an integer");
    return load<i64>(this.at);
  }

  /** An int32, or an int64 that fits. */
  int32(): i32 {
    const value = this.int64();
    if (value != <i64>(<i32>value)) fail(this.what() + " does not fit into 32 bits");
    return <i32>value;
  }

  bool(): bool {
    this.want(Type.Bool, "a boolean");
    return load<u8>(this.at) != 0;
  }

  /** A string (or symbol, or code without a scope), decoded. `text()` is faster. */
  string(): string {
    return this.text().toString();
  }

  /** The bytes of a string (or symbol, or code without a scope). */
  text(): Text {
    if (this.type != Type.Symbol && this.type != Type.Code) this.want(Type.String, "a string");
    return new Text(this.at + 4, this.size - 5, this.owner);
  }

  /** A date, in milliseconds since 1970. */
  date(): i64 {
    this.want(Type.Date, "a date");
    return load<i64>(this.at);
  }

  /** A timestamp: seconds in the upper half, the increment in the lower one. */
  timestamp(): u64 {
    this.want(Type.Timestamp, "a timestamp");
    return load<u64>(this.at);
  }

  /** An ObjectId in hexadecimal. */
  objectId(): string {
    this.want(Type.ObjectId, "an ObjectId");
    let hex = "";
    for (let i: usize = 0; i < 12; i++) {
      const byte = load<u8>(this.at + i);
      hex += String.fromCharCode(digit(byte >> 4)) + String.fromCharCode(digit(byte & 15));
    }
    return hex;
  }

  /** Binary data, copied; `subtype()` says of what kind. */
  binary(): Uint8Array {
    this.want(Type.Binary, "binary data");
    const len = load<u32>(this.at);
    const bytes = new Uint8Array(<i32>len);
    memory.copy(bytes.dataStart, this.at + 5, len);
    return bytes;
  }

  /** The subtype of binary data. */
  subtype(): u8 {
    this.want(Type.Binary, "binary data");
    return load<u8>(this.at + 4);
  }

  /** The lower 64 bits of a decimal128, as IEEE 754 packs it. */
  decimalLow(): u64 {
    this.want(Type.Decimal, "a decimal128");
    return load<u64>(this.at);
  }

  /** The upper 64 bits of a decimal128. */
  decimalHigh(): u64 {
    this.want(Type.Decimal, "a decimal128");
    return load<u64>(this.at, 8);
  }

  /** The pattern of a regular expression. */
  pattern(): string {
    this.want(Type.Regex, "a regular expression");
    return String.UTF8.decodeUnsafe(this.at, nameSize(this.at, this.at + this.size) - 1);
  }

  /** The options of a regular expression. */
  options(): string {
    this.want(Type.Regex, "a regular expression");
    const at = this.at + nameSize(this.at, this.at + this.size);
    return String.UTF8.decodeUnsafe(at, nameSize(at, this.at + this.size) - 1);
  }

  /** The source of code, with a scope or without. */
  code(): string {
    if (this.type != Type.CodeWithScope) {
      this.want(Type.Code, "code");
      return this.string();
    }
    return String.UTF8.decodeUnsafe(this.at + 8, load<u32>(this.at, 4) - 1);
  }

  /** The scope of code with a scope. */
  codeScope(): Doc {
    this.want(Type.CodeWithScope, "code with a scope");
    const at = this.at + 8 + load<u32>(this.at, 4);
    return new Doc(at, documentSize(at, this.at + this.size), this.owner);
  }

  /** A document inside of this one. */
  doc(): Doc {
    this.want(Type.Document, "a document");
    return new Doc(this.at, this.size, this.owner);
  }

  /** The elements of an array. */
  array(): Values {
    this.want(Type.Array, "an array");
    return new Values(this.at, this.size, Role.Element, this.owner);
  }

  numberOr(fallback: f64): f64 {
    return this.isNumber ? this.number() : fallback;
  }

  int64Or(fallback: i64): i64 {
    return this.isInteger ? this.int64() : fallback;
  }

  boolOr(fallback: bool): bool {
    return this.type == Type.Bool ? this.bool() : fallback;
  }

  stringOr(fallback: string): string {
    return this.isString ? this.string() : fallback;
  }

  /** A copy that outlives the call. */
  keep(): Value {
    const owner = new Bytes();
    owner.copy(this.at, this.size);
    return new Value(this.type, owner.at, this.size, this.role, 0, "", owner);
  }

  /** Any value as BSON: numbers, strings, booleans, arrays, documents. */
  static of<T>(value: T): Value {
    const owner = new Bytes();
    const type = put<T>(owner, value);
    return Value.owned(type, owner);
  }

  static null(): Value {
    return Value.owned(Type.Null, new Bytes());
  }

  static minKey(): Value {
    return Value.owned(Type.MinKey, new Bytes());
  }

  static maxKey(): Value {
    return Value.owned(Type.MaxKey, new Bytes());
  }

  /** A date, from milliseconds since 1970. */
  static date(ms: i64): Value {
    return Value.scalar<i64>(Type.Date, ms);
  }

  static timestamp(seconds: u32, increment: u32): Value {
    return Value.scalar<u64>(Type.Timestamp, (<u64>seconds << 32) | increment);
  }

  /** An ObjectId, from 24 hexadecimal digits. */
  static objectId(hex: string): Value {
    if (hex.length != 24) fail("an ObjectId is not 24 hexadecimal digits: " + hex);
    const owner = new Bytes();
    for (let i = 0; i < 24; i += 2) {
      const high = nibble(hex.charCodeAt(i)), low = nibble(hex.charCodeAt(i + 1));
      if ((high | low) > 15) fail("an ObjectId is not 24 hexadecimal digits: " + hex);
      owner.put<u8>(<u8>((high << 4) | low));
    }
    return Value.owned(Type.ObjectId, owner);
  }

  static binary(bytes: Uint8Array, subtype: u8 = 0): Value {
    const owner = new Bytes();
    owner.put<u32>(bytes.length);
    owner.put<u8>(subtype);
    owner.copy(bytes.dataStart, bytes.length);
    return Value.owned(Type.Binary, owner);
  }

  /** A decimal128, from its two halves. */
  static decimal(high: u64, low: u64): Value {
    const owner = new Bytes();
    owner.put<u64>(low);
    owner.put<u64>(high);
    return Value.owned(Type.Decimal, owner);
  }

  static regex(pattern: string, options: string = ""): Value {
    const owner = new Bytes();
    owner.name(pattern);
    owner.name(options);
    return Value.owned(Type.Regex, owner);
  }

  static code(source: string): Value {
    const owner = new Bytes();
    owner.text(source);
    return Value.owned(Type.Code, owner);
  }

  static symbol(name: string): Value {
    const owner = new Bytes();
    owner.text(name);
    return Value.owned(Type.Symbol, owner);
  }

  private static scalar<T>(type: Type, value: T): Value {
    const owner = new Bytes();
    owner.put<T>(value);
    return Value.owned(type, owner);
  }

  private static owned(type: Type, owner: Bytes): Value {
    return new Value(type, owner.at, owner.len, Role.Value, 0, "", owner);
  }

  writeTo(out: Bytes): Type {
    if (!this.exists) return Type.Null;
    out.copy(this.at, this.size);
    return this.type;
  }

  private want(type: Type, what: string): void {
    if (this.type != type) this.mismatch(what);
  }

  private mismatch(wanted: string): void {
    if (!this.exists) fail(this.what() + " is missing; the function needs " + wanted);
    fail(this.what() + " is " + typeName(this.type) + ", not " + wanted);
  }

  private what(): string {
    if (this.role == Role.Key) return "the key";
    if (this.missing != "") return "the field '" + this.missing + "'";
    if (this.nameAt == 0) return "the value";
    const name = String.UTF8.decodeUnsafe(this.nameAt, nameSize(this.nameAt, this.at) - 1);
    return this.role == Role.Element ? "the value at " + name : "the field '" + name + "'";
  }
}

function digit(n: u8): i32 {
  return n < 10 ? 48 + <i32>n : 87 + <i32>n;
}

function nibble(c: i32): i32 {
  if (c >= 48 && c <= 57) return c - 48;
  const lower = c | 32;
  return lower >= 97 && lower <= 102 ? lower - 87 : 255;
}

/** The bytes of a text, UTF-8, where they lie. */
export class Text {
  constructor(
    private at: usize,
    public readonly length: u32,
    private owner: Bytes | null = null,
  ) {}

  /** The byte there; 0 beyond the end. */
  @operator("[]")
  byteAt(index: i32): u8 {
    return <u32>index < this.length ? load<u8>(this.at + index) : 0;
  }

  /** The bytes from the first to before the second place. */
  slice(from: i32, to: i32 = i32.MAX_VALUE): Text {
    const end = <i32>min<u32>(this.length, <u32>max(to, 0)), start = min(max(from, 0), end);
    return new Text(this.at + start, end - start, this.owner);
  }

  /** A copy with A to Z in lower case. */
  lowerAscii(): Text {
    const owner = new Bytes(), len = this.length, to = owner.grow(len);
    for (let i: usize = 0; i < len; i++) {
      const c = load<u8>(this.at + i);
      store<u8>(to + i, c - 65 < 26 ? c | 32 : c);
    }
    return new Text(to, len, owner);
  }

  toString(): string {
    return String.UTF8.decodeUnsafe(this.at, this.length);
  }

  writeTo(out: Bytes): Type {
    out.put<u32>(this.length + 1);
    out.copy(this.at, this.length);
    out.put<u8>(0);
    return Type.String;
  }
}

/** The values of an array or of a key, or the fields of a document, one after the other:
 *  `while (values.next()) sum += values.value.number();` */
export class Values {
  private p: usize;
  private end: usize;
  private type: Type = Type.None;
  private size: u32 = 0;
  private nameAt: usize = 0;

  constructor(
    private at: usize,
    private len: u32,
    private role: Role = Role.Element,
    private owner: Bytes | null = null,
  ) {
    this.p = at + 4;
    this.end = at + len - 1;
  }

  /** Goes to the next one, and says whether there is one. */
  next(): bool {
    let p = this.p + this.size;
    const end = this.end;
    if (p >= end) {
      this.p = end;
      this.size = 0;
      this.type = Type.None;
      return false;
    }
    const type = <Type>load<u8>(p++);
    this.nameAt = p;
    p += nameSize(p, end);
    this.size = valueSize(type, p, end);
    this.type = type;
    this.p = p;
    return true;
  }

  /** The one `next` went to. */
  get value(): Value {
    return new Value(this.type, this.p, this.size, this.role, this.nameAt, "", this.owner);
  }

  /** The name of the field `next` went to; the index as text in an array. */
  get name(): string {
    if (this.type == Type.None) return "";
    return String.UTF8.decodeUnsafe(this.nameAt, this.p - this.nameAt - 1);
  }

  /** How many there are in all. */
  count(): i32 {
    const all = new Values(this.at, this.len, this.role, this.owner);
    let n = 0;
    while (all.next()) n++;
    return n;
  }

  /** Goes back to before the first. */
  rewind(): void {
    this.p = this.at + 4;
    this.size = 0;
    this.type = Type.None;
  }

  /** Whether the field `next` went to has this name. */
  named(name: string): bool {
    const n = name.length;
    const len = <i32>(this.p - this.nameAt - 1);
    for (let i = 0; i < n; i++) {
      const c = name.charCodeAt(i);
      if (c >= 0x80) return this.name == name;
      if (i >= len || <i32>load<u8>(this.nameAt + i) != c) return false;
    }
    return n == len;
  }

  /** The array of these values. */
  writeTo(out: Bytes): Type {
    out.copy(this.at, this.len);
    return this.role == Role.Field ? Type.Document : Type.Array;
  }
}

/** A document, read where it lies. */
export class Doc {
  constructor(
    private at: usize,
    private len: u32,
    private owner: Bytes | null = null,
  ) {}

  /** The field of that name, of type `Type.None` if there is none. */
  get(name: string): Value {
    const fields = this.fields();
    while (fields.next()) {
      if (fields.named(name)) return fields.value;
    }
    return new Value(Type.None, 0, 0, Role.Field, 0, name);
  }

  has(name: string): bool {
    return this.get(name).exists;
  }

  /** The fields, in their order. */
  fields(): Values {
    return new Values(this.at, this.len, Role.Field, this.owner);
  }

  writeTo(out: Bytes): Type {
    out.copy(this.at, this.len);
    return Type.Document;
  }
}

let parameters: Doc | null = null;

/** The job's parameters. */
export function scope(): Doc {
  let known = parameters;
  if (known === null) {
    const owner = new Bytes(), len = host_scope(0, 0);
    const at = owner.grow(len);
    host_scope(at, len);
    known = new Doc(at, documentSize(at, at + len), owner);
    parameters = known;
  }
  return known;
}
