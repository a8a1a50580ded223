// Aviary from JavaScript: MapReduce over a MongoDB database, asked for by inserting a document.
//
// In mongosh:
//     load("aviary.js");
//     const job = aviary.submit({ input: { collection: "orders" },
//                                 map: function () { emit(this.sku, this.n); },
//                                 reduce: "_sum", out: { replace: "units_by_sku" } });
//     aviary.wait(job).result.counters
//
// With the driver:
//     const { Aviary } = require("./aviary.js");
//     const aviary = new Aviary(client.db("shop"));
//     const job = await aviary.submit({ … });
//     (await aviary.wait(job)).result.counters
//
// Everything here is plain documents: see docs/reference/requests.md.

const REQUESTS = "aviary-requests";

class Refused extends Error {
  constructor(error) {
    const field = error.field ? `${error.field}: ` : "";
    super(`${field}${error.message}${error.hint ? `; ${error.hint}` : ""}`);
    this.error = error;
  }
}

class Failed extends Error {
  constructor(job, error) {
    super(`job ${job}: ${error.message}`);
    this.job = job;
    this.error = error;
  }
}

// The request for a job: functions are sent as their text.
function written(job) {
  const request = { v: 1, ...job, _id: job._id ?? fresh() };
  for (const stage of ["map", "combine", "reduce", "finalize"]) {
    if (typeof request[stage] === "function") request[stage] = { js: source(request[stage], stage) };
  }
  return request;
}

// A method, `map() { … }`, is a function only with the word; mongosh forgets the text of methods.
function source(written, stage) {
  const text = written.toString();
  if (/\[(native|unknown) code\]\s*\}$/.test(text)) throw new TypeError(`${stage}: write it as function () { … }`);
  return /^(?!function\b)[\w$]+\s*\([^)]*\)\s*\{/.test(text) ? `function ${text}` : text;
}

function fresh() {
  let id = Math.floor(Date.now() / 1000).toString(16).padStart(8, "0");
  while (id.length < 24) id += Math.floor(Math.random() * 16).toString(16);
  return id;
}

// What a request has come to, or nothing as long as it goes on.
function ended(request, id) {
  if (!request) throw new Error(`no request ${id}`);
  if (request.state === "refused") throw new Refused(request.error);
  if (request.result) return request;
  if (request.error) throw new Failed(request.job, request.error);
  return undefined;
}

const pause = (began) => Math.min(Math.max((Date.now() - began) / 32, 20), 500);
const JOBS = { cancel: { $exists: false }, resume: { $exists: false } };
const by = (id) => ({ $or: [{ _id: id }, { job: id, ...JOBS }] });
// Whatever the client's own settings are: what was answered is there to be read.
const READ = { readConcern: { level: "majority" }, readPreference: "primary" };
const MAJORITY = { writeConcern: { w: "majority" } };
const ANSWER_MS = 30000;
const isTwice = (error, id) => id != null && error.code === 11000;

// For the driver: every method returns a promise.
class Aviary {
  constructor(db, tenant) {
    this.db = db;
    this.requests = db.collection(tenant ? `${REQUESTS}-${tenant}` : REQUESTS, READ);
  }

  // Asks for a job and returns the request's id. With an _id of yours, asking again is asking once.
  // In a transaction's session the job runs if, and only if, the transaction commits.
  async submit(job, session) {
    const request = written(job);
    try {
      await this.requests.insertOne(request, session ? { session } : MAJORITY);
    } catch (error) {
      if (session || !isTwice(error, job._id)) throw error;
    }
    return request._id;
  }

  async status(id) {
    return this.requests.findOne(by(id));
  }

  // Waits for the end of a job; after so many milliseconds it throws, and the job goes on.
  async wait(id, timeoutMs = Infinity) {
    const began = Date.now();
    for (;;) {
      const request = ended(await this.status(id), id);
      if (request) return request;
      if (Date.now() - began >= timeoutMs) throw new Error(`job ${id} goes on`);
      await new Promise((done) => setTimeout(done, pause(began)));
    }
  }

  async results(id) {
    const { db, collection } = (await this.wait(id)).result.output;
    const database = db === this.db.databaseName ? this.db : this.db.client.db(db);
    return database.collection(collection, READ).find().sort({ _id: 1 }).toArray();
  }

  // Ends a job; what is merged into its target already stays there. Returns when that is accepted.
  async cancel(id, timeoutMs = ANSWER_MS) {
    return this.wait(await this.submit({ cancel: id }), timeoutMs);
  }

  // Has a job go on that stopped because its target refused a result.
  async resume(id, timeoutMs = ANSWER_MS) {
    return this.wait(await this.submit({ resume: id }), timeoutMs);
  }

  async jobs(limit = 20) {
    return this.requests.find(JOBS).sort({ answered: -1 }).limit(limit).toArray();
  }
}

const read = (cursor) => cursor.readConcern("majority").readPref("primary");

// For mongosh, which waits by itself: methods return what the driver's promise would.
class Shell {
  constructor(tenant) {
    this.name = tenant ? `${REQUESTS}-${tenant}` : REQUESTS;
    Object.assign(this, { Refused, Failed });
  }

  get requests() {
    return db.getCollection(this.name);
  }

  as(tenant) {
    return new Shell(tenant);
  }

  submit(job) {
    const request = written(job);
    try {
      this.requests.insertOne(request, MAJORITY);
    } catch (error) {
      if (!isTwice(error, job._id)) throw error;
    }
    return request._id;
  }

  status(id) {
    return read(this.requests.find(by(id))).limit(1).toArray()[0];
  }

  wait(id, timeoutMs = Infinity) {
    const began = Date.now();
    for (;;) {
      const request = ended(this.status(id), id);
      if (request) return request;
      if (Date.now() - began >= timeoutMs) throw new Error(`job ${id} goes on`);
      sleep(pause(began));
    }
  }

  results(id) {
    const output = this.wait(id).result.output;
    return read(db.getSiblingDB(output.db).getCollection(output.collection).find()).sort({ _id: 1 });
  }

  cancel(id, timeoutMs = ANSWER_MS) {
    return this.wait(this.submit({ cancel: id }), timeoutMs);
  }

  resume(id, timeoutMs = ANSWER_MS) {
    return this.wait(this.submit({ resume: id }), timeoutMs);
  }

  jobs(limit = 20) {
    return read(this.requests.find(JOBS)).sort({ answered: -1 }).limit(limit).toArray();
  }
}

if (typeof module !== "undefined" && module.exports) {
  module.exports = { Aviary, Refused, Failed };
}
if (typeof db !== "undefined" && typeof db.getSiblingDB === "function") {
  globalThis.aviary = new Shell();
}
