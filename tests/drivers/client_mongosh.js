// What the thin client of JavaScript does in mongosh. Each step that holds is printed.

const assert = require("assert");
const name = process.env.NAME;
const LONG = 600000;
const EXPECTED = [0, 1, 2, 3, 4].map((k) => ({ _id: k, value: 950 + 20 * k }));
load(process.env.CLIENT);
// As a person does who forgot.
load(process.env.CLIENT);

function sums(step, more) {
  return {
    _id: `${name}-${step}`,
    input: { collection: "orders" },
    map: function () { emit(this.k, this.v); },
    reduce: "_sum",
    out: { replace: `${name}-${step}` },
    ...more,
  };
}

function fails(kind, action) {
  let caught;
  try {
    action();
  } catch (error) {
    caught = error;
  }
  assert.ok(caught instanceof kind, `no ${kind.name}: ${caught}`);
  return caught;
}

const units = aviary.submit(sums("units"));
assert.equal(units, `${name}-units`);
const told = aviary.wait(units, LONG);
assert.equal(told.result.counters.input, 100);
const other = aviary.submit({ ...sums("units"), _id: undefined, out: { inline: 1 } });
assert.equal(aviary.wait(other, LONG).job, other);
assert.deepEqual(aviary.results(other).toArray(), EXPECTED);
print("done: submit");

assert.deepEqual(aviary.results(units).toArray(), EXPECTED);
assert.deepEqual(aviary.results(told.job).toArray(), EXPECTED);
print("done: results");

assert.equal(aviary.submit(sums("units")), units);
assert.equal(aviary.status(units).job, told.job);
print("done: again");

const ids = aviary.jobs().map((request) => request._id);
assert.ok(ids.includes(units) && ids.includes(other), `${ids}`);
assert.equal(aviary.jobs(1).length, 1);
assert.match(fails(Error, () => aviary.wait("nothing")).message, /no request nothing/);
print("done: jobs");

const elsewhere = aviary.submit(sums("far", { out: { replace: name, db: "elsewhere" } }));
assert.deepEqual(aviary.results(elsewhere).toArray(), EXPECTED);
assert.equal(db.getSiblingDB("elsewhere").getCollection(name).countDocuments(), 5);
print("done: elsewhere");

const nowhere = aviary.submit(sums("nowhere", { input: { collection: "nowhere" } }));
let refused = fails(aviary.Refused, () => aviary.wait(nowhere, LONG));
assert.equal(refused.error.field, "input");
assert.match(refused.message, /^input: .*not found/);
print("done: refused");

const forgotten = fails(TypeError, () => aviary.submit(sums("broken", { map() { emit(1, 1); } })));
assert.match(forgotten.message, /^map: write it as function/);
const throwing = function () { throw new Error("on purpose"); };
const broken = aviary.submit(sums("broken", { map: throwing }));
let failed = fails(aviary.Failed, () => aviary.wait(broken, LONG));
assert.equal(failed.job, aviary.status(broken).job);
assert.match(failed.message, /on purpose/);
fails(aviary.Failed, () => aviary.results(broken));
print("done: failed");

const slowMap = function () { for (let n = 0; n < 1e12; n++); emit(1, 1); };
const slow = aviary.submit(sums("slow", { map: slowMap, limits: { recordTimeoutMs: LONG } }));
while (aviary.status(slow).progress?.state !== "mapping") sleep(50);
assert.match(fails(Error, () => aviary.wait(slow, 100)).message, /slow goes on/);
const end = aviary.cancel(slow, LONG);
assert.equal(end.state, "accepted");
failed = fails(aviary.Failed, () => aviary.wait(slow, LONG));
assert.equal(failed.error.code, "cancelled");
assert.equal(failed.job, end.job);
assert.equal(aviary.status(failed.job)._id, slow);
assert.ok(!aviary.jobs().some((request) => request._id === end._id));
refused = fails(aviary.Refused, () => aviary.cancel(units, LONG));
assert.match(refused.message, /succeeded/);
refused = fails(aviary.Refused, () => aviary.cancel("nobody", LONG));
assert.deepEqual([refused.error.code, refused.error.field], ["not_found", "cancel"]);
print("done: cancel");

refused = fails(aviary.Refused, () => aviary.resume(units, LONG));
assert.match(refused.message, /only a stopped job can be resumed/);
refused = fails(aviary.Refused, () => aviary.resume("nobody", LONG));
assert.deepEqual([refused.error.code, refused.error.field], ["not_found", "resume"]);
print("done: resume_refused");

// A target that takes no two equal values.
const target = db.getCollection(`${name}-stopped`);
target.createIndex({ value: 1 }, { unique: true, name: "strict" });
const ones = function () { emit(this.k, 1); };
const stopped = aviary.submit(sums("stopped", { map: ones, out: { merge: `${name}-stopped` } }));
failed = fails(aviary.Failed, () => aviary.wait(stopped, LONG));
assert.equal(failed.error.code, "stopped");
target.dropIndex("strict");
assert.equal(aviary.resume(stopped, LONG).job, failed.job);
assert.ok(aviary.wait(stopped, LONG).result);
assert.deepEqual(aviary.results(stopped).toArray(), [0, 1, 2, 3, 4].map((k) => ({ _id: k, value: 20 })));
print("done: resume");
