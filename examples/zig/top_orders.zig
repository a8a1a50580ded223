//! The three dearest orders of each customer, as {top: [{id, total}, …]}: by total, then by id.
const std = @import("std");
const aviary = @import("aviary");

const kept = 3;

const Order = struct {
    id: aviary.Value,
    total: f64,

    fn before(_: void, a: Order, b: Order) bool {
        return if (a.total != b.total) a.total > b.total else a.id.integer() < b.id.integer();
    }
};

const Top = struct { top: []const Order };

pub fn map(doc: aviary.Doc) void {
    const order: Order = .{ .id = doc.get("_id"), .total = doc.get("total").number() };
    aviary.emit(doc.get("customer").text(), Top{ .top = &.{order} });
}

pub fn reduce(key: aviary.Value, values: aviary.Values) !Top {
    _ = key;
    var orders: std.ArrayList(Order) = .empty;
    var each = values.each();
    while (each.next()) |value| {
        var top = value.doc().get("top").array().each();
        while (top.next()) |element| {
            const order = element.doc();
            try orders.append(aviary.allocator, .{ .id = order.get("id"), .total = order.get("total").number() });
        }
    }
    std.mem.sort(Order, orders.items, {}, Order.before);
    return .{ .top = orders.items[0..@min(orders.items.len, kept)] };
}
