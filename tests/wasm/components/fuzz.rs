//! Components that nobody would write, by the thousand: what is asked for is an answer in bounds.
//!
//! A few here each time; `PROPTEST_CASES=100000 cargo test --release --test wasm fuzz` looks for longer.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::sample::{Index, select};
use tokio::runtime::Runtime;
use wattle::model::call::Limits;
use wattle::wasm::{Host, HostOptions, PluginSpec};

use crate::common::components::{DESCRIBE, HANDLE, logging_at_start, plugin, trapping};
use crate::common::plugin_calls::{call, sent};

/// Of these bytes, whatever is said of a component.
const SAID_BYTES_MAX: usize = 16 << 10;
/// Longer than any of it takes, on a machine that does other things as well.
const PATIENCE: Duration = Duration::from_secs(20);

static HOST: LazyLock<Host> = LazyLock::new(|| Host::new(HostOptions::default()).unwrap());
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

fn config(cases: u32) -> ProptestConfig {
    let default = ProptestConfig::default();
    let asked_for = std::env::var_os("PROPTEST_CASES").is_some();
    ProptestConfig { cases: if asked_for { default.cases } else { cases }, failure_persistence: None, ..default }
}

/// Registers a component, and calls it where it is one. Gives all that was said of it.
fn said_of(wasm: Vec<u8>) -> Vec<String> {
    let limits = Limits { time: Duration::from_millis(50), memory_bytes: 4 << 20, ..Limits::default() };
    let (subscriber, ports) = ("odd".into(), vec!["out".into()]);
    match HOST.register(PluginSpec {
        subscriber,
        wasm,
        config: BTreeMap::new(),
        hidden: BTreeMap::new(),
        ports,
        limits,
    }) {
        Err(error) => vec![error.to_string()],
        Ok(plugin) => match RUNTIME.block_on(call(&plugin, &[sent("a", "x"), sent("b", "y")])).0 {
            Ok(handled) => handled.failure().map(|failed| failed.reason).into_iter().collect(),
            Err(error) => [Some(error.message), error.backtrace].into_iter().flatten().collect(),
        },
    }
}

fn in_bounds(wasm: Vec<u8>) -> Result<Vec<String>, TestCaseError> {
    let start = Instant::now();
    let said = said_of(wasm);
    prop_assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
    for text in &said {
        prop_assert!(text.len() <= SAID_BYTES_MAX, "{} bytes: {}", text.len(), text.get(..200).unwrap_or_default());
    }
    Ok(said)
}

