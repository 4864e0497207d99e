//! The capsules of a data folder, for the API.
//!
//! Promises: nothing outside of the folder is opened, whatever is requested: names are looked up among the existing
//! files.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::{EXTENSION, PLUGINS, folder, list, read};
use crate::api::Digest;
use crate::api::times::timestamp;
use crate::api::v1;
use crate::dispatch::Capsule;
use crate::limits::CAPSULE_BYTES_MAX;
use crate::model::{Event, excerpt};
use crate::server::{CapsulePage, Capsules, FileReader};

/// Bytes of capsules read per page, unless a single one is larger.
const PAGE_BYTES: u64 = CAPSULE_BYTES_MAX as u64;
/// Bytes of a reason in a listing.
const REASON_BYTES_MAX: usize = 1_000;

/// The capsules of a data folder.
#[derive(Debug)]
pub(in crate::app) struct CapsuleFolder {
    pub(in crate::app) data: PathBuf,
}

/// An existing capsule.
struct CapsuleFile {
    path: PathBuf,
    subscriber: String,
    id: String,
}

impl CapsuleFile {
    /// Its sort key in listings.
    fn place(&self) -> String {
        format!("{}/{}", self.subscriber, self.id)
    }

    fn shown(&self, size_bytes: u64) -> v1::Capsule {
        let (subscriber, id) = (self.subscriber.clone(), self.id.clone());
        let capsule = match read(&self.path) {
            Ok(capsule) => capsule,
            Err(error) => {
                let unreadable = Some(error.to_string());
                return v1::Capsule { subscriber, id, size_bytes, unreadable, ..v1::Capsule::default() };
            }
        };
        let Capsule { saved_ns, event, key, partition, offset, failure, digest, wasm_digest, .. } = capsule;
        let line = failure.reason.lines().next().unwrap_or_default();
        v1::Capsule {
            subscriber,
            id,
            save_time: Some(timestamp(saved_ns)),
            event_id: Event::decode(&event).map(|event| event.id).unwrap_or_default(),
            key,
            partition,
            offset,
            failure: failure.kind,
            reason: excerpt(line, REASON_BYTES_MAX).into_owned(),
            digest,
            wasm_digest,
            size_bytes,
            unreadable: None,
        }
    }
}

impl CapsuleFolder {
    /// All capsules, in the order of listings.
    fn all(&self) -> io::Result<Vec<CapsuleFile>> {
        let folder = folder(&self.data);
        let found = |path: PathBuf| {
            let inside = path.strip_prefix(&folder).ok()?;
            let subscriber = inside.parent().and_then(Path::to_str)?.to_owned();
            let id = inside.file_stem()?.to_str()?.to_owned();
            Some(CapsuleFile { path, subscriber, id })
        };
        let mut all: Vec<_> = list(&folder)?.into_iter().filter_map(found).collect();
        all.sort_by_key(CapsuleFile::place);
        Ok(all)
    }
}

impl Capsules for CapsuleFolder {
    fn list(&self, is_wanted: &dyn Fn(&str) -> bool, behind: &str, count: usize) -> io::Result<CapsulePage> {
        let all = self.all()?.into_iter();
        let wanted = all.filter(|found| is_wanted(&found.subscriber));
        let (mut shown, mut bytes, mut last) = (Vec::new(), 0, String::new());
        for found in wanted.filter(|found| found.place().as_str() > behind) {
            let length = match fs::metadata(&found.path) {
                // a later one has replaced it meanwhile
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                metadata => metadata?.len(),
            };
            if shown.len() >= count || (!shown.is_empty() && bytes + length > PAGE_BYTES) {
                return Ok((shown, Some(last)));
            }
            bytes += length;
            last = found.place();
            shown.push(found.shown(length));
        }
        Ok((shown, None))
    }

    fn open(&self, subscriber: &str, id: &str) -> io::Result<FileReader> {
        let found = self.all()?.into_iter().find(|found| found.subscriber == subscriber && found.id == id);
        Ok(Box::new(File::open(found.ok_or(io::ErrorKind::NotFound)?.path)?))
    }

    fn open_component(&self, hash: &str) -> io::Result<FileReader> {
        let hash: Digest = hash.parse().map_err(|_| io::ErrorKind::NotFound)?;
        Ok(Box::new(File::open(self.data.join(PLUGINS).join(format!("{hash}.wasm")))?))
    }
}

