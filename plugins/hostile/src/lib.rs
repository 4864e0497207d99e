//! Does whatever an event tells it to: the test subject of the host.
//!
//! The data of an event is a verb and a number, such as "return 1000000". What a well-meaning plugin cannot do (answer
//! for an event that is not there, name the same event twice) needs the contract itself instead of the SDK's macro.

mod state;

use std::collections::HashMap;
use std::hint::black_box;
use std::net::{TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use wattle_plugin::contract::exports::wattle::plugin::handler::Guest;
use wattle_plugin::contract::wattle::plugin::context;
use wattle_plugin::contract::wattle::plugin::types::{Action, Batch, Event, Failure, Handled, Output};
use wattle_plugin::{Level, config, log};

mod wasi {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package test:hostile;
            world more {
                import wasi:clocks/monotonic-clock@0.2.12;
                import wasi:random/random@0.2.12;
            }
        ",
        world: "test:hostile/more",
        generate_all,
    });
}

/// Clocks and random numbers as components for WASI 0.3 import them.
mod wasi_0_3 {
    wit_bindgen::generate!({
        inline: "
            package test:later;
            world later {
                import wasi:clocks/monotonic-clock@0.3.0;
                import wasi:clocks/system-clock@0.3.0;
                import wasi:random/random@0.3.0;
                import wasi:random/insecure@0.3.0;
                import wasi:random/insecure-seed@0.3.0;
            }
            package wasi:clocks@0.3.0 {
                interface types { type duration = u64; }
                interface monotonic-clock {
                    use types.{duration};
                    type mark = u64;
                    now: func() -> mark;
                    get-resolution: func() -> duration;
                }
                interface system-clock {
                    use types.{duration};
                    record instant { seconds: s64, nanoseconds: u32 }
                    now: func() -> instant;
                    get-resolution: func() -> duration;
                }
            }
            package wasi:random@0.3.0 {
                interface random {
                    get-random-bytes: func(max-len: u64) -> list<u8>;
                    get-random-u64: func() -> u64;
                }
                interface insecure {
                    get-insecure-random-bytes: func(max-len: u64) -> list<u8>;
                    get-insecure-random-u64: func() -> u64;
                }
                interface insecure-seed {
                    get-insecure-seed: func() -> tuple<u64, u64>;
                }
            }
        ",
        generate_all,
    });
}

struct Hostile;

wattle_plugin::contract::export_component!(Hostile with_types_in wattle_plugin::contract);

impl Guest for Hostile {
    /// What the configuration says: ports, or something worse.
    fn describe() -> Vec<String> {
        wattle_plugin::on_panic_log();
        match config("describe").unwrap_or_default().as_str() {
            "panic" => panic!("no ports today"),
            "loop" => spin(),
            "state" => vec![state::run("get a").unwrap_or_default()],
            many if many.starts_with("many ") => {
                (0..many["many ".len()..].parse().unwrap()).map(|port: u32| format!("port-{port}")).collect()
            }
            ports => ports.split_whitespace().map(str::to_owned).collect(),
        }
    }

    fn handle(_: Batch, events: Vec<Event>) -> Handled {
        wattle_plugin::on_panic_log();
        let mut handled = Handled { outputs: Vec::new(), failed: None };
        // Before it says which event it is on.
        if let Some(program) = events.first().and_then(|event| event.data.strip_prefix(b"early ")) {
            let _ = state::run(&String::from_utf8_lossy(program));
        }
        // The first line of a program of the state, of which the rest comes behind `current`.
        if let Some(program) = events.first().and_then(|event| event.data.strip_prefix(b"early-state ")) {
            let program = String::from_utf8_lossy(program);
            let _ = state::run(program.lines().next().unwrap_or_default());
        }
        let mirrors = config("answers").as_deref() == Some("mirror");
        let early = events.first().filter(|event| event.data == b"early-clock").map(|_| seen());
        for (index, event) in (0..).zip(&events) {
            context::current(index);
            if mirrors {
                handled.outputs.push(mirror(index, event));
                continue;
            }
            if let Some((clock, random)) = early {
                let (later, more) = seen();
                let clock = if later > clock { "goes on" } else { "goes back" };
                let random = if more == random { "comes again" } else { "goes on" };
                let words = format!("clock {clock}, random {random}");
                handled.outputs.push(output(index, words.into_bytes()));
                continue;
            }
            handled.failed = act(index, event, &mut handled.outputs);
            if handled.failed.is_some() {
                break;
            }
        }
        handled
    }
}

static CALLS: AtomicU64 = AtomicU64::new(0);

