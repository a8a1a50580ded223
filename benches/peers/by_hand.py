"""The three jobs as people write them by hand: pymongo in two processes, or polars with pymongoarrow.

    by_hand.py pymongo|polars URI DB JOB INPUT OUT
"""

import collections
import multiprocessing
import sys

import pymongo


def sum_by_customer(documents):
    sums = collections.defaultdict(float)
    for document in documents:
        sums[document["customer"]] += document["total"]
    return sums


def units_by_sku(documents):
    sums = collections.Counter()
    for document in documents:
        for item in document["items"]:
            sums[item["sku"]] += item["qty"]
    return sums


def word_count(documents):
    sums = collections.Counter()
    for document in documents:
        sums.update(document["text"].split(" "))
    return sums


JOBS = {
    "sum by customer": (sum_by_customer, ["customer", "total"]),
    "units by sku": (units_by_sku, ["items.sku", "items.qty"]),
    "word count": (word_count, ["text"]),
}


def part(work):
    uri, db, job, source, low, high = work
    count, fields = JOBS[job]
    documents = pymongo.MongoClient(uri)[db][source].find(
        {"_id": {"$gte": low, "$lt": high}}, {"_id": 0, **dict.fromkeys(fields, 1)}
    )
    return count(documents)


def by_pymongo(uri, db, job, source, out):
    collection = pymongo.MongoClient(uri)[db][source]
    last = collection.find_one(sort=[("_id", -1)])["_id"]
    middle = last // 2
    parts = [(uri, db, job, source, 0, middle), (uri, db, job, source, middle, last + 1)]
    sums = collections.Counter()
    with multiprocessing.Pool(2) as pool:
        for found in pool.imap_unordered(part, parts):
            sums.update(found)
    rows = [{"_id": key, "value": value} for key, value in sums.items()]
    pymongo.MongoClient(uri)[db][out].insert_many(rows, ordered=False)


def by_polars(uri, db, job, source, out):
    import polars
    import pymongoarrow.api as arrow

    schemas = {
        "sum by customer": {"customer": str, "total": float},
        "units by sku": {"items": [{"sku": str, "qty": int}]},
        "word count": {"text": str},
    }
    database = pymongo.MongoClient(uri)[db]
    schema = arrow.Schema(schemas[job])
    frame = arrow.find_polars_all(database[source], {}, schema=schema)
    if job == "units by sku":
        frame = frame.explode("items").unnest("items").rename({"sku": "_id", "qty": "value"})
    elif job == "word count":
        words = frame.select(polars.col("text").str.split(" ").alias("_id")).explode("_id")
        frame = words.with_columns(polars.lit(1, polars.Int64).alias("value"))
    else:
        frame = frame.rename({"customer": "_id", "total": "value"})
    sums = frame.group_by("_id").agg(polars.col("value").sum())
    arrow.write(database[out], sums)


if __name__ == "__main__":
    {"pymongo": by_pymongo, "polars": by_polars}[sys.argv[1]](*sys.argv[2:])