/// The file name of a downloaded capsule.
pub fn file_name(id: &str) -> String {
    format!("{id}.{EXTENSION}")
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::super::tests::capsule;
    use super::super::{keep, write_private};
    use super::*;

    /// A data folder with three capsules of one subscriber and one of another.
    fn door() -> (tempfile::TempDir, CapsuleFolder) {
        let data = tempfile::tempdir().unwrap();
        let door = CapsuleFolder { data: data.path().to_owned() };
        for saved_ns in [3, 1, 2] {
            keep(&folder(data.path()), &capsule(saved_ns, 9)).unwrap();
        }
        keep(&folder(data.path()), &Capsule { subscriber: "bank/pay".into(), ..capsule(7, 9) }).unwrap();
        (data, door)
    }

    fn text(mut opened: FileReader) -> String {
        let mut text = String::new();
        opened.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn capsules_are_listed_in_pages_and_each_once() {
        let (_data, door) = door();
        let (mut places, mut behind) = (Vec::new(), String::new());
        loop {
            let (page, next) = door.list(&|_| true, &behind, 3).unwrap();
            assert!(page.len() <= 3);
            places.extend(
                page.into_iter().map(|of| (of.subscriber, of.save_time.unwrap().nanos, of.failure, of.event_id)),
            );
            match next {
                Some(next) => behind = next,
                None => break,
            }
        }
        let place = |subscriber: &str, nanos| (subscriber.to_owned(), nanos, "reject".to_owned(), "1".to_owned());
        let all =
            [place("bank/pay", 7), place("shop/validate", 1), place("shop/validate", 2), place("shop/validate", 3)];
        assert_eq!(places, all);
        assert_eq!(door.list(&|name| name == "shop/validate", "", 9).unwrap().0.len(), 3);
        assert_eq!(door.list(&|name| name == "shop/other", "", 9).unwrap(), (Vec::new(), None));
        let none = CapsuleFolder { data: "/nowhere".into() };
        assert_eq!(none.list(&|_| true, "", 9).unwrap(), (Vec::new(), None));
    }

    #[test]
    fn a_page_is_bounded_in_what_it_reads() {
        let (data, door) = door();
        let large = "x".repeat(CAPSULE_BYTES_MAX / 2);
        for saved_ns in [4, 5] {
            let mut capsule = capsule(saved_ns, 9);
            capsule.failure.reason = format!("{large}\nsecond line");
            keep(&folder(data.path()), &capsule).unwrap();
        }
        let (page, next) = door.list(&|name| name == "shop/validate", "", 9).unwrap();
        assert_eq!((page.len(), page[3].reason.len()), (4, REASON_BYTES_MAX));
        let (page, next) = door.list(&|name| name == "shop/validate", &next.unwrap(), 9).unwrap();
        assert_eq!((page.len(), next), (1, None));
    }

    #[test]
    fn what_is_damaged_is_listed_as_that() {
        let (data, door) = door();
        write_private(&folder(data.path()).join("shop/validate/0.capsule"), b"nothing").unwrap();
        let (page, _) = door.list(&|name| name == "shop/validate", "", 9).unwrap();
        assert!(page.len() == 4 && page[0].unreadable.as_ref().unwrap().contains("it is not a capsule"), "{page:?}");
    }

    #[test]
    fn nothing_outside_of_the_folder_is_opened() {
        let (data, door) = door();
        let id = door.list(&|name| name == "shop/validate", "", 1).unwrap().0.remove(0).id;
        assert!(text(door.open("shop/validate", &id).unwrap()).starts_with("wattle capsule 1 "));
        let hash = Digest::of(b"component");
        fs::create_dir(data.path().join(PLUGINS)).unwrap();
        fs::write(data.path().join(PLUGINS).join(format!("{hash}.wasm")), b"component").unwrap();
        fs::write(data.path().join("secret.capsule"), b"secret").unwrap();
        fs::write(data.path().join("secret.wasm"), b"secret").unwrap();
        assert_eq!(text(door.open_component(&hash.to_string()).unwrap()), "component");
        let is_missing =
            |opened: io::Result<FileReader>| opened.err().is_some_and(|error| error.kind() == io::ErrorKind::NotFound);
        for (subscriber, id) in
            [("shop/validate", "../../../secret"), ("..", "secret"), ("shop/validate/../validate", &*id), ("", "")]
        {
            assert!(is_missing(door.open(subscriber, id)), "{subscriber:?} {id:?}");
        }
        for hash in ["../secret", "", &"0".repeat(64)] {
            assert!(is_missing(door.open_component(hash)), "{hash:?}");
        }
    }
}
