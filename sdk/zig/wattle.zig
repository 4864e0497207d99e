//! Write a handler for the Wattle event bus in Zig: a function from one event to the events that follow from it. This
//! is a layer over the library for C (`wattle.h`), whose words and rules hold here as well.
//!
//! ```
//! const wattle = @import("wattle");
//!
//! pub const ports = [_][:0]const u8{"greeted"};
//!
//! const Visit = struct { name: []const u8 };
//!
//! pub fn handle(event: wattle.Event, out: *wattle.Out) !void {
//!     const visit = try out.read(Visit, event); // what does not fit is rejected, with the path
//!     try out.json("greeted", .{ .text = try out.print("Hello, {s}!", .{visit.name}) }, .{});
//! }
//! ```
//!
//! A handler declares `ports`; and if it likes `Settings`, a struct that is its configuration, and `state_version`, a
//! number.
const std = @import("std");
/// The library for C.
pub const c = @import("c.zig");
const handler = @import("handler");

/// An error of a handler. `Failed`: the event failed, and `out` knows why. Any other error rejects the event by its
/// name.
pub const Error = error{Failed};

fn view(of: c.wattle_str) []const u8 {
    return if (of.len == 0) "" else of.data[0..of.len];
}

fn text(of: []const u8) c.wattle_str {
    return .{ .data = if (of.len == 0) "" else of.ptr, .len = of.len };
}

/// A text of an output, which is not left out.
fn present(of: []const u8) c.wattle_text {
    const same = text(of);
    return .{ .data = same.data, .len = same.len };
}

/// One event. Its texts live as long as it does.
pub const Event = struct {
    topic: []const u8,
    partition: u32,
    content_type: []const u8,
    key: []const u8,
    type: []const u8,
    /// When it was appended to its topic, in nanoseconds since 1970.
    time_ns: u64,
    /// Which attempt at it this is, from 1.
    attempt: u32,
    data: []const u8,
    raw: *const c.wattle_event,
};

/// What an output may have beyond its port and data; null is what wattle.h says for a field that is left out.
pub const Options = struct {
    type: []const u8 = "",
    content_type: []const u8 = "",
    key: ?[]const u8 = null,
};

/// How much a log line matters.
pub const Level = enum(c_uint) { trace, debug, info, warn, err };

