//! Aviary functions in Zig:
//!
//!     const aviary = @import("aviary");
//!
//!     pub fn map(doc: aviary.Doc) void {
//!         aviary.emit(doc.get("customer"), doc.get("total").number());
//!     }
//!
//!     pub fn reduce(key: aviary.Value, values: aviary.Values) f64 {
//!         _ = key;
//!         var sum: f64 = 0;
//!         var each = values.each();
//!         while (each.next()) |value| sum += value.number();
//!         return sum;
//!     }
//!
//! `combine` is like `reduce`; `finalize(key: Value, value: Value)` is a key's last step. A reduce that needs all
//! values
//! of a key together is `reduceBegin(key: Value) void`, `reduceNext(values: Values) void` and `reduceEnd() T`. Each may
//! return an error, which fails the record by its name.
//!
//! Where a job reduces by `_sum` or `_count`, a map's emits of one key are added up before the host gets them
//! (`aviary_sums.zig`); `Options` says how to do without.
//!
//! Documents and values are read where they lie in the input, and are good until the function returns; the key given to
//! `reduceBegin` until its key ends.

const std = @import("std");
const sums = @import("aviary_sums.zig");

const host = struct {
    extern "aviary" fn emit(key: [*]const u8, key_len: usize, value: [*]const u8, value_len: usize) void;
    extern "aviary" fn count(name: [*]const u8, len: usize, delta: i64) void;
    extern "aviary" fn log(level: i32, text: [*]const u8, len: usize) void;
    extern "aviary" fn fail(text: [*]const u8, len: usize) noreturn;
    extern "aviary" fn scope(buffer: ?[*]u8, cap: usize) usize;
};

/// The types of BSON; `none` is what a missing field has.
pub const Type = enum(u8) {
    none = 0,
    double = 0x01,
    string = 0x02,
    document = 0x03,
    array = 0x04,
    binary = 0x05,
    undefined = 0x06,
    object_id = 0x07,
    bool = 0x08,
    date = 0x09,
    null = 0x0a,
    regex = 0x0b,
    db_pointer = 0x0c,
    code = 0x0d,
    symbol = 0x0e,
    code_with_scope = 0x0f,
    int32 = 0x10,
    timestamp = 0x11,
    int64 = 0x12,
    decimal = 0x13,
    max_key = 0x7f,
    min_key = 0xff,
    _,

    /// For messages.
    pub fn name(self: Type) []const u8 {
        return switch (self) {
            .none => "missing",
            .double => "a double",
            .string => "a string",
            .document => "a document",
            .array => "an array",
            .binary => "binary data",
            .undefined => "undefined",
            .object_id => "an ObjectId",
            .bool => "a boolean",
            .date => "a date",
            .null => "null",
            .regex => "a regular expression",
            .db_pointer => "a DBPointer",
            .code => "code",
            .symbol => "a symbol",
            .code_with_scope => "code with a scope",
            .int32 => "an int32",
            .timestamp => "a timestamp",
            .int64 => "an int64",
            .decimal => "a decimal128",
            .max_key => "MaxKey",
            .min_key => "MinKey",
            _ => "of an unknown type",
        };
    }
};

/// The record is bad.
pub fn fail(comptime format: []const u8, args: anytype) noreturn {
    var buffer: [1024]u8 = undefined;
    var writer = std.Io.Writer.fixed(&buffer);
    // What does not fit is cut off.
    writer.print(format, args) catch {};
    const text = writer.buffered();
    host.fail(text.ptr, text.len);
}

/// Adds to a counter of the job.
pub fn count(name: []const u8, delta: i64) void {
    host.count(name.ptr, name.len, delta);
}

/// Writes a line into the worker's log. `std.log` does so too.
pub fn log(level: std.log.Level, comptime format: []const u8, args: anytype) void {
    var buffer: [4096]u8 = undefined;
    var writer = std.Io.Writer.fixed(&buffer);
    writer.print(format, args) catch {};
    const text = writer.buffered();
    host.log(switch (level) {
        .err => 0,
        .warn => 1,
        .info => 2,
        .debug => 3,
    }, text.ptr, text.len);
}

