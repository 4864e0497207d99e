//! How much compiling a component may take.

use std::fmt::Write as _;
use std::sync::LazyLock;
use std::time::Instant;

use wattle::wasm::{Host, RegisterError};

use crate::common::components::{DESCRIBE, HANDLE, plugin};
use crate::common::plugin_calls::host;
use crate::components::names::spec;

static HOST: LazyLock<Host> = LazyLock::new(host);

/// A function whose body is a table of jumps to this many blocks, each of which does something.
fn jumps(blocks: usize) -> String {
    let mut function = format!("(func (export \"handle\") {HANDLE} (local i32) ");
    function += &"block ".repeat(blocks);
    let _ =
        write!(function, "local.get 0 br_table {} ", (0..blocks).map(|n| n.to_string()).collect::<Vec<_>>().join(" "));
    for n in 0..blocks {
        let _ = write!(function, "end local.get 7 i32.const {n} i32.mul local.get 1 i32.add local.set 7 ");
    }
    function + "local.get 7)"
}

#[test]
fn a_function_that_nobody_could_wait_for_is_refused_at_once() {
    let wasm = plugin(&format!("{DESCRIBE} {}", jumps(120_000)));
    let start = Instant::now();
    let error = HOST.register(spec(wasm)).unwrap_err();
    assert!(matches!(error, RegisterError::LargeFunction { .. }), "{error}");
    assert!(start.elapsed().as_secs() < 2, "{:?}", start.elapsed());
}

#[test]
fn many_large_functions_are_refused_at_once() {
    let one = jumps(30_000).replace(" (export \"handle\")", "");
    let wasm = plugin(&format!("{DESCRIBE} {} {}", one.repeat(9), jumps(10)));
    let start = Instant::now();
    let error = HOST.register(spec(wasm)).unwrap_err();
    assert!(matches!(error, RegisterError::LargeFunctions { bytes } if bytes > 4 << 20), "{error}");
    assert!(start.elapsed().as_secs() < 2, "{:?}", start.elapsed());
}

/// By hand: what the compiler takes for functions of several sizes, up to the largest that is accepted.
#[test]
#[ignore = "measures"]
fn functions_that_are_large_are_compiled_in_bounds() {
    for blocks in [1_000, 3_000, 10_000, 30_000, 60_000] {
        let wasm = plugin(&format!("{DESCRIBE} {}", jumps(blocks)));
        let (bytes, start) = (wasm.len(), Instant::now());
        let registered = HOST.register(spec(wasm)).map(drop);
        println!(
            "{blocks} blocks, {bytes} bytes: {:?} {:?}",
            start.elapsed(),
            registered.map_err(|error| error.to_string())
        );
    }
}
