"""What an application does through a mongos, done with pymongo through the router under test.

Each part checks what came of it; sharded_pymongo.rs runs it and looks at the rest.
"""

import sys
import threading

from bson import MaxKey
from pymongo import ASCENDING, DeleteOne, InsertOne, MongoClient, ReturnDocument
from pymongo.errors import CursorNotFound, DuplicateKeyError, OperationFailure, WriteError

URI = sys.argv[1]
client = MongoClient(URI)
py = client.py
config = client.config


def same(found, expected):
    assert found == expected, f"{found!r} is not {expected!r}"


def refused(kind, text, action):
    try:
        action()
    except kind as error:
        assert text in str(error), f"{text!r} is not in {error}"
    else:
        raise AssertionError(f"nothing was refused, {text!r} was to be")


def admin(name, value, **fields):
    return client.admin.command(name, value, **fields)


def owners(namespace):
    entry = config.collections.find_one({"_id": namespace})
    return [chunk["shard"] for chunk in config.chunks.find({"uuid": entry["uuid"]}).sort("min")]


def held(shard, namespace):
    """What a shard's own server holds."""
    host = config.shards.find_one({"_id": shard})["host"].split("/")[1]
    db, name = namespace.split(".")
    with MongoClient(host, directConnection=True) as direct:
        return sorted(found["k"] for found in direct[db][name].find())


def crud():
    same(admin("hello", 1)["msg"], "isdbgrid")
    assert client.is_mongos
    things = py.crud
    same(len(things.insert_many({"_id": k, "k": k, "g": k % 3} for k in range(300)).inserted_ids), 300)
    same(things.count_documents({}), 300)
    same(things.estimated_document_count(), 300)
    same(things.find_one({"k": 7}), {"_id": 7, "k": 7, "g": 1})
    same(things.update_many({"g": 0}, {"$set": {"n": 1}}).modified_count, 100)
    same(things.update_one({"k": 1000}, {"$set": {"g": 9}}, upsert=True).matched_count, 0)
    same(things.replace_one({"k": 1000}, {"k": 1000, "g": 10}).modified_count, 1)
    after = ReturnDocument.AFTER
    same(things.find_one_and_update({"k": 5}, {"$inc": {"n": 4}}, return_document=after)["n"], 4)
    same(things.find_one_and_delete({"k": 1000})["g"], 10)
    same(things.delete_many({"k": {"$gte": 290}}).deleted_count, 10)
    same(sorted(things.distinct("g")), [0, 1, 2])
    same([found["k"] for found in things.find({"k": {"$lt": 5}}).sort("k", -1)], [4, 3, 2, 1, 0])
    refused(DuplicateKeyError, "E11000", lambda: things.insert_one({"_id": 1}))
    bulk = things.bulk_write([InsertOne({"_id": 500, "k": 500}), DeleteOne({"k": 500})])
    same((bulk.inserted_count, bulk.deleted_count), (1, 1))


def shard_collection():
    admin("enableSharding", "py2", primaryShard="s1")
    admin("shardCollection", "py.kept", key={"k": 1})
    py.kept.insert_many({"_id": k, "k": k, "n": 0} for k in range(300))
    admin("shardCollection", "py2.hashed", key={"k": "hashed"}, numInitialChunks=6)
    client.py2.hashed.insert_many({"k": k} for k in range(300))
    parts = [held(shard, "py2.hashed") for shard in ("s0", "s1", "s2")]
    assert all(parts), parts
    same(sorted(sum(parts, [])), list(range(300)))
    admin("shardCollection", "py2.compound", key={"g": 1, "k": 1})
    same(owners("py2.compound"), ["s1"])
    again = lambda: admin("shardCollection", "py.kept", key={"other": 1})
    refused(OperationFailure, "already enabled", again)