/// What becomes of the current event: its outputs, or its failure.
pub const Out = struct {
    raw: *c.wattle_out,
    /// Memory until the event is over.
    arena: std.mem.Allocator,

    /// The data as JSON, in the shape of a type: structs, slices, `[]const u8` for texts, whole numbers, floats,
    /// booleans, enums by their names, and optionals for what may be missing or null. A field with a default may be
    /// missing.
    pub fn read(self: *Out, comptime T: type, event: Event) !T {
        return self.parsed(T, c.wattle_event_json(event.raw, self.raw));
    }

    fn parsed(self: *Out, comptime T: type, value: *const c.wattle_value) !T {
        const result = try self.convert(T, value);
        return if (c.wattle_failed(self.raw)) Error.Failed else result;
    }

    fn convert(self: *Out, comptime T: type, value: *const c.wattle_value) !T {
        switch (@typeInfo(T)) {
            .bool => return c.wattle_bool(value, null),
            .float => return @floatCast(c.wattle_double(value, null)),
            .int => |int| {
                const number = if (int.signedness == .signed) c.wattle_i64(value, null) else c.wattle_u64(value, null);
                if (std.math.cast(T, number)) |fits| return fits;
                c.wattle_unfit(value, std.fmt.comptimePrint("is not a whole number from {d} to {d}", .{
                    std.math.minInt(T), std.math.maxInt(T),
                }));
                return 0;
            },
            .@"enum" => {
                const name = view(c.wattle_string(value, null));
                if (std.meta.stringToEnum(T, name)) |known| return known;
                c.wattle_unfit(value, "is none of the texts that are known");
                return Error.Failed;
            },
            .optional => |optional| {
                if (c.wattle_kind_of(value) <= c.WATTLE_NULL) return null;
                return try self.convert(optional.child, value);
            },
            .pointer => |pointer| {
                if (pointer.size != .slice) @compileError("JSON is read into slices, not into " ++ @typeName(T));
                if (pointer.child == u8) return view(c.wattle_string(value, null));
                const array = c.wattle_array(value, null);
                const items = try self.arena.alloc(pointer.child, c.wattle_length(array));
                var next = c.wattle_first(array);
                for (items) |*item| {
                    item.* = try self.convert(pointer.child, next.?);
                    next = c.wattle_next(next.?);
                }
                return items;
            },
            .@"struct" => |of| {
                const object = c.wattle_object(value, null);
                if (c.wattle_failed(self.raw)) return Error.Failed;
                var result: T = undefined;
                inline for (of.field_names, of.field_types, of.field_attrs) |name, Field, attributes| {
                    const member = c.wattle_get(object, name.ptr);
                    const default = comptime attributes.defaultValue(Field);
                    const is_missing = c.wattle_kind_of(member) == c.WATTLE_MISSING;
                    @field(result, name) = if (is_missing and default != null)
                        default.?
                    else
                        try self.convert(Field, member);
                }
                return result;
            },
            else => @compileError("JSON cannot be read into " ++ @typeName(T)),
        }
    }

    /// The data of the event as a text.
    pub fn readText(self: *Out, event: Event) Error![]const u8 {
        const of = view(c.wattle_event_text(event.raw, self.raw));
        return if (c.wattle_failed(self.raw)) Error.Failed else of;
    }

    /// Sends an event to a port.
    pub fn send(self: *Out, comptime port: [:0]const u8, data: []const u8, options: Options) void {
        comptime if (!isPort(port)) @compileError("the plugin has no port `" ++ port ++ "`");
        var output = c.wattle_output{
            .port = port.ptr,
            .data = present(data),
            .type = present(options.type),
            .content_type = present(options.content_type),
        };
        if (options.key) |key| output.key = present(key);
        c.wattle_send_at("handler.zig", 0, self.raw, output);
    }

    /// Sends a value as JSON to a port.
    pub fn json(self: *Out, comptime port: [:0]const u8, value: anytype, options: Options) !void {
        var of = options;
        of.content_type = "application/json";
        self.send(port, try std.json.Stringify.valueAlloc(self.arena, value, .{}), of);
    }

    /// Adds a CloudEvents attribute to the last output.
    pub fn attach(self: *Out, name: [:0]const u8, value: []const u8) void {
        c.wattle_send_attribute(self.raw, name.ptr, text(value));
    }

    /// It will never work: `return out.reject("no order", .{})`.
    pub fn reject(self: *Out, comptime format: []const u8, args: anytype) !void {
        const reason = try self.print(format, args);
        c.wattle_reject(self.raw, "%.*s", @as(c_int, @intCast(reason.len)), reason.ptr);
        return Error.Failed;
    }

    /// It may work later: `return out.retry("not yet", .{})`.
    pub fn retry(self: *Out, comptime format: []const u8, args: anytype) !void {
        const reason = try self.print(format, args);
        c.wattle_retry(self.raw, "%.*s", @as(c_int, @intCast(reason.len)), reason.ptr);
        return Error.Failed;
    }

    /// It may work later, after a delay.
    pub fn retryAfter(self: *Out, delay_ms: u64, comptime format: []const u8, args: anytype) !void {
        const reason = try self.print(format, args);
        c.wattle_retry_after(self.raw, delay_ms, "%.*s", @as(c_int, @intCast(reason.len)), reason.ptr);
        return Error.Failed;
    }

    /// A text that lives until the event is over.
    pub fn print(self: *Out, comptime format: []const u8, args: anytype) ![]u8 {
        return std.fmt.allocPrint(self.arena, format, args);
    }

    /// One of the CloudEvents attributes of the current event.
    pub fn attribute(self: *Out, name: [:0]const u8) ?[]const u8 {
        var value: c.wattle_str = undefined;
        return if (c.wattle_attribute(self.raw, name.ptr, &value)) view(value) else null;
    }

    /// The configuration, as the handler's `Settings`.
    pub fn config(self: *Out) Error!handler.Settings {
        var settings: handler.Settings = undefined;
        const of = @typeInfo(handler.Settings).@"struct";
        inline for (of.field_names, of.field_types, of.field_attrs) |name, Field, attributes|
            @field(settings, name) = try self.setting(name, Field, comptime attributes.defaultValue(Field));
        return settings;
    }

    fn setting(self: *Out, comptime name: [:0]const u8, comptime Field: type, comptime default: ?Field) Error!Field {
        const T = switch (@typeInfo(Field)) {
            .optional => |optional| optional.child,
            else => Field,
        };
        var said: c.wattle_str = undefined;
        if (!c.wattle_config(self.raw, name.ptr, &said)) {
            if (default) |value| return value;
            if (T != Field) return null;
            c.wattle_retry(self.raw, "the setting `" ++ name ++ "` is missing: add it to this subscriber's `config:`");
            return Error.Failed;
        }
        const of = view(said);
        if (T == []const u8) return of;
        const value: ?T = switch (@typeInfo(T)) {
            .bool => if (std.mem.eql(u8, of, "true")) true else if (std.mem.eql(u8, of, "false")) false else null,
            .int => std.fmt.parseInt(T, of, 10) catch null,
            .float => std.fmt.parseFloat(T, of) catch null,
            else => @compileError("a setting is a text, a number or a boolean, not " ++ @typeName(T)),
        };
        if (value) |fits| return fits;
        // Without the value, which may be a secret.
        c.wattle_retry(self.raw, "the setting `" ++ name ++ "` does not fit: it should be a " ++ @typeName(T));
        return Error.Failed;
    }

    /// The bucket `default`.
    pub fn state(self: *Out) State {
        return .{ .out = self, .raw = c.wattle_state(self.raw) };
    }

    /// A bucket with a name of up to 64 bytes.
    pub fn bucket(self: *Out, name: [:0]const u8) State {
        return .{ .out = self, .raw = c.wattle_bucket_open(self.raw, name.ptr) };
    }

    /// Writes a log line.
    pub fn log(self: *Out, level: Level, comptime format: []const u8, args: anytype) !void {
        const line = try self.print(format, args);
        c.wattle_log(@backingInt(level), "%.*s", @as(c_int, @intCast(line.len)), line.ptr);
    }
};

