//! What each customer spent: the sum of `total`.
const aviary = @import("aviary");

pub fn map(doc: aviary.Doc) void {
    aviary.emit(doc.get("customer").text(), doc.get("total").number());
}

pub fn reduce(key: aviary.Value, values: aviary.Values) f64 {
    _ = key;
    var sum: f64 = 0;
    var each = values.each();
    while (each.next()) |value| sum += value.number();
    return sum;
}
