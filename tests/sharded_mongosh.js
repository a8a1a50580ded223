// What an operator does through a mongos, done in mongosh through the router under test. Each part
// checks what came of it and throws otherwise; sharded_mongosh.rs runs it and looks at the rest.

"use strict";

const nodeAssert = require("node:assert");
const same = (found, expected) =>
  nodeAssert.deepStrictEqual(JSON.parse(EJSON.stringify(found)), JSON.parse(EJSON.stringify(expected)));
// mongosh waits for commands in functions of the script only, so not within an assertion of Node's.
const refused = (action, pattern) => {
  let message = null;
  try {
    action();
  } catch (error) {
    message = error.message;
  }
  nodeAssert.match(message ?? "nothing was refused", pattern);
};
const part = (name, action) => {
  action();
  print(`done: ${name}`);
};

const shell = db.getSiblingDB("shell");
const range = (from, to) => Array.from({ length: to - from }, (_, i) => from + i);
const owners = (ns) => {
  const { uuid } = db.getSiblingDB("config").collections.findOne({ _id: ns });
  return db.getSiblingDB("config").chunks.find({ uuid }).sort({ min: 1 }).toArray().map((c) => c.shard);
};
// What a shard's own server holds.
const held = (shard, ns) => {
  const { host } = db.getSiblingDB("config").shards.findOne({ _id: shard });
  const direct = new Mongo(`mongodb://${host.split("/")[1]}/?directConnection=true`);
  const [name, collection] = ns.split(".");
  return direct.getDB(name)[collection].find().sort({ k: 1 }).toArray().map((d) => d.k);
};

part("crud", () => {
  same(db.hello().msg, "isdbgrid");
  const things = shell.crud;
  same(things.insertMany(range(0, 300).map((k) => ({ _id: k, k, g: k % 3 }))).acknowledged, true);
  same(things.countDocuments(), 300);
  same(things.estimatedDocumentCount(), 300);
  same(things.findOne({ k: 7 }), { _id: 7, k: 7, g: 1 });
  same(things.updateMany({ g: 0 }, { $set: { n: 1 } }).modifiedCount, 100);
  same(things.updateOne({ k: 1000 }, { $set: { g: 9 } }, { upsert: true }).upsertedCount, 1);
  same(things.replaceOne({ k: 1000 }, { k: 1000, g: 10 }).modifiedCount, 1);
  same(things.findOneAndUpdate({ k: 5 }, { $inc: { n: 4 } }, { returnDocument: "after" }).n, 4);
  same(things.findOneAndDelete({ k: 1000 }).g, 10);
  same(things.deleteMany({ k: { $gte: 290 } }).deletedCount, 10);
  same(things.distinct("g").sort(), [0, 1, 2]);
  same(things.find({ k: { $lt: 5 } }, { _id: 0, k: 1 }).sort({ k: -1 }).toArray(), [4, 3, 2, 1, 0].map((k) => ({ k })));
  refused(() => things.insertOne({ _id: 1 }), /E11000/);
  same(things.bulkWrite([{ insertOne: { document: { _id: 500, k: 500 } } }, { deleteOne: { filter: { k: 500 } } }]).deletedCount, 1);
});

part("aggregate", () => {
  const sums = shell.crud
    .aggregate([{ $match: { k: { $lt: 9 } } }, { $group: { _id: "$g", sum: { $sum: "$k" } } }, { $sort: { _id: 1 } }])
    .toArray();
  same(sums, [{ _id: 0, sum: 9 }, { _id: 1, sum: 12 }, { _id: 2, sum: 15 }]);
  shell.crud.aggregate([{ $group: { _id: "$g", n: { $sum: 1 } } }, { $out: "groups" }]);
  same(shell.groups.find().sort({ _id: 1 }).toArray().map((d) => d._id), [0, 1, 2]);
  shell.crud.aggregate([{ $limit: 1 }, { $project: { _id: { $literal: "merged" } } }, { $merge: "groups" }]);
  same(shell.groups.countDocuments(), 4);
});

part("shardCollection", () => {
  same(sh.enableSharding("shell2", "s1").ok, 1);
  sh.shardCollection("shell.kept", { k: 1 });
  shell.kept.insertMany(range(0, 300).map((k) => ({ _id: k, k, n: 0 })));
  sh.shardCollection("shell2.hashed", { k: "hashed" }, false, { numInitialChunks: 6 });
  db.getSiblingDB("shell2").hashed.insertMany(range(0, 300).map((k) => ({ k })));
  const parts = ["s0", "s1", "s2"].map((shard) => held(shard, "shell2.hashed"));
  nodeAssert(parts.every((part) => part.length > 0), "each shard has some");
  same(parts.flat().sort((a, b) => a - b), range(0, 300));
  sh.shardCollection("shell2.compound", { g: 1, k: 1 });
  same(owners("shell2.compound"), ["s1"]);
  refused(() => sh.shardCollection("shell.kept", { other: 1 }), /already enabled/);
});

part("split", () => {
  sh.splitAt("shell.kept", { k: 100 });
  sh.splitAt("shell.kept", { k: 200 });
  same(owners("shell.kept").length, 3);
  sh.splitFind("shell.kept", { k: 50 });
  same(owners("shell.kept").length, 4);
  const chunks = db.getSiblingDB("config").chunks.find({ "min.k": { $lt: 100, $gt: 0 } }).toArray();
  same(chunks.length, 1);
  const bounds = [{ k: MinKey() }, { k: 100 }];
  same(db.adminCommand({ mergeChunks: "shell.kept", bounds }).ok, 1);
  same(owners("shell.kept").length, 3);
});