/// What the plugin keeps from one event to the next. An error is `Failed`, which tries the event again.
pub const State = struct {
    out: *Out,
    raw: *c.wattle_bucket,

    fn checked(self: State) Error!void {
        if (c.wattle_failed(self.out.raw)) return Error.Failed;
    }

    pub fn get(self: State, key: []const u8) Error!?[]const u8 {
        var value: c.wattle_str = undefined;
        const is_there = c.wattle_state_get(self.raw, text(key), &value);
        try self.checked();
        return if (is_there) view(value) else null;
    }

    /// The value as JSON, in the shape of a type.
    pub fn read(self: State, comptime T: type, key: []const u8) !?T {
        const value = c.wattle_state_json(self.raw, text(key));
        try self.checked();
        if (c.wattle_kind_of(value) == c.WATTLE_MISSING) return null;
        return try self.out.parsed(T, value);
    }

    /// Puts a value under a key, as JSON.
    pub fn write(self: State, key: []const u8, value: anytype) !void {
        try self.set(key, try std.json.Stringify.valueAlloc(self.out.arena, value, .{}));
    }

    pub fn set(self: State, key: []const u8, value: []const u8) Error!void {
        c.wattle_state_set(self.raw, text(key), text(value));
        try self.checked();
    }

    pub fn delete(self: State, key: []const u8) Error!void {
        c.wattle_state_delete(self.raw, text(key));
        try self.checked();
    }

    pub fn exists(self: State, key: []const u8) Error!bool {
        const is_there = c.wattle_state_exists(self.raw, text(key));
        try self.checked();
        return is_there;
    }

    pub fn increment(self: State, key: []const u8, delta: i64) Error!i64 {
        const sum = c.wattle_state_increment(self.raw, text(key), delta);
        try self.checked();
        return sum;
    }

    /// All keys, in ascending order: `while (try keys.next()) |key|`.
    pub fn keys(self: State) Keys {
        return .{ .state = self, .raw = c.wattle_state_keys(self.raw) };
    }
};