/// What the module's root gives as `std_options.logFn`.
pub fn logFn(
    comptime level: std.log.Level,
    comptime scope_name: @TypeOf(.enum_literal),
    comptime format: []const u8,
    args: anytype,
) void {
    const prefix = if (scope_name == .default) "" else "(" ++ @tagName(scope_name) ++ ") ";
    log(level, prefix ++ format, args);
}

/// What the module's root gives as `panic`: a failed check fails the record with its text.
pub const panic = std.debug.FullPanic(struct {
    fn stop(text: []const u8, _: ?usize) noreturn {
        fail("{s}", .{text});
    }
}.stop);

var record_arena = std.heap.ArenaAllocator.init(std.heap.wasm_allocator);

/// Memory for the time of one record or key, freed when the function returns. For what lasts longer take
/// `std.heap.wasm_allocator`.
pub const allocator = record_arena.allocator();

fn outOfMemory() noreturn {
    fail("out of memory: the function needs more than the memory limit of its task", .{});
}

fn malformed() noreturn {
    fail("malformed BSON in the input", .{});
}

/// One value, or none (`exists()` is false) where a field is missing.
///
/// A reader like `number()` fails the record if the value has another type; `numberOr(0)` does not.
pub const Value = struct {
    type: Type,
    /// The value's bytes in BSON.
    bytes: []const u8,
    /// Its name in the document; the index as text in an array.
    name: []const u8,

    pub fn exists(self: Value) bool {
        return self.type != .none;
    }

    pub fn isInteger(self: Value) bool {
        return self.type == .int32 or self.type == .int64;
    }

    pub fn isNumber(self: Value) bool {
        return self.type == .double or self.isInteger();
    }

    /// A double, int32 or int64.
    pub fn number(self: Value) f64 {
        if (self.type == .double) return @bitCast(self.fixed(u64));
        if (!self.isInteger()) self.mismatch("a number");
        return @floatFromInt(self.integer());
    }

    /// An int32 or int64.
    pub fn integer(self: Value) i64 {
        return switch (self.type) {
            .int32 => self.fixed(i32),
            .int64 => self.fixed(i64),
            else => self.mismatch("an integer"),
        };
    }

    pub fn boolean(self: Value) bool {
        self.want(.bool);
        return self.bytes[0] != 0;
    }

    /// A string, or a symbol's name, or code without a scope.
    pub fn text(self: Value) []const u8 {
        if (self.type != .symbol and self.type != .code) self.want(.string);
        return self.bytes[4 .. self.bytes.len - 1];
    }

    /// Milliseconds since 1970.
    pub fn dateMs(self: Value) i64 {
        self.want(.date);
        return self.fixed(i64);
    }

    /// Seconds in the upper half, the increment in the lower one.
    pub fn timestamp(self: Value) u64 {
        self.want(.timestamp);
        return self.fixed(u64);
    }

    pub fn objectId(self: Value) [12]u8 {
        self.want(.object_id);
        return self.bytes[0..12].*;
    }

    /// A decimal128 as IEEE 754 packs it.
    pub fn decimal(self: Value) u128 {
        self.want(.decimal);
        return self.fixed(u128);
    }

    pub fn binary(self: Value) Binary {
        self.want(.binary);
        return .{ .bytes = self.bytes[5..], .subtype = self.bytes[4] };
    }

    pub fn regex(self: Value) Regex {
        self.want(.regex);
        const pattern = self.bytes[0 .. nameSize(self.bytes) - 1];
        return .{ .pattern = pattern, .options = self.bytes[pattern.len + 1 .. self.bytes.len - 1] };
    }

    /// The source of code, with a scope or without.
    pub fn code(self: Value) []const u8 {
        if (self.type != .code_with_scope) {
            self.want(.code);
            return self.text();
        }
        const source = self.bytes[4..];
        return source[4 .. textSize(source) - 1];
    }

    /// The scope of code with a scope.
    pub fn codeScope(self: Value) Doc {
        self.want(.code_with_scope);
        return .{ .bytes = self.bytes[4 + textSize(self.bytes[4..]) ..] };
    }

    pub fn doc(self: Value) Doc {
        self.want(.document);
        return .{ .bytes = self.bytes };
    }

    pub fn array(self: Value) Values {
        self.want(.array);
        return .{ .bytes = self.bytes };
    }

    pub fn numberOr(self: Value, fallback: f64) f64 {
        return if (self.isNumber()) self.number() else fallback;
    }

    pub fn integerOr(self: Value, fallback: i64) i64 {
        return if (self.isInteger()) self.integer() else fallback;
    }

    pub fn booleanOr(self: Value, fallback: bool) bool {
        return if (self.type == .bool) self.boolean() else fallback;
    }

    pub fn textOr(self: Value, fallback: []const u8) []const u8 {
        return if (self.type == .string) self.text() else fallback;
    }

    pub fn writeBson(self: Value, out: *Out) Type {
        if (!self.exists()) return .null;
        out.append(self.bytes);
        return self.type;
    }

    fn fixed(self: Value, comptime T: type) T {
        return std.mem.readInt(T, self.bytes[0..@sizeOf(T)], .little);
    }

    fn want(self: Value, wanted: Type) void {
        if (self.type != wanted) self.mismatch(wanted.name());
    }

    fn mismatch(self: Value, wanted: []const u8) noreturn {
        if (!self.exists()) fail("the field '{s}' is missing; the function needs {s}", .{ self.name, wanted });
        fail("the field '{s}' is {s}, not {s}", .{ self.name, self.type.name(), wanted });
    }
};

