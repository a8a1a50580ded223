//! Counts words: runs of ASCII letters and digits in `text`, in lower case.
const std = @import("std");
const aviary = @import("aviary");

pub fn map(doc: aviary.Doc) !void {
    const text = try std.ascii.allocLowerString(aviary.allocator, doc.get("text").text());
    var start: usize = 0;
    for (text, 0..) |c, i| {
        if (std.ascii.isAlphanumeric(c)) continue;
        if (i > start) aviary.emit(text[start..i], 1);
        start = i + 1;
    }
    if (text.len > start) aviary.emit(text[start..], 1);
}

pub fn reduce(key: aviary.Value, values: aviary.Values) i64 {
    _ = key;
    var sum: i64 = 0;
    var each = values.each();
    while (each.next()) |value| sum += value.integer();
    return sum;
}
