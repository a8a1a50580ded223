//! Does all that a map may do besides emitting: parameters, counters, lines, a record that fails.
const std = @import("std");
const aviary = @import("aviary");

pub fn map(doc: aviary.Doc) void {
    const job = aviary.scope();
    const id = doc.get("_id").integer();
    const label = job.get("label").text();
    const worth = id * job.get("factor").integer();
    if (id == job.get("bad").integer()) aviary.fail("{s} {d} is bad", .{ label, id });
    aviary.count(label, worth);
    aviary.log(.info, "{s} {d}", .{ label, id });
    std.log.warn("100%", .{});
    aviary.emit(doc.get("_id"), worth);
}
