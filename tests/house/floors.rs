//! The floors that are drawn are the floors of the code: of the house in ARCHITECTURE.md, and of a room that has floors
//! of its own at the head of its `mod.rs`. What stands side by side uses each other in one direction only, but for the
//! circles that are named here.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Modules of one room that use each other in a circle. A new one is a fault, and one that is gone goes from this list.
const CIRCLES: &[&str] = &[
    "log: checkpointer entries guards identities partition producers queue runs store syncer unconsumed window",
    "wasm: call host plugin",
    "wasm: contract keyvalue wasi",
    "wasm: overlay store_data",
];

/// A module by its names from the root of the crate on.
type Module = Vec<String>;

/// The sources, by module, without comments and without their tests.
struct House(BTreeMap<Module, String>);

fn module(path: &str) -> Module {
    let mut names: Module = path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if names.last().is_some_and(|last| last == "mod" || last == "lib") {
        names.pop();
    }
    names
}

fn without_comments_and_tests(source: &str) -> String {
    let source = source.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    source.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The paths of a tree of imports: `a::{b, c::{d}}` is `a::b` and `a::c::d`. Other names (`as`) do not count.
fn paths(tree: &str, prefix: &[String], into: &mut Vec<Module>) {
    let (mut depth, mut start) = (0, 0);
    let mut parts = Vec::new();
    for (at, character) in tree.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&tree[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&tree[start..]);
    for part in parts.into_iter().map(str::trim).filter(|part| !part.is_empty()) {
        let (head, inner) = part.split_once('{').unwrap_or((part, ""));
        let head = head.split(" as ").next().unwrap_or_default();
        let names = head.split("::").map(str::trim).filter(|name| !name.is_empty() && *name != "self");
        let path: Module = prefix.iter().cloned().chain(names.map(str::to_owned)).collect();
        match inner.rsplit_once('}') {
            Some((inner, _)) => paths(inner, &path, into),
            None => into.push(path),
        }
    }
}

impl House {
    fn of(sources: impl IntoIterator<Item = (String, String)>) -> Self {
        let all = sources.into_iter().map(|(path, source)| (module(&path), without_comments_and_tests(&source)));
        Self(all.filter(|(module, _)| module.last().is_none_or(|last| last != "tests")).collect())
    }

    /// As it stands.
    fn standing() -> Self {
        fn sources(folder: &Path, root: &Path, into: &mut Vec<(String, String)>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    sources(&path, root, into);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let name = path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
                    into.push((name, fs::read_to_string(&path).unwrap()));
                }
            }
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut found = Vec::new();
        sources(&root, &root, &mut found);
        assert!(found.len() > 20, "the sources are where they are looked for");
        Self::of(found)
    }

    /// A path from the root of the crate on, as a module says it.
    fn absolute(&self, from: &Module, path: &[String]) -> Option<Module> {
        let ups = path.iter().take_while(|name| *name == "super").count();
        let is_child = |name: &String| self.0.contains_key(&[from.as_slice(), std::slice::from_ref(name)].concat());
        match path.first()?.as_str() {
            "crate" => Some(path[1..].to_vec()),
            "super" => Some([from.get(..from.len().checked_sub(ups)?)?, &path[ups..]].concat()),
            _ if is_child(&path[0]) => Some([from.as_slice(), path].concat()),
            _ => None,
        }
    }

    /// The module in which an item is, through modules that only pass it on.
    fn home(&self, path: &[String], passed_on: usize) -> Option<Module> {
        let length = (1..=path.len()).rev().find(|length| self.0.contains_key(&path[..*length]))?;
        let (module, item) = path.split_at(length);
        let mut imports = Vec::new();
        for (is_public, tree) in statements(&self.0[module]) {
            if is_public {
                paths(tree, &[], &mut imports);
            }
        }
        let of_item = imports.into_iter().find(|import| import.last() == item.first());
        match of_item.and_then(|import| self.absolute(&module.to_vec(), &import)) {
            Some(next) if passed_on < 8 && next.len() > 1 => self.home(&[&next, &item[1..]].concat(), passed_on + 1),
            _ => Some(module.to_vec()),
        }
    }

    /// The paths that a module says, from the root of the crate on.
    fn said(&self, from: &Module) -> Vec<Module> {
        let source = &self.0[from];
        let mut said = Vec::new();
        for (is_public, tree) in statements(source) {
            if !is_public {
                paths(tree, &[], &mut said);
            }
        }
        for root in ["crate::", "super::"] {
            for (at, _) in source.match_indices(root) {
                let is_path = |character: char| character.is_alphanumeric() || character == '_' || character == ':';
                if source[..at].chars().next_back().is_none_or(|before| !is_path(before)) {
                    let path: String = source[at..].chars().take_while(|character| is_path(*character)).collect();
                    paths(path.trim_end_matches(':'), &[], &mut said);
                }
            }
        }
        said.iter().filter_map(|path| self.absolute(from, path)).collect()
    }

    /// Which modules use which.
    fn arrows(&self) -> BTreeSet<(Module, Module)> {
        let of = |from: &Module| {
            let homes = self.said(from).into_iter().filter_map(|path| self.home(&path, 0));
            homes.filter(|to| to != from).map(|to| (from.clone(), to)).collect::<Vec<_>>()
        };
        self.0.keys().flat_map(of).collect()
    }

    /// The rooms that have floors of their own, with the floor of each of their modules, the top one first.
    fn floors(&self, architecture: &str) -> BTreeMap<Module, BTreeMap<String, usize>> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let heads = self.0.keys().filter_map(|room| {
            let text = fs::read_to_string(root.join(room.join("/")).join("mod.rs")).ok()?;
            let lines: Vec<_> = text.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim).collect();
            Some((room.clone(), drawn(&lines.join("\n"))?))
        });
        heads
            .chain([(Module::new(), drawn(architecture).expect("ARCHITECTURE.md has a block marked `floors`"))])
            .collect()
    }
}

