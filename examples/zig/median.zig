//! The median of each customer's totals. It takes all values of a key together, so the reduce is a streaming one: it is
//! given them piece by piece, in three functions.
const std = @import("std");
const aviary = @import("aviary");

var totals: std.ArrayList(f64) = .empty;

pub fn map(doc: aviary.Doc) void {
    aviary.emit(doc.get("customer").text(), doc.get("total").number());
}

pub fn reduceBegin(key: aviary.Value) void {
    _ = key;
    totals.clearRetainingCapacity();
}

pub fn reduceNext(values: aviary.Values) !void {
    var each = values.each();
    while (each.next()) |value| try totals.append(std.heap.wasm_allocator, value.number());
}

pub fn reduceEnd() f64 {
    std.mem.sort(f64, totals.items, {}, std.sort.asc(f64));
    const n = totals.items.len;
    const half = n / 2;
    return if (n % 2 == 1) totals.items[half] else (totals.items[half - 1] + totals.items[half]) / 2;
}
