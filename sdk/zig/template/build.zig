//! The unit tests, on this machine: `zig build test`. `wattle build` makes the component.
const std = @import("std");

const library = [_][]const u8{
    "call.c", "json.c", "memory.c", "settings.c", "state.c", "utf8.c", "writer.c", "test/wattle_test.c",
};

pub fn build(b: *std.Build) void {
    const target = b.standardTargetOptions(.{});
    const options: std.Build.Module.CreateOptions = .{
        .root_source_file = b.path("src/handler.zig"),
        .target = target,
        .optimize = .Debug,
        .link_libc = true,
    };
    const handler = b.createModule(options);
    const wattle = b.createModule(.{
        .root_source_file = b.path("wattle/wattle.zig"),
        .target = target,
        .optimize = .Debug,
    });
    handler.addImport("wattle", wattle);
    wattle.addImport("handler", handler);
    handler.addCSourceFiles(.{ .root = b.path("wattle"), .files = &library });
    const tests = b.addTest(.{ .root_module = handler });
    b.step("test", "Run the unit tests").dependOn(&b.addRunArtifact(tests).step);
}