/// The imports of a source, and whether each is public.
fn statements(source: &str) -> Vec<(bool, &str)> {
    let mut found = Vec::new();
    for (at, _) in source.match_indices("use ") {
        let line = source[..at].rsplit('\n').next().unwrap_or_default().trim_start();
        let Some((tree, _)) = source[at + 4..].split_once(';') else { continue };
        if line.is_empty() || (line.starts_with("pub") && !line.contains("fn")) {
            found.push((!line.is_empty(), tree));
        }
    }
    found
}

/// The block marked `floors` of a text.
fn drawn(text: &str) -> Option<BTreeMap<String, usize>> {
    let block = text.split("```floors\n").nth(1)?.split("```").next()?;
    let mut floors = BTreeMap::new();
    for (floor, line) in block.lines().enumerate() {
        for module in line.split_whitespace() {
            assert!(floors.insert(module.to_owned(), floor).is_none(), "`{module}` is drawn twice");
        }
    }
    Some(floors)
}

/// Every arrow inside a room that goes up or sideways, or leads from a module that is not drawn.
fn broken(house: &House, room: &Module, floors: &BTreeMap<String, usize>) -> Vec<String> {
    let mut broken = Vec::new();
    for module in house.0.keys().filter(|module| module.starts_with(room)) {
        match module.get(room.len()) {
            Some(name) if !floors.contains_key(name) => broken.push(format!("`{}` is not drawn", module.join("::"))),
            _ => {}
        }
    }
    for (from, to) in house.arrows() {
        if !from.starts_with(room) || !to.starts_with(room) {
            continue;
        }
        let (Some(above), Some(below)) = (from.get(room.len()), to.get(room.len())) else { continue };
        let (Some(from_floor), Some(to_floor)) = (floors.get(above), floors.get(below)) else { continue };
        if above != below && to_floor <= from_floor {
            broken.push(format!("`{}` must not use `{}`", from.join("::"), to.join("::")));
        }
    }
    broken.sort();
    broken.dedup();
    broken
}

/// Modules side by side that use each other in a circle, directly or through others, each as `room: a b c`.
fn circles(house: &House) -> Vec<String> {
    let arrows = house.arrows();
    let rooms: BTreeSet<Module> =
        house.0.keys().filter(|module| !module.is_empty()).map(|module| module[..module.len() - 1].to_vec()).collect();
    let mut found = BTreeSet::new();
    for room in rooms {
        let mut reached: BTreeSet<(&str, &str)> = BTreeSet::new();
        for (from, to) in &arrows {
            let is_inside = from.starts_with(&room) && to.starts_with(&room);
            if let (true, Some(from), Some(to)) = (is_inside, from.get(room.len()), to.get(room.len())) {
                reached.insert((from, to));
            }
        }
        loop {
            let further: Vec<_> = reached
                .iter()
                .flat_map(|(from, via)| {
                    reached.iter().filter(move |(start, _)| start == via).map(move |(_, to)| (*from, *to))
                })
                .filter(|arrow| !reached.contains(arrow))
                .collect();
            if further.is_empty() {
                break;
            }
            reached.extend(further);
        }
        for (from, _) in &reached {
            let circle: BTreeSet<&str> = reached
                .iter()
                .filter(|(start, to)| start == from && reached.contains(&(*to, *from)))
                .map(|(_, to)| *to)
                .collect();
            if circle.len() > 1 {
                found.insert(format!("{}: {}", room.join("::"), circle.into_iter().collect::<Vec<_>>().join(" ")));
            }
        }
    }
    found.into_iter().collect()
}

#[test]
fn imports_go_down_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let house = House::standing();
    let floors = house.floors(&fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap());
    assert!(floors.len() > 1, "`dispatch` has floors of its own");
    let all: Vec<_> = floors.iter().flat_map(|(room, floors)| broken(&house, room, floors)).collect();
    assert!(all.is_empty(), "imports that break the floors that are drawn:\n{}", all.join("\n"));
}

