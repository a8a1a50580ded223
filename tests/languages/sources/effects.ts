// Does all that a map may do besides emitting: parameters, counters, lines, a record that fails.
import { Doc, Level, count, emit, fail, log, scope } from "aviary";

export function map(doc: Doc): void {
  const job = scope();
  const id = doc.get("_id").int64();
  const label = job.get("label").string();
  const worth = id * job.get("factor").int64();
  if (id == job.get("bad").int64()) fail(`${label} ${id} is bad`);
  count(label, worth);
  log(`${label} ${id}`);
  log("100%", Level.Warn);
  emit(doc.get("_id"), worth);
}
