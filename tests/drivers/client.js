// What the thin client of JavaScript does with the driver of Node. Each step that holds is printed.

const assert = require("node:assert/strict");
const { MongoClient } = require("mongodb");
const { Aviary, Refused, Failed } = require("../../clients/javascript/aviary.js");

const [uri, name] = process.argv.slice(2);
const client = new MongoClient(uri, { serverSelectionTimeoutMS: 10000 });
const db = client.db("test");
const aviary = new Aviary(db);
const LONG = 600000;
const EXPECTED = [0, 1, 2, 3, 4].map((k) => ({ _id: k, value: 950 + 20 * k }));
const slowMap = function () { for (let n = 0; n < 1e12; n++); emit(1, 1); };

const sums = (step, more = {}) => ({
  _id: `${name}-${step}`,
  input: { collection: "orders" },
  map: function () { emit(this.k, this.v); },
  reduce: "_sum",
  out: { replace: `${name}-${step}` },
  ...more,
});

async function fails(kind, promise) {
  const error = await promise.then(() => assert.fail(`no ${kind.name}`), (error) => error);
  assert.ok(error instanceof kind, error);
  return error;
}

async function steps() {
  const units = await aviary.submit(sums("units"));
  assert.equal(units, `${name}-units`);
  const told = await aviary.wait(units, LONG);
  assert.equal(told.result.counters.input, 100);
  const other = await aviary.submit({ ...sums("units"), _id: undefined, out: { inline: 1 } });
  assert.equal((await aviary.wait(other, LONG)).job, other);
  assert.deepEqual(await aviary.results(other), EXPECTED);
  console.log("done: submit");

  assert.deepEqual(await aviary.results(units), EXPECTED);
  assert.deepEqual(await aviary.results(told.job), EXPECTED, "by the job's id");
  console.log("done: results");

  assert.equal(await aviary.submit(sums("units")), units);
  assert.equal((await aviary.status(units)).job, told.job);
  console.log("done: again");

  const ids = (await aviary.jobs()).map((request) => request._id);
  assert.ok(ids.includes(units) && ids.includes(other), ids);
  assert.equal((await aviary.jobs(1)).length, 1);
  assert.match((await fails(Error, aviary.wait("nothing"))).message, /no request nothing/);
  console.log("done: jobs");

  const elsewhere = await aviary.submit(sums("far", { out: { replace: name, db: "elsewhere" } }));
  assert.deepEqual(await aviary.results(elsewhere), EXPECTED);
  assert.equal(await client.db("elsewhere").collection(name).countDocuments(), 5);
  console.log("done: elsewhere");

  // Whatever the database's own preference is; here is no secondary.
  const there = new Aviary(client.db("test", { readPreference: "secondary" }));
  assert.equal((await there.status(units))._id, units);
  assert.equal((await there.jobs(1)).length, 1);
  assert.deepEqual(await there.results(units), EXPECTED);
  assert.deepEqual(await there.results(elsewhere), EXPECTED);
  console.log("done: primary");

  const nowhere = await aviary.submit(sums("nowhere", { input: { collection: "nowhere" } }));
  let refused = await fails(Refused, aviary.wait(nowhere, LONG));
  assert.equal(refused.error.field, "input");
  assert.match(refused.message, /^input: .*not found/);
  console.log("done: refused");

  const broken = await aviary.submit(sums("broken", { map() { throw new Error("on purpose"); } }));
  let failed = await fails(Failed, aviary.wait(broken, LONG));
  assert.equal(failed.job, (await aviary.status(broken)).job);
  assert.match(failed.message, /on purpose/);
  await fails(Failed, aviary.results(broken));
  const bound = await fails(TypeError, aviary.submit(sums("bound", { map: slowMap.bind(null) })));
  assert.match(bound.message, /^map: write it as function/);
  console.log("done: failed");

  const slow = await aviary.submit(sums("slow", { map: slowMap, limits: { recordTimeoutMs: LONG } }));
  while ((await aviary.status(slow)).progress?.state !== "mapping") await new Promise((done) => setTimeout(done, 50));
  assert.match((await fails(Error, aviary.wait(slow, 100))).message, /slow goes on/);
  const ended = await aviary.cancel(slow, LONG);
  assert.equal(ended.state, "accepted");
  failed = await fails(Failed, aviary.wait(slow, LONG));
  assert.equal(failed.error.code, "cancelled");
  assert.equal(failed.job, ended.job);
  assert.equal((await aviary.status(failed.job))._id, slow, "the job's request, not that for its end");
  assert.ok(!(await aviary.jobs()).some((request) => request._id === ended._id));
  refused = await fails(Refused, aviary.cancel(units, LONG));
  assert.match(refused.message, /succeeded/);
  refused = await fails(Refused, aviary.cancel("nobody", LONG));
  assert.deepEqual([refused.error.code, refused.error.field], ["not_found", "cancel"]);
  console.log("done: cancel");

  refused = await fails(Refused, aviary.resume(units, LONG));
  assert.match(refused.message, /only a stopped job can be resumed/);
  refused = await fails(Refused, aviary.resume("nobody", LONG));
  assert.deepEqual([refused.error.code, refused.error.field], ["not_found", "resume"]);
  console.log("done: resume_refused");

  // A target that takes no two equal values.
  const target = db.collection(`${name}-stopped`);
  await target.createIndex({ value: 1 }, { unique: true, name: "strict" });
  const ones = function () { emit(this.k, 1); };
  const stopped = await aviary.submit(sums("stopped", { map: ones, out: { merge: `${name}-stopped` } }));
  failed = await fails(Failed, aviary.wait(stopped, LONG));
  assert.equal(failed.error.code, "stopped");
  await target.dropIndex("strict");
  assert.equal((await aviary.resume(stopped, LONG)).job, failed.job);
  assert.ok((await aviary.wait(stopped, LONG)).result, "it goes on");
  assert.deepEqual(await aviary.results(stopped), [0, 1, 2, 3, 4].map((k) => ({ _id: k, value: 20 })));
  console.log("done: resume");

  const session = client.startSession();
  session.startTransaction();
  await aviary.submit(sums("aborted"), session);
  await session.abortTransaction();
  const kept = await session.withTransaction(() => aviary.submit(sums("kept"), session));
  await session.endSession();
  assert.ok((await aviary.wait(kept, LONG)).result);
  console.log("done: transaction");
}

steps().finally(() => client.close());