#[test]
fn only_one_engine_knows_the_log() {
    let house = House::standing();
    let may = |module: &&Module| {
        module.starts_with(&["log".to_owned()]) || module.starts_with(&["engine".to_owned(), "embedded".to_owned()])
    };
    let others = house.0.keys().filter(|module| !may(module));
    let all: Vec<_> = others
        .filter(|module| house.said(module).iter().any(|path| path.first().is_some_and(|room| room == "log")))
        .collect();
    assert!(all.is_empty(), "only `engine/embedded` may use `log`: {all:?}");
}

#[test]
fn lanes_and_the_sandbox_are_strangers() {
    let house = House::standing();
    let uses = |from: &str, to: &str| {
        let of = house.0.keys().filter(|module| module.first().is_some_and(|room| room == from));
        of.filter(|module| house.said(module).iter().any(|path| path.first().is_some_and(|room| room == to)))
            .collect::<Vec<_>>()
    };
    let all = [uses("dispatch", "wasm"), uses("wasm", "dispatch")].concat();
    assert!(all.is_empty(), "what a call is stands in `model::call`, for handlers of any kind: {all:?}");
}

#[test]
fn the_client_uses_nothing_of_the_bus() {
    let strange = strangers(&House::standing(), "client", &["client", "api", "model", "limits"]);
    assert!(strange.is_empty(), "only the contract, so that a client can be had without the bus: {strange:?}");
}

/// What a room uses beside the rooms that it may.
fn strangers(house: &House, room: &str, may: &[&str]) -> Vec<String> {
    let arrows = house.arrows().into_iter().filter(|(from, _)| from.first().is_some_and(|first| first == room));
    let strange = arrows.filter(|(_, to)| !to.first().is_some_and(|first| may.contains(&first.as_str())));
    strange.map(|(from, to)| format!("`{}` uses `{}`", from.join("::"), to.join("::"))).collect()
}

#[test]
fn a_room_that_may_use_few_others_is_held_to_them() {
    let rooms = house(&[
        ("api/mod.rs", "pub use status::Status;\nmod status;"),
        ("api/status.rs", ""),
        ("client/mod.rs", "use crate::api::Status;"),
        ("client/reading.rs", "fn f() { crate::engine::Engine::new() }"),
        ("engine/mod.rs", ""),
    ]);
    assert_eq!(strangers(&rooms, "client", &["client", "api"]), ["`client::reading` uses `engine`"]);
}

#[test]
fn circles_are_those_that_are_named() {
    let found = circles(&House::standing());
    let new: Vec<_> = found.iter().filter(|circle| !CIRCLES.contains(&circle.as_str())).collect();
    let gone: Vec<_> = CIRCLES.iter().filter(|circle| !found.iter().any(|found| found == *circle)).collect();
    assert!(new.is_empty() && gone.is_empty(), "circles that are new: {new:#?}\ncircles that are gone: {gone:#?}");
}

fn house(sources: &[(&str, &str)]) -> House {
    House::of(sources.iter().map(|(path, source)| ((*path).to_owned(), (*source).to_owned())))
}

#[test]
fn an_import_that_goes_up_or_sideways_is_named() {
    let floors = drawn("```floors\ndispatch\nengine\ntopology log wasm\nmodel\n```").unwrap();
    let edges = |sources: &[(&str, &str)]| broken(&house(sources), &Module::new(), &floors);
    let wasm = ("wasm/mod.rs", "\nuse crate::{model::Event, topology};");
    assert_eq!(
        edges(&[
            ("model/event.rs", "use crate::engine::Engine;"),
            ("engine/mod.rs", ""),
            wasm,
            ("topology/mod.rs", "")
        ]),
        ["`model::event` must not use `engine`", "`wasm` must not use `topology`"]
    );
    assert_eq!(
        edges(&[("engine/mod.rs", "fn f() { crate::dispatch::lane::go() }"), ("dispatch/mod.rs", "")]),
        ["`engine` must not use `dispatch`"]
    );
    assert!(edges(&[("engine/mod.rs", "use crate::log::Log; // crate::dispatch"), ("log/mod.rs", "")]).is_empty());
    assert_eq!(edges(&[("strange/mod.rs", "")]), ["`strange` is not drawn"]);
}

#[test]
fn inside_a_room_as_well_through_what_passes_it_on() {
    let floors = drawn("```floors\nops\nlane\n```").unwrap();
    let rooms = house(&[
        ("dispatch/mod.rs", "pub use ops::seek::Seek;\nmod ops;\nmod lane;"),
        ("dispatch/ops/mod.rs", ""),
        ("dispatch/ops/seek.rs", "pub struct Seek;\nuse super::super::lane::Lane;"),
        ("dispatch/lane/mod.rs", "use crate::dispatch::Seek;"),
    ]);
    assert_eq!(
        broken(&rooms, &vec!["dispatch".into()], &floors),
        ["`dispatch::lane` must not use `dispatch::ops::seek`"]
    );
    assert_eq!(circles(&rooms), ["dispatch: lane ops"]);
}
