//! Components that no toolchain would build, from text.

use std::fmt::Write as _;

/// A plugin whose core module has these functions beside its memory: `describe` and `handle` have to be among them.
///
/// The memory is one page of zeros, so that what returns 0 describes no ports, and answers with no outputs.
pub fn plugin(functions: &str) -> Vec<u8> {
    let text = format!(
        r#"(component
            (import "wattle:plugin/types@0.1.0" (instance $types
                (type $b (record (field "topic" string) (field "partition" u32) (field "content-type" string)))
                (export "batch" (type $batch (eq $b)))
                (type $e (record (field "key" string) (field "type" string) (field "time" u64) (field "attempt" u32)
                    (field "data" (list u8))))
                (export "event" (type $event (eq $e)))
                (type $o (record (field "event" u32) (field "port" u32) (field "key" (option string))
                    (field "type" string) (field "content-type" string) (field "attributes" string)
                    (field "data" (list u8))))
                (export "output" (type $output (eq $o)))
                (type $a (variant (case "retry" (option u64)) (case "reject")))
                (export "action" (type $action (eq $a)))
                (type $f (record (field "event" u32) (field "action" $action) (field "reason" string)))
                (export "failure" (type $failure (eq $f)))
                (type $h (record (field "outputs" (list $output)) (field "failed" (option $failure))))
                (export "handled" (type $handled (eq $h)))))
            (alias export $types "batch" (type $batch))
            (alias export $types "event" (type $event))
            (alias export $types "handled" (type $handled))
            (core module $m
                (memory (export "memory") 1)
                (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 1024)
                {functions})
            (core instance $i (instantiate $m))
            (func $describe (result (list string))
                (canon lift (core func $i "describe") (memory $i "memory")))
            (func $handle (param "info" $batch) (param "events" (list $event)) (result $handled)
                (canon lift (core func $i "handle") (memory $i "memory") (realloc (core func $i "realloc"))))
            (instance $handler (export "describe" (func $describe)) (export "handle" (func $handle)))
            (export "wattle:plugin/handler@0.1.0" (instance $handler)))"#
    );
    wat::parse_str(text).expect("the component is one")
}

/// The parameters and the result of a `handle` in the core module.
pub const HANDLE: &str = "(param i32 i32 i32 i32 i32 i32 i32) (result i32)";

/// A `describe` that names no ports.
pub const DESCRIBE: &str = r#"(func (export "describe") (result i32) i32.const 0)"#;

/// A plugin that calls functions of these names, the last of which traps.
pub fn trapping(names: &[&str]) -> Vec<u8> {
    let mut functions = DESCRIBE.to_owned();
    for (place, name) in names.iter().enumerate() {
        let does = if place + 1 < names.len() { format!("call {}", place + 3) } else { "unreachable".to_owned() };
        let name = quoted(name);
        let _ = write!(functions, "(func (@name \"{name}\") {does})");
    }
    // Behind `realloc` and `describe`.
    let _ = write!(functions, r#"(func (export "handle") {HANDLE} call 2 unreachable)"#);
    plugin(&functions)
}

/// A component that declares this for its configuration: with another custom section at its end.
pub fn declaring(wasm: &[u8], schema: &str) -> Vec<u8> {
    let content = [sized(b"wattle:config-schema"), schema.as_bytes().to_vec()].concat();
    [wasm, &[0], &sized(&content)].concat()
}

/// Bytes behind their length in LEB128.
fn sized(bytes: &[u8]) -> Vec<u8> {
    let (mut sized, mut length) = (Vec::new(), bytes.len());
    while length >= 0x80 {
        sized.push(length as u8 | 0x80);
        length >>= 7;
    }
    sized.push(length as u8);
    [sized, bytes.to_vec()].concat()
}

/// A text as it is written between quotes.
pub fn quoted(text: &str) -> String {
    text.bytes().fold(String::new(), |mut quoted, byte| {
        let _ = write!(quoted, "\\{byte:02x}");
        quoted
    })
}

/// A plugin that fails at its start, in a function that may call the logging interface: `(call 0)`.
pub fn logging_at_start(function: &str) -> Vec<u8> {
    let text = format!(
        r#"(component
            (import "wasi:logging/logging@0.1.0-draft" (instance $logging
                (type $l (enum "trace" "debug" "info" "warn" "error" "critical"))
                (export "level" (type $level (eq $l)))
                (export "log" (func (param "level" $level) (param "context" string) (param "message" string)))))
            (core module $memory (memory (export "memory") 1))
            (core instance $memory (instantiate $memory))
            (core func $log (canon lower (func $logging "log") (memory $memory "memory")))
            (core module $m
                (import "host" "log" (func (param i32 i32 i32 i32 i32)))
                {function}
                (start 1)
                (func (export "f")))
            (core instance $i (instantiate $m (with "host" (instance (export "log" (func $log))))))
            (func $f (canon lift (core func $i "f")))
            (instance $handler (export "describe" (func $f)) (export "handle" (func $f)))
            (export "wattle:plugin/handler@0.1.0" (instance $handler)))"#
    );
    wat::parse_str(text).expect("the component is one")
}
