// Values, documents and arrays that a function makes.

import { Bytes, Type } from "./bytes";
import { fail, host_emit } from "./host";
import { take } from "./sums";

/**
 * Appends a value's bytes and returns its type: i8 to i32, u8 and u16 become an int32, the larger integers an int64,
 * floats a double; then booleans, strings, arrays of all these, null, and whatever has `writeTo`.
 */
export function put<T>(out: Bytes, value: T): Type {
  if (isBoolean<T>()) {
    out.put<u8>(value ? 1 : 0);
    return Type.Bool;
  } else if (isInteger<T>()) {
    if (sizeof<T>() < 4 || (sizeof<T>() == 4 && isSigned<T>())) {
      out.put<i32>(<i32>value);
      return Type.Int32;
    }
    if (sizeof<T>() == 8 && !isSigned<T>() && <u64>value > <u64>i64.MAX_VALUE) {
      fail("an integer does not fit into BSON's 64 bits with sign");
    }
    out.put<i64>(<i64>value);
    return Type.Int64;
  } else if (isFloat<T>()) {
    out.put<f64>(<f64>value);
    return Type.Double;
  } else {
    if (isNullable<T>()) {
      if (changetype<usize>(value) == 0) return Type.Null;
      return put<NonNullable<T>>(out, changetype<NonNullable<T>>(changetype<usize>(value)));
    } else if (isString<T>()) {
      out.text(changetype<string>(changetype<usize>(value)));
      return Type.String;
      // @ts-ignore: this asks whether there is one
    } else if (isDefined(value.writeTo)) {
      // @ts-ignore: there is
      return value.writeTo(out);
    } else if (isArrayLike<T>()) {
      const array = new ArrayWriter();
      // @ts-ignore: an array has a length and an index
      for (let i = 0, n = <i32>value.length; i < n; i++) array.push(value[i]);
      return array.writeTo(out);
    } else {
      ERROR("this cannot be written as BSON: give numbers, booleans, strings, arrays, Value, DocWriter or ArrayWriter");
    }
  }
}

/** Makes a document: `new DocWriter().set("id", id).set("total", 2.5)`. */
export class DocWriter {
  private fields: Bytes = new Bytes();

  /** Adds a field. A missing value becomes null. */
  set<T>(name: string, value: T): DocWriter {
    const fields = this.fields, start = fields.len;
    fields.put<u8>(0);
    fields.name(name);
    const type = put<T>(fields, value);
    store<u8>(fields.at + start, <u8>type);
    return this;
  }

  writeTo(out: Bytes): Type {
    out.put<u32>(this.fields.len + 5);
    out.copy(this.fields.at, this.fields.len);
    out.put<u8>(0);
    return Type.Document;
  }
}

/** Makes an array: `new ArrayWriter().push(1).push("two")`. */
export class ArrayWriter {
  private fields: DocWriter = new DocWriter();
  /** How many values it has. */
  length: i32 = 0;

  /** Adds a value at the end. */
  push<T>(value: T): ArrayWriter {
    this.fields.set(this.length.toString(), value);
    this.length++;
    return this;
  }

  writeTo(out: Bytes): Type {
    this.fields.writeTo(out);
    return Type.Array;
  }
}

const keyOut = new Bytes();
const valueOut = new Bytes();

/** Emits a pair. A missing value is emitted as null. */
export function emit<K, V>(key: K, value: V): void {
  keyOut.len = 1;
  valueOut.len = 1;
  const keyType = put<K>(keyOut, key);
  const valueType = put<V>(valueOut, value);
  store<u8>(keyOut.at, <u8>keyType);
  store<u8>(valueOut.at, <u8>valueType);
  if (take(keyOut.at, keyOut.len, valueOut.at, valueOut.len)) return;
  host_emit(keyOut.at, keyOut.len, valueOut.at, valueOut.len);
}