/// The keys of a bucket.
pub const Keys = struct {
    state: State,
    raw: *c.wattle_keys,

    pub fn next(self: Keys) Error!?[]const u8 {
        var key: c.wattle_str = undefined;
        const is_there = c.wattle_keys_next(self.raw, &key);
        try self.state.checked();
        return if (is_there) view(key) else null;
    }
};

fn isPort(comptime name: []const u8) bool {
    for (handler.ports) |port| if (std.mem.eql(u8, port, name)) return true;
    return false;
}

const names = blk: {
    var all: [handler.ports.len + 1]?[*:0]const u8 = undefined;
    for (handler.ports, 0..) |port, at| all[at] = port.ptr;
    all[handler.ports.len] = null;
    break :blk all;
};

const Plugin = extern struct {
    handle: *const fn (*const c.wattle_event, *c.wattle_out) callconv(.c) void,
    handle_batch: ?*const anyopaque,
    ports: [*]const ?[*:0]const u8,
};

const plugin: Plugin = .{ .handle = &handleEvent, .handle_batch = null, .ports = &names };

comptime {
    @export(&plugin, .{ .name = "wattle_plugin" });
    if (@import("builtin").target.cpu.arch.isWasm()) {
        @setEvalBranchQuota(100_000);
        if (@hasDecl(handler, "state_version"))
            asm (section("wattle:state-version", std.fmt.comptimePrint("{d}", .{handler.state_version})));
        if (@hasDecl(handler, "Settings"))
            asm (section("wattle:config-schema", schema(handler.Settings)));
    }
}

/// A custom section, which only the assembler makes.
fn section(comptime name: []const u8, comptime content: []const u8) []const u8 {
    var quoted: []const u8 = "";
    for (content) |byte| quoted = quoted ++ switch (byte) {
        '"' => "\\\"",
        '\\' => "\\\\",
        else => &[_]u8{byte},
    };
    return ".section \".custom_section." ++ name ++ "\",\"\",@\n.ascii \"" ++ quoted ++ "\"\n.section .text,\"\",@\n";
}

fn schema(comptime T: type) []const u8 {
    const all = @typeInfo(T).@"struct";
    var properties: []const u8 = "";
    var required: []const u8 = "";
    for (all.field_names, all.field_types, all.field_attrs) |name, Field, attributes| {
        const Of = if (@typeInfo(Field) == .optional) @typeInfo(Field).optional.child else Field;
        var of: []const u8 = switch (@typeInfo(Of)) {
            .bool => "\"type\":\"boolean\"",
            .float => "\"type\":\"number\"",
            .int => std.fmt.comptimePrint("\"type\":\"integer\",\"minimum\":{d},\"maximum\":{d}", .{
                std.math.minInt(Of), std.math.maxInt(Of),
            }),
            else => "\"type\":\"string\"",
        };
        if (Of == Field) {
            if (attributes.defaultValue(Field)) |default| {
                of = of ++ ",\"default\":" ++ literal(Of, default);
            } else {
                required = required ++ (if (required.len > 0) "," else "") ++ "\"" ++ name ++ "\"";
            }
        }
        properties = properties ++ (if (properties.len > 0) "," else "") ++ "\"" ++ name ++ "\":{" ++ of ++ "}";
    }
    return "{\"$schema\":\"https://json-schema.org/draft/2020-12/schema\",\"type\":\"object\"," ++
        "\"additionalProperties\":false,\"properties\":{" ++ properties ++ "},\"required\":[" ++ required ++ "]}";
}

