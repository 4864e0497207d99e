//! Greets whoever comes by.
const std = @import("std");
const wattle = @import("wattle");

/// The names of the ports, which the topology connects to topics.
pub const ports = [_][:0]const u8{"greeted"};

/// What the topology may tell this plugin, in `config:`. A mistyped name is refused before anything runs.
pub const Settings = struct {
    /// What a greeting begins with.
    word: []const u8 = "Hello",
};

const Visit = struct { name: []const u8 };

const Greeting = struct { text: []const u8 };

/// Called for each event. What it sends goes to the topics that the topology connects to the ports; an error sends the event
/// to the dead letters.
pub fn handle(event: wattle.Event, out: *wattle.Out) !void {
    const settings = try out.config();
    const visit = try out.read(Visit, event);
    try out.json("greeted", try greet(out.arena, visit, settings.word), .{});
}

fn greet(allocator: std.mem.Allocator, visit: Visit, word: []const u8) !Greeting {
    return .{ .text = try std.fmt.allocPrint(allocator, "{s}, {s}!", .{ word, visit.name }) };
}

test "a greeting names the visitor" {
    var arena = std.heap.ArenaAllocator.init(std.testing.allocator);
    defer arena.deinit();
    const greeting = try greet(arena.allocator(), .{ .name = "Ada" }, "Hello");
    try std.testing.expectEqualStrings("Hello, Ada!", greeting.text);
}
