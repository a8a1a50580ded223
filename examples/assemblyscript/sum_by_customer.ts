// What each customer spent: the sum of `total`.
import { Doc, Value, Values, emit } from "aviary";

export function map(doc: Doc): void {
  emit(doc.get("customer").text(), doc.get("total").number());
}

export function reduce(key: Value, values: Values): f64 {
  let sum = 0.0;
  while (values.next()) sum += values.value.number();
  return sum;
}
