"""What the thin client of Python does. Each step that holds is printed."""

import sys
import time

from aviary import Aviary, Failed, Refused
from pymongo import MongoClient

uri, name = sys.argv[1:]
client = MongoClient(uri)
db = client["test"]
aviary = Aviary(db)
LONG = 600
SLOW = {"js": "function () { for (let n = 0; n < 1e12; n++); emit(1, 1); }"}


def sums(step, **more):
    return {
        "id": f"{name}-{step}",
        "input": {"collection": "orders"},
        "map": {"js": "function () { emit(this.k, this.v); }"},
        "reduce": "_sum",
        "out": {"replace": f"{name}-{step}"},
        **more,
    }


def fails(kind, action):
    try:
        action()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def rows(cursor):
    return [(row["_id"], row["value"]) for row in cursor]


EXPECTED = [(k, 950 + 20 * k) for k in range(5)]

units = aviary.submit(**sums("units"))
assert units == f"{name}-units"
told = aviary.wait(units, LONG)
assert told["result"]["counters"]["input"] == 100, told
nameless = {**sums("units"), "id": None, "out": {"inline": 1}}
other = aviary.submit(**nameless)
assert aviary.wait(other, LONG)["job"] == other and rows(aviary.results(other)) == EXPECTED
print("done: submit")

assert rows(aviary.results(units)) == EXPECTED
assert rows(aviary.results(told["job"])) == EXPECTED, "by the job's id"
print("done: results")

assert aviary.submit(**sums("units")) == units
assert aviary.status(units)["job"] == told["job"]
print("done: again")

ids = [request["_id"] for request in aviary.jobs()]
assert units in ids and other in ids, ids
assert len(aviary.jobs(1)) == 1
assert isinstance(fails(KeyError, lambda: aviary.status("nothing")), KeyError)
print("done: jobs")

elsewhere = aviary.submit(**sums("far", out={"replace": name, "db": "elsewhere"}))
assert rows(aviary.results(elsewhere)) == EXPECTED
assert rows(client["elsewhere"][name].find().sort("_id", 1)) == EXPECTED
print("done: elsewhere")

# Whatever the client's own preference is; here is no secondary.
far = Aviary(MongoClient(uri, readPreference="secondary", serverSelectionTimeoutMS=3000)["test"])
assert far.status(units)["_id"] == units and far.jobs(1)
assert rows(far.results(units)) == EXPECTED and rows(far.results(elsewhere)) == EXPECTED
print("done: primary")

nowhere = aviary.submit(**sums("nowhere", input={"collection": "nowhere"}))
refused = fails(Refused, lambda: aviary.wait(nowhere, LONG))
assert refused.error["field"] == "input" and "not found" in str(refused), refused
print("done: refused")

broken = aviary.submit(**sums("broken", map={"js": "function () { throw new Error('on purpose'); }"}))
failed = fails(Failed, lambda: aviary.wait(broken, LONG))
assert failed.job == aviary.status(broken)["job"] and "on purpose" in str(failed), failed
fails(Failed, lambda: aviary.results(broken))
print("done: failed")

slow = aviary.submit(**sums("slow", map=SLOW, limits={"recordTimeoutMs": 600_000}))
while aviary.status(slow).get("progress", {}).get("state") != "mapping":
    time.sleep(0.05)
assert slow in str(fails(TimeoutError, lambda: aviary.wait(slow, 0.1)))
ended = aviary.cancel(slow, LONG)
assert ended["state"] == "accepted", ended
failed = fails(Failed, lambda: aviary.wait(slow, LONG))
assert failed.error["code"] == "cancelled" and failed.job == ended["job"], failed
assert aviary.status(failed.job)["_id"] == slow, "the job's request, not that for its end"
assert ended["_id"] not in [request["_id"] for request in aviary.jobs()]
refused = fails(Refused, lambda: aviary.cancel(units, LONG))
assert "succeeded" in str(refused), refused
refused = fails(Refused, lambda: aviary.cancel("nobody", LONG))
assert (refused.error["code"], refused.error["field"]) == ("not_found", "cancel"), refused.error
print("done: cancel")

refused = fails(Refused, lambda: aviary.resume(units, LONG))
assert "only a stopped job can be resumed" in str(refused), refused
refused = fails(Refused, lambda: aviary.resume("nobody", LONG))
assert (refused.error["code"], refused.error["field"]) == ("not_found", "resume"), refused.error
print("done: resume_refused")

# A target that takes no two equal values.
db[f"{name}-stopped"].create_index("value", unique=True, name="strict")
stopped = {"map": {"js": "function () { emit(this.k, 1); }"}, "out": {"merge": f"{name}-stopped"}}
stopped = aviary.submit(**sums("stopped", **stopped))
failed = fails(Failed, lambda: aviary.wait(stopped, LONG))
assert failed.error["code"] == "stopped", failed.error
db[f"{name}-stopped"].drop_index("strict")
with db["aviary-requests"].watch() as changes:
    resumed = aviary.resume(stopped, LONG)
    assert resumed["job"] == failed.job
    # When it is accepted, the job's request has no error any more.
    told = []
    while not told or told[-1] != (resumed["_id"], "accepted"):
        change = changes.next()
        update = change.get("updateDescription", {"updatedFields": {}, "removedFields": []})
        state = update["updatedFields"].get("state", update["removedFields"])
        told.append((change["documentKey"]["_id"], state))
assert (stopped, ["error"]) in told, told
assert aviary.wait(stopped, LONG)["result"], "it goes on"
assert rows(aviary.results(stopped)) == [(k, 20) for k in range(5)]
print("done: resume")

with client.start_session() as session:
    session.start_transaction()
    aviary.submit(session=session, **sums("aborted"))
    session.abort_transaction()
    with session.start_transaction():
        kept = aviary.submit(session=session, **sums("kept"))
    assert aviary.wait(kept, LONG)["result"]
print("done: transaction")
