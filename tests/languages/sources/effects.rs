//! Does all that a map may do besides emitting: parameters, counters, lines, a record that fails.

use aviary::*;

fn map(doc: Doc) {
    let (id, job) = (doc.get("_id").i64(), scope());
    let (label, worth) = (job.get("label").str(), id * job.get("factor").i64());
    if id == job.get("bad").i64() {
        fail!("{label} {id} is bad");
    }
    count(label, worth);
    log!("{label} {id}");
    log(Level::Warn, "100%");
    emit(doc.get("_id"), worth);
}