fn act(index: u32, event: &Event, outputs: &mut Vec<Output>) -> Option<Failure> {
    let text = String::from_utf8_lossy(&event.data).into_owned();
    let (verb, rest) = text.split_once(' ').unwrap_or((text.as_str(), ""));
    let number = rest.parse::<u64>().unwrap_or(0);
    let mut send = |data: Vec<u8>| outputs.push(output(index, data));
    let fail = |action, reason: &str| Some(Failure { event: index, action, reason: reason.to_owned() });
    match verb {
        "echo" => send(event.data.clone()),
        "look" => send(look(event).into_bytes()),
        "order" => send(order().into_bytes()),
        "sleep" => send(sleep(number).into_bytes()),
        "count" => send((CALLS.fetch_add(1, Ordering::Relaxed) + 1).to_string().into_bytes()),

        "retry" => return fail(Action::Retry((number > 0).then_some(number)), "later"),
        "reject" => return fail(Action::Reject, "never"),
        "until" if u64::from(event.attempt) < number => return fail(Action::Retry(None), "not yet"),
        "until" => send(event.attempt.to_string().into_bytes()),

        "unreachable" => unreachable_instruction(),
        "panic" => panic!("{rest}"),
        "divide" => send(vec![(100 / number) as u8]),
        "bounds" => send(vec![unsafe { *((0xffff_fff0_u32) as *const u8) }]),
        "exit" => std::process::exit(3),
        "loop" => spin(),
        "clocks" => loop {
            black_box(SystemTime::now());
        },
        "work" => send(work(number).to_string().into_bytes()),
        "deep" => send(deep(number).to_string().into_bytes()),
        "recurse" => send(recurse(number).to_string().into_bytes()),
        "grow" => send(grow(number).to_string().into_bytes()),

        "return" => send(vec![b'x'; number as usize]),
        "outputs" => outputs.extend((0..number).map(|_| output(index, Vec::new()))),
        "attribute" => outputs.push(Output { attributes: format!("{rest}\n"), ..output(index, Vec::new()) }),
        "port" => outputs.push(Output { port: number as u32, ..output(index, Vec::new()) }),
        "answer" => outputs.push(output(number as u32, Vec::new())),
        "fail" => return Some(Failure { event: number as u32, action: Action::Reject, reason: "another".to_owned() }),
        "current" => context::current(number as u32),

        "log" => (0..number).for_each(|line| log(Level::Info, &format!("line {line}"))),
        "murmur" => eprint!("{rest}"),
        "line" => println!("{}", "x".repeat(number as usize)),
        "shout" => eprintln!("{rest}"),
        "handles" => std::mem::forget((0..number).map(|_| pollable()).collect::<Vec<_>>()),
        "random" => send(wasi::wasi::random::random::get_random_bytes(number)),
        "later" => send(look_later().into_bytes()),
        "connect" => send(format!("{:?}", TcpStream::connect(rest).map(drop)).into_bytes()),
        "bind" => send(format!("{:?}", UdpSocket::bind(rest).map(drop)).into_bytes()),

        "state" => match state::run(rest) {
            Ok(answers) => send(answers.into_bytes()),
            Err((action, reason)) => return fail(action, &reason),
        },
        // What it wrote counts, until the host finds that its output cannot be.
        "state-port" => {
            let _ = state::run(rest);
            outputs.push(Output { port: 9, ..output(index, Vec::new()) });
        }
        "state-quietly" => drop(state::run(rest)),
        "early" => {}
        "early-state" => match state::run(rest.split_once('\n').map_or("", |(_, rest)| rest)) {
            Ok(answers) => send(answers.into_bytes()),
            Err((action, reason)) => return fail(action, &reason),
        },
        "try-grow" => drop(black_box(Vec::<u8>::new().try_reserve_exact(number as usize))),

        "hide" => hide(number as usize),
        "search" => send(search(number as usize).to_string().into_bytes()),
        _ => return fail(Action::Reject, &format!("no such verb: {verb}")),
    }
    None
}

/// An event as an output, with all that an output can say of it.
fn mirror(index: u32, event: &Event) -> Output {
    let attributes = context::attributes();
    let further = attributes.split_terminator('\n').filter(|line| {
        let name = line.split_once('=').map_or(*line, |(name, _)| name);
        !["id", "source", "time", "datacontenttype", "partitionkey"].contains(&name)
    });
    let attributes = further.map(|line| format!("{line}\n")).collect();
    Output { attributes, type_: event.type_.clone(), ..output(index, event.data.clone()) }
}

fn output(event: u32, data: Vec<u8>) -> Output {
    let (type_, content_type, attributes) = (String::new(), String::new(), String::new());
    Output { event, port: 0, key: None, type_, content_type, attributes, data }
}

