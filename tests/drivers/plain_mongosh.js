// Jobs asked for in mongosh with nothing loaded. Each step that holds is printed.

const assert = require("assert");
const name = process.env.NAME;
const requests = db.getCollection("aviary-requests");

function sums(step) {
  return {
    _id: `${name}-${step}`,
    v: 1,
    input: { collection: "orders" },
    map: { js: "function () { emit(this.k, this.v); }" },
    reduce: "_sum",
    out: { replace: `${name}-${step}` },
  };
}

function ended(id) {
  const until = Date.now() + 600000;
  while (Date.now() < until) {
    const request = requests.findOne({ _id: id });
    if (request.result || request.error) return request;
    sleep(50);
  }
  throw new Error(`${id} does not end`);
}

function check(request) {
  assert.equal(request.state, "accepted", EJSON.stringify(request));
  assert.equal(request.result.counters.input, 100, EJSON.stringify(request));
  const found = db.getCollection(request.result.output.collection).find().sort({ _id: 1 }).toArray();
  assert.deepEqual(found, [0, 1, 2, 3, 4].map((k) => ({ _id: k, value: 950 + 20 * k })));
}

function codeOf(request) {
  try {
    requests.insertOne(request);
  } catch (error) {
    return error.code;
  }
  return 0;
}

const again = { ...sums("units"), out: { replace: `${name}-typo` } };
requests.insertOne(sums("units"));
assert.equal(codeOf(again), 11000);
check(ended(`${name}-units`));
print("done: run");

assert.equal(codeOf(again), 11000);
print("done: twice");

for (const typo of [{ mapp: { js: "x" } }, { out: { replce: "x" } }, { reduce: "_summ" }]) {
  assert.equal(codeOf({ ...sums("typo"), ...typo }), 121);
}
print("done: typo");

const session = db.getMongo().startSession();
const inside = session.getDatabase("test").getCollection("aviary-requests");
session.startTransaction();
inside.insertOne(sums("aborted"));
session.abortTransaction();
session.startTransaction();
inside.insertOne(sums("kept"));
session.commitTransaction();
session.endSession();
check(ended(`${name}-kept`));
print("done: transaction");