def split_and_move():
    for k in (100, 200):
        admin("split", "py.kept", middle={"k": k})
    first = owners("py.kept")[0]
    same(len(owners("py.kept")), 3)
    if first != "s0":
        low = config.chunks.find({"uuid": config.collections.find_one({"_id": "py.kept"})["uuid"]})
        admin("moveRange", "py.kept", min=low.sort("min")[0]["min"], toShard="s0", waitForDelete=True)
    for k, shard in ((100, "s1"), (200, "s2")):
        if owners("py.kept")[k // 100] != shard:
            admin("moveRange", "py.kept", min={"k": k}, toShard=shard, waitForDelete=True)
    same(owners("py.kept"), ["s0", "s1", "s2"])
    for n in range(3):
        same(held(f"s{n}", "py.kept"), list(range(100 * n, 100 * n + 100)))
    same(py.kept.count_documents({}), 300)
    same([found["k"] for found in py.kept.find().sort("k", ASCENDING)], list(range(300)))


def aggregate():
    group = {"$group": {"_id": {"$mod": ["$k", 3]}, "sum": {"$sum": "$k"}}}
    sums = [{"_id": g, "sum": sum(range(g, 300, 3))} for g in range(3)]
    same(list(py.kept.aggregate([group, {"$sort": {"_id": 1}}])), sums)
    py.kept.aggregate([group, {"$out": "groups"}])
    same(list(py.groups.find().sort("_id")), sums)
    py.kept.aggregate([{"$match": {"k": 299}}, {"$project": {"sum": "$k"}}, {"$merge": "groups"}])
    same(list(py.groups.find().sort("_id")), sums + [{"_id": 299, "sum": 299}])


def get_more():
    same(sorted(found["k"] for found in py.kept.find(batch_size=7)), list(range(300)))
    piped = py.kept.aggregate([{"$match": {"k": {"$gte": 20}}}], batchSize=9)
    same(sorted(found["k"] for found in piped), list(range(20, 300)))
    cursor = py.kept.find(batch_size=5)
    next(cursor)
    number = cursor.cursor_id
    cursor.close()
    more = lambda: py.command({"getMore": number, "collection": "kept"})
    refused(CursorNotFound, "not found", more)


def sessions():
    with client.start_session(causal_consistency=True) as session:
        for k in (50, 150, 250):
            py.kept.update_one({"k": k}, {"$inc": {"n": 5}}, session=session)
            same(py.kept.find_one({"k": k}, session=session)["n"], 5)
        assert session.operation_time is not None
        assert session.cluster_time["clusterTime"] >= session.operation_time
        with MongoClient(URI) as other, other.start_session(causal_consistency=True) as reader:
            reader.advance_cluster_time(session.cluster_time)
            reader.advance_operation_time(session.operation_time)
            same(other.py.kept.count_documents({"n": 5}, session=reader), 3)
    with client.start_session() as session:
        session.start_transaction()
        write = lambda: py.kept.insert_one({"_id": 900, "k": 900}, session=session)
        refused(OperationFailure, "the test router has no transactions", write)
    same(py.kept.count_documents({}), 300)


def indexes():
    same(py.kept.create_index([("n", ASCENDING)], name="by_n"), "by_n")
    same(sorted(py.kept.index_information()), ["_id_", "by_n", "k_1"])
    same(len(list(py.kept.find({"n": 5}).hint("by_n"))), 3)
    py.kept.drop_index("by_n")
    same(sorted(py.kept.index_information()), ["_id_", "k_1"])


def collections():
    py.create_collection("checked", validator={"a": 1})
    same(sorted(py.list_collection_names()), ["checked", "crud", "groups", "kept"])
    listed = list(py.list_collections(filter={"name": "checked"}))
    same(listed[0]["options"], {"validator": {"a": 1}})
    refused(WriteError, "validation", lambda: py.checked.insert_one({"a": 2}))
    assert {"py", "py2"} <= set(client.list_database_names())
    stats = py.command("collStats", "kept")
    same((stats["count"], stats["nchunks"], sorted(stats["shards"])), (300, 3, ["s0", "s1", "s2"]))


def zones():
    admin("addShardToZone", "s2", zone="high")
    bounds = {"min": {"k": 200}, "max": {"k": MaxKey()}}
    admin("updateZoneKeyRange", "py.kept", **bounds, zone="high")
    same([tag["tag"] for tag in config.tags.find({"ns": "py.kept"})], ["high"])
    same(config.shards.find_one({"_id": "s2"})["tags"], ["high"])
    admin("updateZoneKeyRange", "py.kept", **bounds, zone=None)
    admin("removeShardFromZone", "s2", zone="high")
    same(config.tags.count_documents({"ns": "py.kept"}), 0)


def stale_routing():
    """Reads and writes are exact while a chunk moves to and fro."""
    py.kept.update_many({}, {"$set": {"n": 0}})
    stop, done, failures = threading.Event(), [0], []

    def work():
        try:
            with MongoClient(URI) as other:
                kept = other.py.kept
                while not stop.is_set():
                    same(kept.update_one({"k": 150}, {"$inc": {"n": 1}}).modified_count, 1)
                    same(kept.find_one_and_update({"k": 150}, {"$inc": {"n": 1}})["k"], 150)
                    same(kept.count_documents({}), 300)
                    done[0] += 2
        except BaseException as error:
            failures.append(error)

    worker = threading.Thread(target=work)
    worker.start()
    for shard in ("s2", "s0", "s2", "s1"):
        admin("moveRange", "py.kept", min={"k": 100}, toShard=shard, waitForDelete=True)
    stop.set()
    worker.join()
    same(failures, [])
    assert done[0] > 0
    same(py.kept.find_one({"k": 150})["n"], done[0])


def change_stream():
    with py.kept.watch() as stream:
        for k in (5, 205, 105, 6):
            py.kept.update_one({"k": k}, {"$set": {"n": -k}})
        events = [next(stream) for _ in range(4)]
        same([event["documentKey"]["_id"] for event in events], [5, 205, 105, 6])
    with py.kept.watch(resume_after=events[1]["_id"]) as stream:
        same([next(stream)["documentKey"]["_id"] for _ in range(2)], [105, 6])


def rename():
    py.groups.rename("renamed")
    same(py.renamed.count_documents({}), 4)
    two = client.py2
    two.hashed.rename("spread")
    same((two.spread.count_documents({}), two.hashed.count_documents({})), (300, 0))
    two.crowd.insert_one({"_id": 1})
    refused(OperationFailure, "exists", lambda: two.spread.rename("crowd"))
    two.spread.rename("crowd", dropTarget=True)
    same(two.crowd.count_documents({}), 300)
    same(len(owners("py2.crowd")), 6)


def drop():
    for name in ("crud", "renamed", "checked"):
        py.drop_collection(name)
    same(py.list_collection_names(), ["kept"])
    client.drop_database("py2")
    assert "py2" not in client.list_database_names()
    same(config.collections.count_documents({"_id": {"$regex": "^py2"}}), 0)


for part in (
    crud,
    shard_collection,
    split_and_move,
    aggregate,
    get_more,
    sessions,
    indexes,
    collections,
    zones,
    stale_routing,
    change_stream,
    rename,
    drop,
):
    part()
    print(f"done: {part.__name__}", flush=True)
