// Reads a value of each type and writes it again.
import { ArrayWriter, Doc, DocWriter, Type, Value, emit, fail } from "aviary";

export function map(doc: Doc): void {
  emit(doc.get("_id"), new DocWriter().set("v", again(doc.get("v"))).set("none", doc.get("none")));
}

function again(v: Value): Value {
  switch (v.type) {
    case Type.Double: return Value.of(v.number());
    case Type.Int32: return Value.of(v.int32());
    case Type.Int64: return Value.of(v.int64());
    case Type.String: return Value.of(v.string());
    case Type.Document: {
      const written = new DocWriter(), fields = v.doc().fields();
      while (fields.next()) written.set(fields.name, again(fields.value));
      return Value.of(written);
    }
    case Type.Array: {
      const written = new ArrayWriter(), items = v.array();
      while (items.next()) written.push(again(items.value));
      return Value.of(written);
    }
    case Type.Binary: return Value.binary(v.binary(), v.subtype());
    case Type.ObjectId: return Value.objectId(v.objectId());
    case Type.Bool: return Value.of(v.bool());
    case Type.Date: return Value.date(v.date());
    case Type.Null: return Value.null();
    case Type.Regex: return Value.regex(v.pattern(), v.options());
    case Type.Code: return Value.code(v.code());
    case Type.Symbol: return Value.symbol(v.string());
    case Type.CodeWithScope:
      if (v.code() != "f" || v.codeScope().get("n").int32() != 1) fail("code with a scope is read as something else");
      return v;
    case Type.Timestamp: return Value.timestamp(<u32>(v.timestamp() >> 32), <u32>v.timestamp());
    case Type.Decimal: return Value.decimal(v.decimalHigh(), v.decimalLow());
    case Type.MinKey: return Value.minKey();
    case Type.MaxKey: return Value.maxKey();
    default: return v;
  }
}
