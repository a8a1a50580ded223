"""Aviary from Python: MapReduce over a MongoDB database, asked for by inserting a document.

    from pymongo import MongoClient
    from aviary import Aviary

    aviary = Aviary(MongoClient(uri)["shop"])
    job = aviary.submit(input={"collection": "orders"}, map={"js": "function () { emit(this.sku, this.n); }"},
                        reduce="_sum", out={"replace": "units_by_sku"})
    print(aviary.wait(job)["result"]["counters"])

It needs pymongo 4 and nothing else. Everything here is plain documents: see docs/reference/requests.md.
"""

import time

from bson import ObjectId
from pymongo import ASCENDING, DESCENDING, ReadPreference
from pymongo.errors import DuplicateKeyError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

__all__ = ["Aviary", "Refused", "Failed"]

REQUESTS = "aviary-requests"
JOBS = {"cancel": {"$exists": False}, "resume": {"$exists": False}}
# Whatever the client's own settings are: what was answered is there to be read.
MAJORITY = {
    "read_preference": ReadPreference.PRIMARY,
    "read_concern": ReadConcern("majority"),
    "write_concern": WriteConcern("majority"),
}


class Refused(Exception):
    """The request cannot be done. `error` has `code`, `message`, and maybe `field` and `hint`."""

    def __init__(self, error):
        self.error = error
        field = f"{error['field']}: " if error.get("field") else ""
        hint = f"; {error['hint']}" if error.get("hint") else ""
        super().__init__(f"{field}{error.get('message')}{hint}")


class Failed(Exception):
    """The job has no result: it failed, was cancelled, or is stopped. `error` has `code` and `message`."""

    def __init__(self, job, error):
        self.job = job
        self.error = error
        super().__init__(f"job {job}: {error.get('message')}")


class Aviary:
    """The jobs of one database."""

    def __init__(self, db, tenant=None):
        """`db` is a pymongo database. `tenant` submits by that tenant's own collection of requests."""
        self.db = db.with_options(**MAJORITY)
        self.requests = self.db[f"{REQUESTS}-{tenant}" if tenant else REQUESTS]

    def submit(self, id=None, session=None, **job):
        """Asks for a job and returns the request's id. With an id of yours, asking again is asking once.

        In a transaction's `session` the job runs if, and only if, the transaction commits.
        """
        request = {"_id": id or str(ObjectId()), "v": 1, **job}
        try:
            self.requests.insert_one(request, session=session)
        except DuplicateKeyError:
            # In a transaction it has to be known, because it ends the transaction.
            if id is None or session is not None:
                raise
        return request["_id"]

    def status(self, id):
        """The request with what the coordinator has answered: `state`, `job`, `progress`, `result` or `error`."""
        found = self.requests.find_one({"$or": [{"_id": id}, {"job": id, **JOBS}]})
        if found is None:
            raise KeyError(f"no request {id}")
        return found

    def wait(self, id, timeout=None):
        """Waits for the end of a job, or for a stopped job to need a person, and returns the request.

        Raises `Refused`, `Failed`, or `TimeoutError` after so many seconds; the job goes on then.
        """
        began = time.monotonic()
        while True:
            request = self.status(id)
            if request.get("state") == "refused":
                raise Refused(request["error"])
            if "result" in request:
                return request
            if "error" in request:
                raise Failed(request.get("job"), request["error"])
            passed = time.monotonic() - began
            if timeout is not None and passed >= timeout:
                raise TimeoutError(f"job {id} goes on")
            time.sleep(min(max(passed / 32, 0.02), 0.5))

    def results(self, id):
        """A cursor over the results of a job that has succeeded, in the order of `_id`."""
        output = self.wait(id)["result"]["output"]
        database = self.db.client.get_database(output["db"], self.db.codec_options, **MAJORITY)
        return database[output["collection"]].find().sort("_id", ASCENDING)

    def cancel(self, id, timeout=30):
        """Ends a job; what is merged into its target already stays there. Returns when that is accepted."""
        return self._ask(timeout, cancel=id)

    def resume(self, id, timeout=30):
        """Has a job go on that stopped because its target refused a result."""
        return self._ask(timeout, resume=id)

    def jobs(self, limit=20):
        """Requests for jobs, the youngest answers first."""
        return list(self.requests.find(JOBS).sort("answered", DESCENDING).limit(limit))

    def _ask(self, timeout, **wish):
        return self.wait(self.submit(**wish), timeout)
