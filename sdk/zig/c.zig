//! The part of the library for C (`wattle.h`) that `wattle.zig` uses. Written by hand: translating the header would
//! first compile the translator, which takes a minute and a half at the first build.

/// A text. It is not terminated.
pub const wattle_str = extern struct { data: [*]const u8, len: usize };
pub const wattle_event = extern struct {
    topic: wattle_str,
    partition: u32,
    content_type: wattle_str,
    key: wattle_str,
    type: wattle_str,
    time_ns: u64,
    attempt: u32,
    data: wattle_str,
};
/// A text whose pointer is null is left out.
pub const wattle_text = extern struct { data: ?[*]const u8 = null, len: usize = 0 };
pub const wattle_output = extern struct {
    port: [*:0]const u8,
    data: wattle_text = .{},
    type: wattle_text = .{},
    content_type: wattle_text = .{},
    key: wattle_text = .{},
};
pub const wattle_out = opaque {};
pub const wattle_value = opaque {};
pub const wattle_bucket = opaque {};
pub const wattle_keys = opaque {};
pub const wattle_level = c_uint;
pub const wattle_kind = c_uint;
pub const WATTLE_MISSING: wattle_kind = 0;
pub const WATTLE_NULL: wattle_kind = 1;

pub extern fn wattle_event_text(event: *const wattle_event, out: *wattle_out) wattle_str;
pub extern fn wattle_attribute(out: *wattle_out, name: [*:0]const u8, value: *wattle_str) bool;
pub extern fn wattle_send_at(file: [*:0]const u8, line: c_int, out: *wattle_out, output: wattle_output) void;
pub extern fn wattle_send_attribute(out: *wattle_out, name: [*:0]const u8, value: wattle_str) void;
pub extern fn wattle_reject(out: *wattle_out, format: [*:0]const u8, ...) void;
pub extern fn wattle_retry(out: *wattle_out, format: [*:0]const u8, ...) void;
pub extern fn wattle_retry_after(out: *wattle_out, delay_ms: u64, format: [*:0]const u8, ...) void;
pub extern fn wattle_failed(out: *const wattle_out) bool;
pub extern fn wattle_panic(file: [*:0]const u8, line: c_int, format: [*:0]const u8, ...) noreturn;
pub extern fn wattle_log(level: wattle_level, format: [*:0]const u8, ...) void;
pub extern fn wattle_event_json(event: *const wattle_event, out: *wattle_out) *const wattle_value;
pub extern fn wattle_kind_of(value: *const wattle_value) wattle_kind;
pub extern fn wattle_get(object: *const wattle_value, name: [*:0]const u8) *const wattle_value;
pub extern fn wattle_object(object: *const wattle_value, name: ?[*:0]const u8) *const wattle_value;
pub extern fn wattle_array(object: *const wattle_value, name: ?[*:0]const u8) *const wattle_value;
pub extern fn wattle_length(array: *const wattle_value) usize;
pub extern fn wattle_first(array: *const wattle_value) ?*const wattle_value;
pub extern fn wattle_next(item: *const wattle_value) ?*const wattle_value;
pub extern fn wattle_string(value: *const wattle_value, name: ?[*:0]const u8) wattle_str;
pub extern fn wattle_bool(value: *const wattle_value, name: ?[*:0]const u8) bool;
pub extern fn wattle_i64(value: *const wattle_value, name: ?[*:0]const u8) i64;
pub extern fn wattle_u64(value: *const wattle_value, name: ?[*:0]const u8) u64;
pub extern fn wattle_double(value: *const wattle_value, name: ?[*:0]const u8) f64;
pub extern fn wattle_unfit(value: *const wattle_value, format: [*:0]const u8, ...) void;
pub extern fn wattle_state(out: *wattle_out) *wattle_bucket;
pub extern fn wattle_bucket_open(out: *wattle_out, name: [*:0]const u8) *wattle_bucket;
pub extern fn wattle_state_get(bucket: *wattle_bucket, key: wattle_str, value: *wattle_str) bool;
pub extern fn wattle_state_json(bucket: *wattle_bucket, key: wattle_str) *const wattle_value;
pub extern fn wattle_state_exists(bucket: *wattle_bucket, key: wattle_str) bool;
pub extern fn wattle_state_set(bucket: *wattle_bucket, key: wattle_str, value: wattle_str) void;
pub extern fn wattle_state_delete(bucket: *wattle_bucket, key: wattle_str) void;
pub extern fn wattle_state_increment(bucket: *wattle_bucket, key: wattle_str, delta: i64) i64;
pub extern fn wattle_state_keys(bucket: *wattle_bucket) *wattle_keys;
pub extern fn wattle_keys_next(keys: *wattle_keys, key: *wattle_str) bool;
pub extern fn wattle_config(out: *wattle_out, name: [*:0]const u8, value: *wattle_str) bool;
