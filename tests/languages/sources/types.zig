//! Reads a value of each type and writes it again.
const std = @import("std");
const aviary = @import("aviary");

const Again = struct {
    value: aviary.Value,

    pub fn writeBson(self: Again, out: *aviary.Out) aviary.Type {
        const v = self.value;
        switch (v.type) {
            .double => return out.put(v.number()),
            .int32 => return out.put(@as(i32, @intCast(v.integer()))),
            .int64 => return out.put(v.integer()),
            .string => return out.put(v.text()),
            .document => {
                var fields = aviary.Document{};
                var each = v.doc().each();
                while (each.next()) |field| fields.set(field.name, Again{ .value = field });
                return out.put(fields);
            },
            .array => {
                var items: std.ArrayList(Again) = .empty;
                var each = v.array().each();
                while (each.next()) |item| items.append(aviary.allocator, .{ .value = item }) catch @panic("memory");
                return out.put(items.items);
            },
            .binary => return out.put(v.binary()),
            .object_id => return out.put(aviary.ObjectId{ .bytes = v.objectId() }),
            .bool => return out.put(v.boolean()),
            .date => return out.put(aviary.Date{ .ms = v.dateMs() }),
            .null => return out.put(null),
            .regex => return out.put(v.regex()),
            .code => return out.put(aviary.Code{ .source = v.code() }),
            .symbol => return out.put(aviary.Symbol{ .name = v.text() }),
            .code_with_scope => {
                if (!std.mem.eql(u8, v.code(), "f") or v.codeScope().get("n").integer() != 1) {
                    aviary.fail("code with a scope is read as something else", .{});
                }
                return out.put(v);
            },
            .timestamp => {
                const both = v.timestamp();
                return out.put(aviary.Timestamp{ .seconds = @truncate(both >> 32), .increment = @truncate(both) });
            },
            .decimal => return out.put(aviary.Decimal{ .bits = v.decimal() }),
            .min_key => return out.put(aviary.MinKey{}),
            .max_key => return out.put(aviary.MaxKey{}),
            else => return out.put(v),
        }
    }
};

pub fn map(doc: aviary.Doc) void {
    aviary.emit(doc.get("_id"), .{ .v = Again{ .value = doc.get("v") }, .none = doc.get("none") });
}
