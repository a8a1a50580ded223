// Aviary functions in AssemblyScript:
//
//     import { Doc, Value, Values, emit } from "aviary";
//
//     export function map(doc: Doc): void {
//       emit(doc.get("customer"), doc.get("total").number());
//     }
//
//     export function reduce(key: Value, values: Values): f64 {
//       let sum = 0.0;
//       while (values.next()) sum += values.value.number();
//       return sum;
//     }

export { Bytes, Type, typeName } from "./bytes";
export { Level, count, fail, log, now } from "./host";
export { disableSums } from "./sums";
export { Doc, Text, Value, Values, scope } from "./value";
export { ArrayWriter, DocWriter, emit } from "./write";
