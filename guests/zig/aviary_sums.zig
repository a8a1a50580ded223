//! Sums of what a map emits, made before the host gets them.
//!
//! A job whose values are only summed or counted does not care in how many emits its sums come. So while a map runs,
//! an emit of a short text, or of an ObjectId, with a number is an addition in a table of the keys that came lately,
//! and the host is given each key once: when the call ends, when a key makes room for another, and before more than
//! `bytes_max` are waiting, so that the limit on what a record may emit is kept.
//!
//! Only sums that are exact are made: of integers within their type, and of doubles that are multiples of 1/256 as
//! long as the sum is below 2^44. Any other value goes to the host as it is. Where keys rarely repeat, the table costs
//! more than it saves; it then rests for a while.

const std = @import("std");
const Type = @import("aviary.zig").Type;

const host = struct {
    extern "aviary" fn emit_total(key: [*]const u8, key_len: usize, value: [*]const u8, value_len: usize, emits: u32) void;
};

/// A text of up to 28 bytes, with its type, its length and its NUL.
const key_bytes_max = 34;
const sets_bits = 13;
const ways = 2;
const entries_len = ways << sets_bits;
const scale: f64 = 256;
const sum_max: f64 = 1 << 44;
const bytes_max = 1 << 20;
/// Of so many emits, at most half may have had keys that were not in the table, or it rests for so many more.
const judged = 8192;
const rest_emits = 1 << 17;

const Entry = struct {
    /// An integer, or the bits of a double.
    sum: i64 = 0,
    /// 0: free.
    emits: u32 = 0,
    kind: u8 = 0,
    key_len: u8 = 0,
    key: [key_bytes_max]u8 = @splat(0),

    fn is(self: *const Entry, key: []const u8) bool {
        return self.emits > 0 and self.key_len == key.len and same(&self.key, key);
    }

    /// The sum with a number of its type, if that stays exact.
    fn with(self: *const Entry, number: Number) ?i64 {
        if (self.kind != number.kind) return null;
        if (self.kind == double) {
            const sum = @as(f64, @bitCast(self.sum)) + @as(f64, @bitCast(number.bits));
            return if (@abs(sum) < sum_max) @bitCast(sum) else null;
        }
        const sum, const overflow = @addWithOverflow(self.sum, number.bits);
        if (overflow != 0) return null;
        if (self.kind == int32 and std.math.cast(i32, sum) == null) return null;
        return sum;
    }
};

const double = @intFromEnum(Type.double);
const int32 = @intFromEnum(Type.int32);
const int64 = @intFromEnum(Type.int64);

var wanted = false;
var open = false;
var entries: [entries_len]Entry = @splat(.{});
/// The entries that are not free, or were not.
var used: [entries_len]u16 = @splat(0);
var used_len: u32 = 0;
/// Bytes that the emits waiting here would have had.
var bytes: u32 = 0;
/// Emits taken since the last judgement, and those among them whose key was not in the table.
var taken: u32 = 0;
var missed: u32 = 0;
var rest: u32 = 0;

/// The host says whether sums are all that is wanted.
pub fn want(answer: i32) callconv(.c) void {
    wanted = answer == 1;
}

/// Sums from here on, where they are wanted.
pub fn begin() void {
    open = wanted;
}

/// Gives the host what is waiting.
pub fn end() void {
    if (open) flush();
    open = false;
}

/// Whether the pair, each with its type, was taken. Otherwise it goes to the host.
pub inline fn take(key: []const u8, value: []const u8) bool {
    return open and add(key, value);
}