/// The fields of a document, or the values of an array or a key, one after the other.
pub const Each = struct {
    rest: []const u8,

    pub fn next(self: *Each) ?Value {
        // The last byte is the document's NUL.
        if (self.rest.len <= 1) return null;
        const kind: Type = @enumFromInt(self.rest[0]);
        const named = self.rest[1 .. self.rest.len - 1];
        const name_size = nameSize(named);
        const at = named[name_size..];
        const size = valueSize(kind, at);
        self.rest = self.rest[1 + name_size + size ..];
        return .{ .type = kind, .bytes = at[0..size], .name = named[0 .. name_size - 1] };
    }
};

/// The values of an array or of a key.
pub const Values = struct {
    bytes: []const u8,

    pub fn each(self: Values) Each {
        return .{ .rest = self.bytes[4..] };
    }

    pub fn writeBson(self: Values, out: *Out) Type {
        out.append(self.bytes);
        return .array;
    }
};

/// A document.
pub const Doc = struct {
    bytes: []const u8,

    /// The field of that name, or none.
    pub fn get(self: Doc, name: []const u8) Value {
        var fields = self.each();
        while (fields.next()) |field| {
            if (std.mem.eql(u8, field.name, name)) return field;
        }
        return .{ .type = .none, .bytes = "", .name = name };
    }

    /// The fields, in their order.
    pub fn each(self: Doc) Each {
        return .{ .rest = self.bytes[4..] };
    }

    pub fn writeBson(self: Doc, out: *Out) Type {
        out.append(self.bytes);
        return .document;
    }
};

fn documentSize(at: []const u8) usize {
    if (at.len < 5) malformed();
    const len = std.mem.readInt(u32, at[0..4], .little);
    if (len < 5 or len > at.len or at[len - 1] != 0) malformed();
    return len;
}

fn textSize(at: []const u8) usize {
    if (at.len < 5) malformed();
    const len = std.mem.readInt(u32, at[0..4], .little);
    if (len < 1 or len > at.len - 4 or at[len + 3] != 0) malformed();
    return len + 4;
}

fn nameSize(at: []const u8) usize {
    return 1 + (std.mem.indexOfScalar(u8, at, 0) orelse malformed());
}