/// Components with some of everything, small, so that most edits hit something.
fn seeds() -> Vec<Vec<u8>> {
    let answers = format!(r#"(func (export "handle") {HANDLE} i32.const 0)"#);
    let endless = format!(r#"(func $f (export "handle") {HANDLE} (loop $l (br $l)) unreachable)"#);
    let deep = format!(
        r#"(func $f (export "handle") {HANDLE} local.get 0 local.get 1 local.get 2 local.get 3 local.get 4 local.get 5
        local.get 6 call $f)"#
    );
    let grows = format!(r#"(func (export "handle") {HANDLE} (memory.grow (i32.const 900)))"#);
    let bodies = [answers, endless, deep, grows];
    let mut seeds: Vec<_> = bodies.iter().map(|body| plugin(&format!("{DESCRIBE} {body}"))).collect();
    seeds.push(trapping(&["one", "_RNvNtCs1234_7mycrate3foo3bar", "_Z1f1AIiiE"]));
    seeds.push(logging_at_start(
        "(func (call 0 (i32.const 2) (i32.const 0) (i32.const 8) (i32.const 0) (i32.const 8)))",
    ));
    let versioned = r#"(component (@custom "wattle:state-version" "12") (core module (memory 1)) (component))"#;
    seeds.push(wat::parse_str(versioned).unwrap());
    seeds
}

#[derive(Debug, Clone)]
enum Edit {
    Set(Index, u8),
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, u8),
    Copy(Index, Index, u8),
    Cut(Index),
}

impl Edit {
    fn apply(&self, wasm: &mut Vec<u8>) {
        if wasm.is_empty() {
            return;
        }
        let length = wasm.len();
        match self {
            Edit::Set(at, byte) => wasm[at.index(length)] = *byte,
            Edit::Flip(at, bit) => wasm[at.index(length)] ^= 1 << (bit % 8),
            Edit::Insert(at, bytes) => {
                let at = at.index(length);
                wasm.splice(at..at, bytes.iter().copied());
            }
            Edit::Remove(at, count) => {
                let at = at.index(length);
                wasm.drain(at..(at + usize::from(*count)).min(length));
            }
            Edit::Copy(from, to, count) => {
                let from = from.index(length);
                let part = wasm[from..(from + usize::from(*count)).min(length)].to_vec();
                let to = to.index(length);
                wasm.splice(to..to, part);
            }
            Edit::Cut(at) => wasm.truncate(at.index(length)),
        }
    }
}

fn edit() -> impl Strategy<Value = Edit> {
    // Numbers that mean something: lengths, counts, kinds of sections and types, ends.
    let byte = || prop_oneof![any::<u8>(), select(vec![0, 1, 2, 4, 10, 0x0b, 0x40, 0x60, 0x7f, 0x80, 0xff])];
    prop_oneof![
        6 => (any::<Index>(), byte()).prop_map(|(at, byte)| Edit::Set(at, byte)),
        4 => (any::<Index>(), any::<u8>()).prop_map(|(at, bit)| Edit::Flip(at, bit)),
        2 => (any::<Index>(), prop::collection::vec(byte(), 1..8)).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        2 => (any::<Index>(), 1..16_u8).prop_map(|(at, count)| Edit::Remove(at, count)),
        2 => (any::<Index>(), any::<Index>(), any::<u8>()).prop_map(|(from, to, count)| Edit::Copy(from, to, count)),
        1 => any::<Index>().prop_map(Edit::Cut),
    ]
}

/// Pieces of the names that compilers make, and of what is none.
fn name() -> impl Strategy<Value = String> {
    let piece = select(vec![
        "_Z",
        "_ZN",
        "_R",
        "__ZN",
        "N",
        "I",
        "E",
        "S_",
        "S0_",
        "S1_",
        "SA_",
        "1A",
        "3foo",
        "17h0123456789abcdefE",
        "Nv",
        "Nt",
        "Cs",
        "Cs1234_",
        "7mycrate",
        "3bar",
        "B_",
        "B2_",
        "B5_",
        "T",
        "A",
        "R",
        "K",
        "j1_",
        "Kj_",
        "FG_",
        "p",
        "s_",
        "u",
        "$LT$",
        "$u7e$",
        "..",
        ".llvm.1",
        "\n",
        "\u{1b}[2J",
        "\0",
        "ü",
        "\u{202e}",
        "9999999999",
        "0",
        "_",
        "vv",
        "xi",
        "C1",
    ]);
    let pieces = prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat());
    let repeated = (pieces.clone(), 1..2_000_usize).prop_map(|(piece, n)| piece.repeat(n));
    prop_oneof![4 => pieces, 1 => any::<String>(), 1 => repeated]
        // wasm has a limit of its own
        .prop_map(|name| name.chars().take(20_000).collect())
}

proptest! {
    #![proptest_config(config(150))]

    #[test]
    fn any_bytes_are_answered_in_bounds(
        seed in select(seeds()),
        edits in prop::collection::vec(edit(), 1..6),
    ) {
        let mut wasm = seed;
        edits.iter().for_each(|edit| edit.apply(&mut wasm));
        in_bounds(wasm)?;
    }

    #[test]
    fn any_names_are_told_in_bounds(names in prop::collection::vec(name(), 1..4)) {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let said = in_bounds(trapping(&names))?;
        let backtrace = said.last().unwrap();
        prop_assert!(!backtrace.contains(|c: char| c.is_control() && c != '\n'), "{:?}", backtrace);
        prop_assert_eq!(backtrace.lines().count(), names.len() + 1, "{}", backtrace);
    }
}
