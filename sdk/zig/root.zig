//! The exports of a plugin: the library's C, and the handler through the module `wattle`.
pub const panic = @import("wattle").panic;
comptime {
    _ = @import("wattle");
}