fn valueSize(kind: Type, at: []const u8) usize {
    const size: usize = switch (kind) {
        .double, .date, .timestamp, .int64 => 8,
        .int32 => 4,
        .bool => 1,
        .object_id => 12,
        .decimal => 16,
        .undefined, .null, .min_key, .max_key => 0,
        .string, .code, .symbol => textSize(at),
        .document, .array => documentSize(at),
        .db_pointer => textSize(at) + 12,
        .binary => blk: {
            if (at.len < 5) malformed();
            const len = std.mem.readInt(u32, at[0..4], .little);
            if (len > at.len - 5) malformed();
            break :blk len + 5;
        },
        .regex => blk: {
            const pattern = nameSize(at);
            break :blk pattern + nameSize(at[pattern..]);
        },
        .code_with_scope => blk: {
            if (at.len < 14) malformed();
            const len = std.mem.readInt(u32, at[0..4], .little);
            if (len < 14 or len > at.len) malformed();
            const code = 4 + textSize(at[4..len]);
            if (code + documentSize(at[code..len]) != len) malformed();
            break :blk len;
        },
        .none, _ => malformed(),
    };
    if (size > at.len) malformed();
    return size;
}

/// Where BSON is written.
pub const Out = struct {
    list: std.ArrayList(u8) = .empty,
    memory: std.mem.Allocator = std.heap.wasm_allocator,

    pub fn append(self: *Out, bytes: []const u8) void {
        self.list.appendSlice(self.memory, bytes) catch outOfMemory();
    }

    fn number(self: *Out, comptime T: type, value: T) void {
        var bytes: [@sizeOf(T)]u8 = undefined;
        std.mem.writeInt(T, &bytes, value, .little);
        self.append(&bytes);
    }

    fn string(self: *Out, text: []const u8) Type {
        self.number(u32, @intCast(text.len + 1));
        self.append(text);
        self.append(&.{0});
        return .string;
    }

    fn cstring(self: *Out, text: []const u8) void {
        if (std.mem.indexOfScalar(u8, text, 0) != null) {
            fail("a field's name, or a regular expression, holds a NUL", .{});
        }
        self.append(text);
        self.append(&.{0});
    }

    fn field(self: *Out, name: []const u8, value: anytype) void {
        const start = self.list.items.len;
        self.append(&.{0});
        self.cstring(name);
        const kind = self.put(value);
        self.list.items[start] = @intFromEnum(kind);
    }

    fn open(self: *Out) usize {
        const start = self.list.items.len;
        self.append(&.{ 0, 0, 0, 0 });
        return start;
    }

    fn close(self: *Out, start: usize) void {
        self.append(&.{0});
        const len: u32 = @intCast(self.list.items.len - start);
        std.mem.writeInt(u32, self.list.items[start..][0..4], len, .little);
    }

    /// Appends a value's bytes and returns its type. Signed integers of up to 32 bits, and smaller unsigned ones,
    /// become an
    /// int32, others an int64; slices of bytes a string; other slices, arrays and tuples an array; structs a
    /// document, unless they have `writeBson`.
    pub fn put(self: *Out, value: anytype) Type {
        const T = @TypeOf(value);
        switch (@typeInfo(T)) {
            .bool => {
                self.append(&.{@intFromBool(value)});
                return .bool;
            },
            .comptime_int => {
                const small = value >= std.math.minInt(i32) and value <= std.math.maxInt(i32);
                return self.put(@as(if (small) i32 else i64, value));
            },
            .int => |int| {
                if (int.bits < 32 or (int.bits == 32 and int.signedness == .signed)) {
                    self.number(i32, value);
                    return .int32;
                }
                self.number(i64, std.math.cast(i64, value) orelse
                    fail("an integer does not fit into BSON's 64 bits with sign", .{}));
                return .int64;
            },
            .float, .comptime_float => {
                self.number(u64, @bitCast(@as(f64, value)));
                return .double;
            },
            .null => return .null,
            .optional => return if (value) |some| self.put(some) else .null,
            .pointer => |pointer| switch (pointer.size) {
                .slice => return if (pointer.child == u8) self.string(value) else self.elements(value),
                .one => switch (@typeInfo(pointer.child)) {
                    .array => |array| return self.put(@as([]const array.child, value)),
                    else => return self.put(value.*),
                },
                else => @compileError("this cannot be written as BSON: " ++ @typeName(T)),
            },
            .array => return self.elements(&value),
            .@"struct" => |info| {
                if (@hasDecl(T, "writeBson")) return value.writeBson(self);
                const start = self.open();
                inline for (info.fields) |one| self.field(one.name, @field(value, one.name));
                self.close(start);
                return if (info.is_tuple) .array else .document;
            },
            else => @compileError("this cannot be written as BSON: " ++ @typeName(T)),
        }
    }

    fn elements(self: *Out, values: anytype) Type {
        const start = self.open();
        var digits: [20]u8 = undefined;
        for (values, 0..) |value, index| {
            self.field(std.fmt.bufPrint(&digits, "{d}", .{index}) catch unreachable, value);
        }
        self.close(start);
        return .array;
    }
};

