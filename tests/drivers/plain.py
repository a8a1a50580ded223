"""Jobs asked for with pymongo alone. Each step that holds is printed."""

import sys

from pymongo import MongoClient
from pymongo.errors import DuplicateKeyError, WriteError

uri, name = sys.argv[1:]
client = MongoClient(uri)
db = client["test"]
requests = db["aviary-requests"]


def sums(step):
    return {
        "_id": f"{name}-{step}",
        "v": 1,
        "input": {"collection": "orders"},
        "map": {"js": "function () { emit(this.k, this.v); }"},
        "reduce": "_sum",
        "out": {"replace": f"{name}-{step}"},
    }


def ended(id, changes):
    """Follows a change stream that was opened before the insert."""
    for change in changes:
        request = change.get("fullDocument") or {}
        if request.get("_id") == id and ("result" in request or "error" in request):
            return request
    raise AssertionError("the change stream ended")


def check(request):
    assert request["state"] == "accepted", request
    assert request["result"]["counters"]["input"] == 100, request
    target = db[request["result"]["output"]["collection"]]
    found = [(row["_id"], row["value"]) for row in target.find().sort("_id", 1)]
    assert found == [(k, 950 + 20 * k) for k in range(5)], found


def is_twice(step):
    try:
        requests.insert_one({**sums(step), "out": {"replace": f"{name}-typo"}})
    except DuplicateKeyError as error:
        return error.code == 11000
    return False


with requests.watch(full_document="updateLookup") as changes:
    requests.insert_one(sums("units"))
    assert is_twice("units"), "at once"
    check(ended(f"{name}-units", changes))
print("done: run")

assert is_twice("units"), "after its end"
print("done: twice")

for typo in [{"mapp": {"js": "x"}}, {"out": {"replce": "x"}}, {"reduce": "_summ"}]:
    try:
        requests.insert_one({**sums("typo"), **typo})
        raise AssertionError(typo)
    except WriteError as error:
        assert error.code == 121, error
print("done: typo")

with client.start_session() as session, requests.watch(full_document="updateLookup") as changes:
    session.start_transaction()
    requests.insert_one(sums("aborted"), session=session)
    session.abort_transaction()
    with session.start_transaction():
        requests.insert_one(sums("kept"), session=session)
    check(ended(f"{name}-kept", changes))
print("done: transaction")