part("moves", () => {
  const first = owners("shell.kept")[0];
  same(sh.moveChunk("shell.kept", { k: 150 }, first === "s1" ? "s2" : "s1").ok, 1);
  const move = (min, toShard) =>
    same(db.adminCommand({ moveRange: "shell.kept", min, toShard, waitForDelete: true }).ok, 1);
  if (first !== "s0") move({ k: MinKey() }, "s0");
  move({ k: 100 }, "s1");
  move({ k: 200 }, "s2");
  same(owners("shell.kept"), ["s0", "s1", "s2"]);
  same(held("s0", "shell.kept"), range(0, 100));
  same(held("s1", "shell.kept"), range(100, 200));
  same(held("s2", "shell.kept"), range(200, 300));
  same(shell.kept.countDocuments(), 300);
  same(shell.kept.find().sort({ k: 1 }).toArray().map((d) => d.k), range(0, 300));
  const plan = shell.kept.find({ k: 150 }).explain().queryPlanner.winningPlan;
  same(plan.shards.map((s) => s.shardName), ["s1"]);
});

part("getMore", () => {
  const found = [];
  const cursor = shell.kept.find().batchSize(7);
  while (cursor.hasNext()) found.push(cursor.next().k);
  same(found.sort((a, b) => a - b), range(0, 300));
  const first = shell.runCommand({ find: "kept", batchSize: 2 });
  nodeAssert(first.cursor.id > 0);
  same(shell.runCommand({ killCursors: "kept", cursors: [first.cursor.id] }).cursorsKilled.length, 1);
  refused(() => shell.runCommand({ getMore: first.cursor.id, collection: "kept" }), /not found/);
});

part("sessions", () => {
  const session = db.getMongo().startSession({ causalConsistency: true });
  const kept = session.getDatabase("shell").kept;
  for (const k of [50, 150, 250]) {
    kept.updateOne({ k }, { $inc: { n: 5 } });
    same(kept.findOne({ k }).n, 5);
  }
  nodeAssert(session.getOperationTime(), "the session knows the time");
  session.startTransaction();
  refused(() => kept.insertOne({ _id: 900, k: 900 }), /no transactions/);
  session.endSession();
  same(shell.kept.countDocuments({ n: 5 }), 3);
});

part("indexes", () => {
  shell.kept.createIndex({ n: 1 }, { name: "by_n" });
  same(shell.kept.getIndexes().map((i) => i.name).sort(), ["_id_", "by_n", "k_1"]);
  same(shell.kept.find({ n: 5 }).hint("by_n").toArray().length, 3);
  shell.kept.dropIndex("by_n");
  same(shell.kept.getIndexes().map((i) => i.name).sort(), ["_id_", "k_1"]);
});

part("collections", () => {
  shell.createCollection("checked", { validator: { a: 1 } });
  same(shell.getCollectionNames().sort(), ["checked", "crud", "groups", "kept"]);
  same(shell.getCollectionInfos({ name: "checked" })[0].options, { validator: { a: 1 } });
  refused(() => shell.checked.insertOne({ a: 2 }), /validation/);
  nodeAssert(db.getMongo().getDBNames().includes("shell"));
  const stats = shell.kept.stats();
  same([stats.sharded, stats.count, Object.keys(stats.shards).sort()], [true, 300, ["s0", "s1", "s2"]]);
});

part("zones", () => {
  same(sh.addShardToZone("s2", "high").ok, 1);
  same(sh.updateZoneKeyRange("shell.kept", { k: 200 }, { k: MaxKey() }, "high").ok, 1);
  const tags = db.getSiblingDB("config").tags;
  same(tags.find({ ns: "shell.kept" }).toArray().map((t) => [t.min, t.tag]), [[{ k: 200 }, "high"]]);
  same(db.getSiblingDB("config").shards.findOne({ _id: "s2" }).tags, ["high"]);
});

part("rename", () => {
  shell.groups.renameCollection("renamed");
  same(shell.renamed.countDocuments(), 4);
  const two = db.getSiblingDB("shell2");
  two.hashed.renameCollection("spread");
  same(two.spread.countDocuments(), 300);
  same(two.hashed.countDocuments(), 0);
  two.crowd.insertOne({ _id: 1 });
  refused(() => two.spread.renameCollection("crowd"), /exists/);
  two.spread.renameCollection("crowd", true);
  same(two.crowd.countDocuments(), 300);
  same(owners("shell2.crowd").length, 6);
});

part("status", () => {
  const { value } = sh.status();
  same(value.shards.map((s) => s._id), ["s0", "s1", "s2"]);
  const status = value.databases.find((d) => d.database._id === "shell");
  same(Object.keys(status.collections), ["shell.kept"]);
  const { shardKey, chunks, tags } = status.collections["shell.kept"];
  same(shardKey, { k: 1 });
  same(chunks.length, 3);
  same(tags[0].tag, "high");
  sh.stopBalancer();
  same(sh.getBalancerState(), false);
});

part("drop", () => {
  sh.updateZoneKeyRange("shell.kept", { k: 200 }, { k: MaxKey() }, null);
  sh.removeShardFromZone("s2", "high");
  for (const name of ["crud", "renamed", "checked"]) same(shell[name].drop(), true);
  same(shell.getCollectionNames(), ["kept"]);
  db.getSiblingDB("shell2").dropDatabase();
  nodeAssert(!db.getMongo().getDBNames().includes("shell2"));
  same(db.getSiblingDB("config").collections.countDocuments({ _id: /^shell2/ }), 0);
});