fn add(key: []const u8, value: []const u8) bool {
    const kind = key[0];
    // Of equal keys, the first one stays: a symbol is equal to a text.
    if (kind == @intFromEnum(Type.symbol)) flush();
    if (kind != @intFromEnum(Type.string) and kind != @intFromEnum(Type.object_id)) return false;
    if (key.len > key_bytes_max) return false;
    switch (value[0]) {
        double, int32, int64 => {},
        else => return false,
    }
    if (rest > 0) {
        rest -= 1;
        return false;
    }
    const number = Number.of(value) orelse return false;
    const entry = entryOf(key);
    if (entry.emits > 0) {
        if (entry.with(number)) |sum| entry.sum = sum else give(entry);
    }
    if (entry.emits == 0) {
        entry.sum = number.bits;
        entry.kind = number.kind;
    }
    entry.emits += 1;
    bytes += @intCast(key.len + value.len);
    if (bytes > bytes_max) flush();
    taken += 1;
    if (taken == judged) {
        if (missed > judged / 2) rest = rest_emits;
        taken = 0;
        missed = 0;
    }
    return true;
}

/// A number that can be a part of an exact sum.
const Number = struct {
    kind: u8,
    /// As in an entry.
    bits: i64,

    fn of(value: []const u8) ?Number {
        const kind = value[0];
        if (kind == int32) return .{ .kind = kind, .bits = std.mem.readInt(i32, value[1..5], .little) };
        const number: Number = .{ .kind = kind, .bits = std.mem.readInt(i64, value[1..9], .little) };
        if (kind == double) {
            const real: f64 = @bitCast(number.bits);
            const scaled = real * scale;
            // A multiple of 1/256 that is not too large, and no negative zero.
            if (!(@abs(real) < sum_max) or @trunc(scaled) != scaled) return null;
            if (number.bits == std.math.minInt(i64)) return null;
        }
        return number;
    }
};

fn word(at: []const u8) u64 {
    return std.mem.readInt(u64, at[0..8], .little);
}

/// The last word of a key ends where the key ends, so it may share bytes with the one before.
fn hash(key: []const u8) usize {
    const factor = 0x9E3779B97F4A7C15;
    var mixed: u64 = key.len;
    var last: u64 = 0;
    if (key.len < 8) {
        for (key) |byte| last = last << 8 | byte;
    } else {
        var at: usize = 0;
        while (at < key.len - 8) : (at += 8) {
            mixed = (mixed ^ word(key[at..])) *% factor;
            mixed ^= mixed >> 32;
        }
        last = word(key[key.len - 8 ..]);
    }
    // The upper bits, to which every bit of the last word comes.
    return @intCast(((mixed ^ last) *% factor) >> (64 - sets_bits));
}

/// Whether a key is what an entry's begins with.
fn same(kept: *const [key_bytes_max]u8, key: []const u8) bool {
    if (key.len < 8) return std.mem.eql(u8, kept[0..key.len], key);
    const last = key.len - 8;
    var at: usize = 0;
    while (at < last) : (at += 8) {
        if (word(kept[at..]) != word(key[at..])) return false;
    }
    return word(kept[last..]) == word(key[last..]);
}

/// The entry of a key, or one that is free for it.
fn entryOf(key: []const u8) *Entry {
    const set = entries[hash(key) * ways ..][0..ways];
    for (set) |*entry| {
        if (entry.is(key)) return entry;
    }
    const entry = if (set[1].emits < set[0].emits) &set[1] else &set[0];
    if (entry.emits > 0) {
        give(entry);
    } else {
        if (used_len == entries_len) flush();
        used[used_len] = @intCast(entry - &entries[0]);
        used_len += 1;
    }
    @memcpy(entry.key[0..key.len], key);
    entry.key_len = @intCast(key.len);
    missed += 1;
    return entry;
}

noinline fn give(entry: *Entry) void {
    var value: [9]u8 = @splat(entry.kind);
    std.mem.writeInt(i64, value[1..9], entry.sum, .little);
    // The lower half of a small integer is that integer.
    const value_len: u32 = if (entry.kind == int32) 5 else 9;
    host.emit_total(&entry.key, entry.key_len, &value, value_len, entry.emits);
    bytes -= (entry.key_len + value_len) * entry.emits;
    entry.emits = 0;
}

noinline fn flush() void {
    for (used[0..used_len]) |at| {
        if (entries[at].emits > 0) give(&entries[at]);
    }
    used_len = 0;
}
