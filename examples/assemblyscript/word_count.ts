// Counts words: runs of ASCII letters and digits in `text`, in lower case.
import { Doc, Value, Values, emit } from "aviary";

export function map(doc: Doc): void {
  const text = doc.get("text").text(), length = <i32>text.length;
  let start = 0;
  for (let i = 0; i <= length; i++) {
    // Beyond the end there is a 0, which ends the last word.
    if (inWord(text[i])) continue;
    if (i > start) emit(text.slice(start, i).lowerAscii(), 1);
    start = i + 1;
  }
}

export function reduce(key: Value, values: Values): i64 {
  let sum: i64 = 0;
  while (values.next()) sum += values.value.int64();
  return sum;
}

function inWord(c: u8): bool {
  const letter = c | 32;
  return (letter >= 97 && letter <= 122) || (c >= 48 && c <= 57);
}