/// A document whose fields are not known when compiling: `var doc = aviary.Document{}; doc.set("a", 1);`. Where
/// they are
/// known, a struct does: `.{ .a = 1 }`. It lasts as long as `allocator`.
pub const Document = struct {
    out: Out = .{ .memory = allocator },

    pub fn set(self: *Document, name: []const u8, value: anytype) void {
        self.out.field(name, value);
    }

    pub fn writeBson(self: Document, out: *Out) Type {
        const start = out.open();
        out.append(self.out.list.items);
        out.close(start);
        return .document;
    }
};

/// A date, in milliseconds since 1970.
pub const Date = struct {
    ms: i64,
    pub fn writeBson(self: Date, out: *Out) Type {
        out.number(i64, self.ms);
        return .date;
    }
};

pub const Timestamp = struct {
    seconds: u32,
    increment: u32,
    pub fn writeBson(self: Timestamp, out: *Out) Type {
        out.number(u32, self.increment);
        out.number(u32, self.seconds);
        return .timestamp;
    }
};

pub const ObjectId = struct {
    bytes: [12]u8,
    pub fn writeBson(self: ObjectId, out: *Out) Type {
        out.append(&self.bytes);
        return .object_id;
    }
};

/// A decimal128 as IEEE 754 packs it.
pub const Decimal = struct {
    bits: u128,
    pub fn writeBson(self: Decimal, out: *Out) Type {
        out.number(u128, self.bits);
        return .decimal;
    }
};

pub const Binary = struct {
    bytes: []const u8,
    subtype: u8 = 0,
    pub fn writeBson(self: Binary, out: *Out) Type {
        out.number(u32, @intCast(self.bytes.len));
        out.append(&.{self.subtype});
        out.append(self.bytes);
        return .binary;
    }
};

pub const Regex = struct {
    pattern: []const u8,
    options: []const u8 = "",
    pub fn writeBson(self: Regex, out: *Out) Type {
        out.cstring(self.pattern);
        out.cstring(self.options);
        return .regex;
    }
};

pub const Code = struct {
    source: []const u8,
    pub fn writeBson(self: Code, out: *Out) Type {
        _ = out.string(self.source);
        return .code;
    }
};

pub const Symbol = struct {
    name: []const u8,
    pub fn writeBson(self: Symbol, out: *Out) Type {
        _ = out.string(self.name);
        return .symbol;
    }
};

pub const MinKey = struct {
    pub fn writeBson(_: MinKey, _: *Out) Type {
        return .min_key;
    }
};

pub const MaxKey = struct {
    pub fn writeBson(_: MaxKey, _: *Out) Type {
        return .max_key;
    }
};

var key_out: Out = .{};
var value_out: Out = .{};

/// What the file that has the map may set: `pub const aviary_options: aviary.Options = .{ .sums = false };`.
pub const Options = struct {
    /// Whether a map's emits of one key are added up before the host gets them, where the job reduces by `_sum` or
    /// `_count`. It changes neither results nor counters.
    sums: bool = true,
};

const options: Options = if (@hasDecl(job, "aviary_options")) job.aviary_options else .{};
const may_sum = options.sums and @hasDecl(job, "map");

/// Emits a pair. A missing value is emitted as null.
pub fn emit(key: anytype, value: anytype) void {
    const pair = [2][]const u8{ tagged(&key_out, key), tagged(&value_out, value) };
    if (may_sum and sums.take(pair[0], pair[1])) return;
    host.emit(pair[0].ptr, pair[0].len, pair[1].ptr, pair[1].len);
}

fn tagged(out: *Out, value: anytype) []const u8 {
    out.list.clearRetainingCapacity();
    out.append(&.{0});
    const kind = out.put(value);
    out.list.items[0] = @intFromEnum(kind);
    return out.list.items;
}

