// The median of each customer's totals. It takes all values of a key together, so the reduce is a streaming one: it is
// given them piece by piece, in three functions.
import { Doc, Value, Values, emit } from "aviary";

let totals = new Array<f64>();

export function map(doc: Doc): void {
  emit(doc.get("customer").text(), doc.get("total").number());
}

export function reduceBegin(key: Value): void {
  totals = new Array<f64>();
}

export function reduceNext(values: Values): void {
  while (values.next()) totals.push(values.value.number());
}

export function reduceEnd(): f64 {
  totals.sort();
  const n = totals.length, half = n / 2;
  return n % 2 == 1 ? totals[half] : (totals[half - 1] + totals[half]) / 2.0;
}
