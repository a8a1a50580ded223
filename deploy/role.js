// The least that coordinator and workers need, for mongosh:
//   DB=shop INPUT_DB=shop mongosh "$ADMIN_URI" --file deploy/role.js
// DB holds Aviary's collections and the output, INPUT_DB the input. Then make a user of it:
//   db.getSiblingDB("admin").createUser({ user: "aviary", pwd: passwordPrompt(), roles: ["aviary"] })
const own = { db: process.env.DB ?? "test", collection: "" };
const input = { db: process.env.INPUT_DB ?? own.db, collection: "" };
// A role that reaches into several databases lives in admin.
db.getSiblingDB("admin").createRole({
  role: "aviary",
  privileges: [
    {
      resource: own,
      actions: [
        "find", "insert", "update", "remove", "changeStream", "createCollection", "createIndex", "collMod",
        "collStats", "dropCollection", "listCollections", "listIndexes", "renameCollectionSameDB",
      ],
    },
    { resource: input, actions: ["find", "collStats", "listCollections", "listIndexes"] },
    // On a sharded cluster: where the chunks are, and were.
    { resource: { db: "config", collection: "" }, actions: ["find"] },
  ],
  roles: [],
});