var parameters: ?[]u8 = null;

/// The job's parameters.
pub fn scope() Doc {
    if (parameters == null) {
        const bytes = std.heap.wasm_allocator.alloc(u8, host.scope(null, 0)) catch outOfMemory();
        _ = host.scope(bytes.ptr, bytes.len);
        parameters = bytes;
    }
    return .{ .bytes = parameters.? };
}

// --- exports: one for each function that the module's root has ---

const job = @import("root");

var input: []u8 = &.{};
var kept_key: Out = .{};
var kept_type: Type = .null;

fn room(len: usize) callconv(.c) [*]u8 {
    if (len > input.len) {
        std.heap.wasm_allocator.free(input);
        input = &.{};
        input = std.heap.wasm_allocator.alloc(u8, @max(len, 4096)) catch outOfMemory();
    }
    return input.ptr;
}

fn version() callconv(.c) void {}

/// Calls the function once for each record, and emits what it returns, if it returns something.
fn Stage(comptime function: anytype, comptime call: anytype, comptime summing: bool) type {
    return struct {
        fn run(at: [*]const u8, len: usize) callconv(.c) void {
            if (summing) sums.begin();
            defer if (summing) sums.end();
            var rest = at[0..len];
            while (rest.len > 0) {
                const size = documentSize(rest);
                call(function, Doc{ .bytes = rest[0..size] });
                rest = rest[size..];
                _ = record_arena.reset(.{ .retain_with_limit = 1 << 20 });
            }
        }
    };
}

/// What the function returned, its error being a failed record.
fn checked(result: anytype) switch (@typeInfo(@TypeOf(result))) {
    .error_union => |info| info.payload,
    else => @TypeOf(result),
} {
    return switch (@typeInfo(@TypeOf(result))) {
        .error_union => result catch |err| fail("{s}", .{@errorName(err)}),
        else => result,
    };
}

fn answer(key: Value, result: anytype) void {
    const value = checked(result);
    if (@TypeOf(value) != void) emit(key, value);
}

fn keyOf(one: Doc) Value {
    return one.get("k");
}

fn valuesOf(one: Doc) Values {
    return one.get("v").array();
}

const calls = struct {
    fn map(comptime function: anytype, one: Doc) void {
        checked(function(one));
    }
    fn group(comptime function: anytype, one: Doc) void {
        answer(keyOf(one), function(keyOf(one), valuesOf(one)));
    }
    fn finalize(comptime function: anytype, one: Doc) void {
        answer(keyOf(one), function(keyOf(one), one.get("v")));
    }
    fn begin(comptime function: anytype, one: Doc) void {
        const key = keyOf(one);
        kept_key.list.clearRetainingCapacity();
        kept_key.append(key.bytes);
        kept_type = key.type;
        checked(function(keptKey()));
    }
    fn next(comptime function: anytype, one: Doc) void {
        checked(function(valuesOf(one)));
    }
};

fn keptKey() Value {
    return .{ .type = kept_type, .bytes = kept_key.list.items, .name = "k" };
}

fn reduceEnd() callconv(.c) void {
    answer(keptKey(), job.reduceEnd());
    _ = record_arena.reset(.{ .retain_with_limit = 1 << 20 });
}

fn stage(comptime name: []const u8, comptime declared: []const u8, comptime call: anytype) void {
    const summing = may_sum and std.mem.eql(u8, name, "map");
    if (@hasDecl(job, declared)) @export(&Stage(@field(job, declared), call, summing).run, .{ .name = name });
}

comptime {
    @export(&version, .{ .name = "aviary_abi_v1" });
    @export(&room, .{ .name = "aviary_alloc" });
    if (may_sum) @export(&sums.want, .{ .name = "aviary_sums" });
    stage("map", "map", calls.map);
    stage("combine", "combine", calls.group);
    stage("reduce", "reduce", calls.group);
    stage("finalize", "finalize", calls.finalize);
    stage("reduce_begin", "reduceBegin", calls.begin);
    stage("reduce_next", "reduceNext", calls.next);
    if (@hasDecl(job, "reduceEnd")) @export(&reduceEnd, .{ .name = "reduce_end" });
}