/// The monotonic clock, and some random bytes.
fn seen() -> (u64, u64) {
    (wasi::wasi::clocks::monotonic_clock::now(), wasi::wasi::random::random::get_random_u64())
}

/// Everything of the world that a handler can see.
fn look(event: &Event) -> String {
    let start = Instant::now();
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let random = wasi::wasi::random::random::get_random_bytes(8);
    let more = wasi::wasi::random::random::get_random_u64();
    let environment = std::env::vars().count() + std::env::args().count();
    let file = std::fs::read("/etc/hostname").map_err(|error| error.kind());
    let written = std::fs::write("left-behind", "x").map_err(|error| error.kind());
    let input = std::io::read_to_string(std::io::stdin()).unwrap_or_else(|error| error.to_string());
    let passed = start.elapsed();
    let attributes = context::attributes();
    format!(
        "wall {wall:?} passed {passed:?} event {} random {random:?} {more} environment {environment} \
         file {file:?} written {written:?} input {input:?} ports {:?} attributes {attributes:?}",
        event.time,
        context::ports(),
    )
}

/// What of the world a component for WASI 0.3 can see.
fn look_later() -> String {
    use wasi_0_3::wasi::clocks::{monotonic_clock, system_clock};
    use wasi_0_3::wasi::random::{insecure, insecure_seed, random};
    let wall = system_clock::now();
    let resolutions = (monotonic_clock::get_resolution(), system_clock::get_resolution());
    format!(
        "wall {}.{:09} passed {} resolutions {resolutions:?} random {:?} {} insecure {:?} {} seed {:?}",
        wall.seconds,
        wall.nanoseconds,
        monotonic_clock::now().abs_diff(wasi::wasi::clocks::monotonic_clock::now()),
        random::get_random_bytes(8),
        random::get_random_u64(),
        insecure::get_insecure_random_bytes(2),
        insecure::get_insecure_random_u64(),
        insecure_seed::get_insecure_seed(),
    )
}

/// The order of a map, which follows from its hash seed and from how many maps there were before it.
fn order() -> String {
    let map = (0..20).map(|n| (n, ())).collect::<HashMap<_, _>>();
    format!("{:?}", map.into_keys().collect::<Vec<_>>())
}

fn sleep(ms: u64) -> String {
    let (start, wall) = (Instant::now(), SystemTime::now());
    std::thread::sleep(Duration::from_millis(ms));
    format!("{} {}", start.elapsed().as_millis(), wall.elapsed().unwrap().as_millis())
}

fn unreachable_instruction() -> ! {
    #[cfg(target_arch = "wasm32")]
    core::arch::wasm32::unreachable();
    #[cfg(not(target_arch = "wasm32"))]
    unreachable!()
}

fn spin() -> ! {
    loop {
        black_box(());
    }
}

fn work(rounds: u64) -> u64 {
    (0..rounds).fold(1, |sum, round| black_box(sum ^ round))
}

/// Recursion that needs nothing of linear memory: only the call stack ends it.
fn deep(depth: u64) -> u64 {
    if depth == 0 {
        return 1;
    }
    let below = deep(depth - 1);
    below.rotate_left((below % 7) as u32).wrapping_add(depth)
}

/// Recursion that keeps its frames in linear memory, as most code does.
fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 16]);
    if depth == 0 { frame[0] } else { recurse(depth - 1) + black_box(frame)[1] }
}

/// Takes memory and touches every page of it.
fn grow(bytes: u64) -> u64 {
    let mut taken = vec![0_u8; bytes as usize];
    taken.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    black_box(&taken).iter().step_by(4096).map(|byte| u64::from(*byte)).sum()
}

fn pollable() -> wasi::wasi::clocks::monotonic_clock::Pollable {
    wasi::wasi::clocks::monotonic_clock::subscribe_duration(1)
}

/// Sixteen bytes that occur nowhere else: made at run time, so that they are not among the constants either.
fn secret() -> [u8; 16] {
    std::array::from_fn(|place| black_box(0x51_u8).wrapping_mul(place as u8 + 3).wrapping_add(black_box(0x2b)))
}

/// Fills memory with the secret, and gives it back to the allocator without wiping it.
fn hide(bytes: usize) {
    let filled = secret().into_iter().cycle().take(bytes).collect::<Vec<_>>();
    black_box(filled);
}

/// How often the secret is in memory that was taken without being wiped.
fn search(bytes: usize) -> usize {
    let mut taken = Vec::<u8>::with_capacity(bytes);
    // Never written: what is in it is what an earlier use, or an earlier instance, left there.
    let found = unsafe {
        taken.set_len(bytes);
        black_box(&taken).chunks_exact(16).filter(|chunk| *chunk == secret()).count()
    };
    unsafe { taken.set_len(0) };
    found
}
