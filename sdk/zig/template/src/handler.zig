//! Greets visitors.
const wattle = @import("wattle");

/// The names of the ports, which the topology connects to topics.
pub const ports = [_][:0]const u8{"greeted"};

/// What the topology may tell this plugin, in `config:`. A mistyped name is refused before anything runs.
pub const Settings = struct {
    /// What a greeting begins with.
    word: []const u8 = "Hello",
};

const Visit = struct { name: []const u8 };

/// Called for each event. Outputs go to the topics that the topology connects to the ports; an error sends
/// the event to the dead letters.
pub fn handle(event: wattle.Event, out: *wattle.Out) !void {
    const settings = try out.config();
    const visit = try out.read(Visit, event);
    try out.json("greeted", .{ .text = try out.print("{s}, {s}!", .{ settings.word, visit.name }) }, .{});
}

test "a greeting names the visitor" {
    wattle.testing.begin();
    wattle.testing.setting("word", "Welcome");
    try wattle.testing.expectData(wattle.testing.json("{\"name\":\"Ada\"}"), "{\"text\":\"Welcome, Ada!\"}");
}

test "a visitor without a name is rejected" {
    wattle.testing.begin();
    const reason = "the data is not what this plugin reads: name is missing";
    try wattle.testing.expectRejected(wattle.testing.json("{}"), reason);
}
