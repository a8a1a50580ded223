// Does all that a map may do besides emitting: parameters, counters, lines, a record that fails.
function () {
  const line = `${label} ${this._id}`, worth = this._id * factor;
  if (this._id === bad) throw new Error(`${line} is bad`);
  count(label, worth);
  print(line);
  console.warn("100%");
  emit(this._id, worth);
}
