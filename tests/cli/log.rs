//! `wattle log` on folders in which nothing may be changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::bus::{bus, run};

/// Every file in a folder, with what is in it and when it was changed.
fn contents(folder: &Path) -> BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let (path, of) = entry.map(|entry| (entry.path(), entry.metadata().unwrap())).unwrap();
        match of.is_dir() {
            true => found.extend(contents(&path)),
            false => drop(found.insert(path.clone(), (std::fs::read(&path).unwrap(), of.modified().unwrap()))),
        }
    }
    found
}

#[test]
fn who_only_looks_writes_nothing_and_waits_for_no_one() {
    let (folder, bus) = bus();
    let data = folder.path().join("data");
    let data = data.to_str().unwrap();
    bus.run(&["publish", "orders", "{}"]).ok();
    for command in [&["log", "verify"][..], &["log", "dump"]] {
        let refused = run(&[command, &["--data", data]].concat());
        assert_eq!(refused.code, Some(1));
        assert!(refused.notices.contains("belongs to another running bus"), "{refused:?}");
    }
    bus.signal("KILL");
    drop(bus);

    // a copy, as a snapshot of the disk is
    std::fs::remove_file(Path::new(data).join("lock")).unwrap();
    let before = contents(Path::new(data));
    let verified = run(&["log", "verify", "--data", data]).ok();
    assert!(verified.contains("all is as it was written"), "{verified}");
    assert!(run(&["log", "dump", "--data", data]).ok().contains("unit"), "the event is in the journal");
    let after = contents(Path::new(data));
    let changed: Vec<_> =
        after.iter().filter(|(path, of)| before.get(*path) != Some(of)).map(|(path, _)| path).collect();
    assert!(changed.is_empty() && after.len() == before.len(), "{changed:?}");
}
