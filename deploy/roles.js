// Makes Aviary's roles, each with the least privileges that are enough. For mongosh, as a user who may make roles:
//
//   DB=shop INPUT_DB=sales,stock OUTPUT_DB=reports mongosh "$ADMIN_URI" --file deploy/roles.js
//
// DB (test) holds Aviary's collections and inline results. INPUT_DB and OUTPUT_DB name the databases that jobs read
// and write, with commas between; without them that is DB too. Run it again after a change: it brings roles up to date.
//
//   role            in       for whom
//   aviary-submit   DB       clients: they insert requests and read the answers, and nothing else
//                            (aviary-submit-NAME for each NAME of TENANTS: on that tenant's requests)
//   aviary-author   DB       those who store functions in the catalogue
//   aviary-view     DB       those who look: jobs, tasks, logs, functions, requests
//   aviary-fleet    admin    coordinators, workers, `aviary init`, and operators who run every verb
//   aviary-shard    admin    on each shard of a cluster: the user of a worker's --shard-uri
//
// Users of a cluster are not users of its shards, so the last one is made on the shard itself:
//
//   SHARD=1 DB=shop INPUT_DB=sales,stock mongosh "$ADMIN_URI_OF_THE_SHARD" --file deploy/roles.js
//
// A fleet that serves every database of the deployment needs a role for all of them. With ALL=1 the script makes just
// that (with SHARD=1 too, the one for the shard); the clients' roles are made for each DB as above:
//
//   ALL=1 mongosh "$ADMIN_URI" --file deploy/roles.js
//
// FLEET (aviary-fleet, aviary-shard) is another name for the role in admin: each DB of a deployment needs its own.
// Then make users, each with one of the roles:
//
//   db.getSiblingDB("admin").createUser({ user: "fleet", pwd: passwordPrompt(), roles: ["aviary-fleet"] })
//   db.getSiblingDB("shop").createUser({ user: "till", pwd: passwordPrompt(), roles: ["aviary-submit"] })

const names = (list) => list.split(",").map((name) => name.trim()).filter((name) => name !== "");
const all = !!process.env.ALL;
// An empty name stands for all databases, in the privileges of a role.
const DB = all ? "" : process.env.DB || "test";
const inputs = all ? [DB] : names(process.env.INPUT_DB || DB);
const outputs = all ? [DB] : names(process.env.OUTPUT_DB || DB);
const shard = !!process.env.SHARD;
// Whether a router answers. CLUSTER=1 says so where a role is made for a cluster that is not there yet.
const cluster = !!process.env.CLUSTER || db.hello().msg === "isdbgrid";
const fleet = process.env.FLEET || (shard ? "aviary-shard" : "aviary-fleet");

for (const name of [DB, ...inputs, ...outputs]) {
  if (["admin", "config", "local"].includes(name)) throw new Error(`${name} belongs to the server; name another database`);
}

const JOBS = "aviary", FUNCTIONS = "aviary-funcs", BLOCKS = "aviary-intermediates", FAILED = "aviary-failed", REQUESTS = "aviary-requests";
const tenants = names(process.env.TENANTS || "").map((tenant) => `${REQUESTS}-${tenant}`);
const on = (db, collection, ...actions) => ({ resource: { db, collection }, actions });

// Makes the role, or brings it up to date.
function make(where, role, privileges, roles = []) {
  const home = db.getSiblingDB(where);
  const known = home.getRole(role, { showPrivileges: true });
  const jobs = (known ? known.privileges : []).filter(({ resource }) => resource.collection === JOBS);
  if (where === "admin" && jobs.some(({ resource }) => resource.db !== DB)) {
    throw new Error(`the role ${role} is for other databases: name this one with FLEET=${role}-${DB || "all"}`);
  }
  const described = { privileges, roles };
  if (known) home.updateRole(role, described);
  else home.createRole({ role, ...described });
  print(`${known ? "updated" : "created"} ${role} in ${where}`);
}

if (shard) {
  // From MongoDB 8.0 on a shard refuses clients that are not routers, but for those with this role.
  const direct = parseInt(db.version()) >= 8 ? ["directShardOperations"] : [];
  make("admin", fleet, [
    // Which shard of which cluster it is.
    on("admin", "system.version", "find"),
    on(DB, JOBS, "find", "update", "changeStream"),
    on(DB, BLOCKS, "find"),
    ...inputs.map((input) => on(input, "", "find")),
  ], direct);
} else {
  if (!all) {
    make(DB, "aviary-submit", [on(DB, REQUESTS, "insert", "find")]);
    for (const requests of tenants) {
      make(DB, requests.replace(REQUESTS, "aviary-submit"), [on(DB, requests, "insert", "find")]);
    }
    make(DB, "aviary-author", [on(DB, FUNCTIONS, "find", "insert", "update", "remove")]);
    make(DB, "aviary-view", [JOBS, FUNCTIONS, REQUESTS].map((collection) => on(DB, collection, "find")));
  }
  make("admin", fleet, [
    // A job's results are in a collection of its own before they are published, and inline ones until they are removed.
    // A role cannot say "all whose names begin with aviary-out-".
    // One stream of the database's changes costs less than one for each collection.
    on(DB, "", "find", "insert", "dropCollection", "listCollections", "changeStream"),
    on(DB, JOBS, "update", "remove", "createIndex", "collMod"),
    on(DB, FUNCTIONS, "update", "remove", "collMod"),
    on(DB, BLOCKS, "remove", "collMod"),
    // Copies of input: nobody else reads them.
    on(DB, FAILED, "remove", "collMod"),
    ...[REQUESTS, ...tenants].map((requests) => on(DB, requests, "update", "createIndex", "collMod")),
    ...inputs.map((input) => on(input, "", "find", "collStats", "listCollections", ...(cluster ? ["listIndexes"] : []))),
    // Who may insert, drop and build indexes may create and rename.
    ...outputs.map((output) => on(output, "", "find", "insert", "update", "dropCollection", "listCollections",
      "createIndex", "listIndexes", "collMod")),
    // Where chunks are, and were. Other collections of config hold what is not Aviary's to see: image_collection has
    // documents of every database.
    ...(cluster ? ["shards", "databases", "collections", "chunks", "tags", "version"] : [])
      .map((collection) => on("config", collection, "find")),
  ]);
}