fn literal(comptime T: type, comptime value: T) []const u8 {
    if (T != []const u8) return std.fmt.comptimePrint("{any}", .{value});
    var quoted: []const u8 = "\"";
    for (value) |byte| quoted = quoted ++ switch (byte) {
        '"' => "\\\"",
        '\\' => "\\\\",
        0...0x1f => std.fmt.comptimePrint("\\u{x:0>4}", .{byte}),
        else => &[_]u8{byte},
    };
    return quoted ++ "\"";
}

fn handleEvent(raw: *const c.wattle_event, out: *c.wattle_out) callconv(.c) void {
    var arena = std.heap.ArenaAllocator.init(std.heap.c_allocator);
    defer arena.deinit();
    var into = Out{ .raw = out, .arena = arena.allocator() };
    const event = Event{
        .topic = view(raw.topic),
        .partition = raw.partition,
        .content_type = view(raw.content_type),
        .key = view(raw.key),
        .type = view(raw.type),
        .time_ns = raw.time_ns,
        .attempt = raw.attempt,
        .data = view(raw.data),
        .raw = raw,
    };
    handler.handle(event, &into) catch |err| {
        // Unless it failed before, with a reason of its own.
        const name: [:0]const u8 = @errorName(err);
        c.wattle_reject(out, "the handler failed: %s", name.ptr);
    };
}

/// Runs the handler in a test on the author's machine, with a bus in memory (`wattle/test/wattle_test.h`).
pub const testing = struct {
    pub const Output = extern struct {
        port: [*:0]const u8,
        key: c.wattle_str,
        type: c.wattle_str,
        content_type: c.wattle_str,
        data: c.wattle_str,
        attributes: c.wattle_str,
    };
    /// What became of an event. It lives until the next one.
    pub const Result = extern struct {
        outputs: [*]const Output,
        len: usize,
        rejected: bool,
        retried: bool,
        panicked: bool,
        delay_ms: u64,
        reason: c.wattle_str,
    };

    extern fn wattle_test(name: [*:0]const u8) void;
    extern fn wattle_test_config(name: [*:0]const u8, value: [*:0]const u8) void;
    extern fn wattle_test_json(data: [*:0]const u8) *const Result;

    /// Begins a case: without state and configuration.
    pub fn begin() void {
        wattle_test("a test of Zig");
    }

    /// Sets a setting of the configuration.
    pub fn setting(name: [:0]const u8, value: [:0]const u8) void {
        wattle_test_config(name.ptr, value.ptr);
    }

    /// Handles an event with this data. Its writes into the state stay, unless it fails.
    pub fn json(data: [:0]const u8) *const Result {
        return wattle_test_json(data.ptr);
    }

    /// Holds that there is one output, with this data.
    pub fn expectData(result: *const Result, expected: []const u8) !void {
        if (result.len != 1) {
            std.debug.print("there are {d} outputs; {s}\n", .{ result.len, view(result.reason) });
            return error.TestUnexpectedResult;
        }
        try std.testing.expectEqualStrings(expected, view(result.outputs[0].data));
    }

    /// Holds that the event was rejected with this reason.
    pub fn expectRejected(result: *const Result, reason: []const u8) !void {
        try std.testing.expect(result.rejected);
        try std.testing.expectEqualStrings(reason, view(result.reason));
    }
};

/// The message of a panic becomes the reason of the failure.
pub const panic = std.debug.FullPanic(struct {
    fn call(message: []const u8, _: ?usize) noreturn {
        @branchHint(.cold);
        c.wattle_panic("handler.zig", 0, "%.*s", @as(c_int, @intCast(message.len)), message.ptr);
        unreachable;
    }
}.call);
