// Jobs asked for with the driver of Node alone. Each step that holds is printed.

const assert = require("node:assert/strict");
const { MongoClient } = require("mongodb");

const [uri, name] = process.argv.slice(2);
const client = new MongoClient(uri);
const db = client.db("test");
const requests = db.collection("aviary-requests");

const sums = (step) => ({
  _id: `${name}-${step}`,
  v: 1,
  input: { collection: "orders" },
  map: { js: "function () { emit(this.k, this.v); }" },
  reduce: "_sum",
  out: { replace: `${name}-${step}` },
});

// Inserts, and follows a change stream that was opened before.
async function ended(id, insert) {
  const changes = requests.watch([{ $match: { "documentKey._id": id } }], { fullDocument: "updateLookup" });
  try {
    await changes.tryNext();
    await insert();
    for await (const { fullDocument } of changes) {
      if (fullDocument?.result || fullDocument?.error) return fullDocument;
    }
    return assert.fail("the change stream ended");
  } finally {
    await changes.close();
  }
}

async function check(request) {
  assert.equal(request.state, "accepted", JSON.stringify(request));
  assert.equal(request.result?.counters.input, 100, JSON.stringify(request));
  const found = await db.collection(request.result.output.collection).find().sort({ _id: 1 }).toArray();
  assert.deepEqual(found, [0, 1, 2, 3, 4].map((k) => ({ _id: k, value: 950 + 20 * k })));
}

const twice = () =>
  assert.rejects(requests.insertOne({ ...sums("units"), out: { replace: `${name}-typo` } }), { code: 11000 });

async function main() {
  await check(
    await ended(`${name}-units`, async () => {
      await requests.insertOne(sums("units"));
      await twice();
    }),
  );
  console.log("done: run");

  await twice();
  console.log("done: twice");

  for (const typo of [{ mapp: { js: "x" } }, { out: { replce: "x" } }, { reduce: "_summ" }]) {
    await assert.rejects(requests.insertOne({ ...sums("typo"), ...typo }), { code: 121 });
  }
  console.log("done: typo");

  const session = client.startSession();
  session.startTransaction();
  await requests.insertOne(sums("aborted"), { session });
  await session.abortTransaction();
  await check(
    await ended(`${name}-kept`, () =>
      session.withTransaction(() => requests.insertOne(sums("kept"), { session })),
    ),
  );
  await session.endSession();
  console.log("done: transaction");
}

main().finally(() => client.close());
