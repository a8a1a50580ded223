// Emits each pair that a document lists.
import { Doc, emit } from "aviary";

export function map(doc: Doc): void {
  const pairs = doc.get("pairs").array();
  while (pairs.next()) {
    const pair = pairs.value.doc();
    emit(pair.get("k"), pair.get("v"));
  }
}
