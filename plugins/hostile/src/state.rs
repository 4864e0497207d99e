//! State, as a small program in an event tells it: lines such as `set a=1`, each of which answers with a line.

use std::sync::OnceLock;

use wattle_plugin::contract::wasi::keyvalue::atomics::{self, Cas, CasError};
use wattle_plugin::contract::wasi::keyvalue::batch;
use wattle_plugin::contract::wasi::keyvalue::store::{self, Bucket, Error};
use wattle_plugin::contract::wattle::plugin::types::Action;

/// Kept across events and calls, which a bucket may be.
static KEPT: OnceLock<Bucket> = OnceLock::new();

/// Runs a program. The error is how the event fails.
pub fn run(program: &str) -> Result<String, (Action, String)> {
    let mut answers = Vec::new();
    let mut bucket = None;
    let mut cas = None;
    for line in program.lines() {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let open = || store::open("").expect("the default bucket");
        let bucket = match verb {
            "kept" => KEPT.get_or_init(open),
            _ => bucket.get_or_insert_with(open),
        };
        answers.push(match verb {
            "fail" => return Err((Action::Retry(None), answers.join("\n"))),
            "reject" => return Err((Action::Reject, answers.join("\n"))),
            "panic" => panic!("with state written"),
            "kept" => one(bucket, rest, &mut cas),
            _ => one(bucket, line, &mut cas),
        });
    }
    Ok(answers.join("\n"))
}

fn one(bucket: &Bucket, line: &str, cas: &mut Option<Cas>) -> String {
    let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
    let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
    let number = value.parse::<i64>().unwrap_or_default();
    match verb {
        "get" => said(bucket.get(key), shown),
        "set" => said(bucket.set(key, value.as_bytes()), done),
        "delete" => said(bucket.delete(key), done),
        "exists" => said(bucket.exists(key), |is_there| is_there.to_string()),
        "increment" => said(atomics::increment(bucket, key, number), |sum| sum.to_string()),

        // Of one bucket into another, by name.
        "put-in" => said(store::open(key).and_then(|bucket| bucket.set("here", value.as_bytes())), done),
        "get-in" => said(store::open(key).and_then(|bucket| bucket.get("here")), shown),

        "list" => said(bucket.list_keys((!rest.is_empty()).then_some(rest)), |page| {
            format!("{} then {:?}", page.keys.join(","), page.cursor)
        }),
        "pages" => pages(bucket),

        "cas" => said(Cas::new(bucket, key), |new| {
            *cas = Some(new);
            "made".to_owned()
        }),
        "current" => cas.as_ref().map_or("no handle".to_owned(), |cas| said(cas.current(), shown)),
        "swap" => match cas.take().map(|cas| atomics::swap(cas, rest.as_bytes())) {
            None => "no handle".to_owned(),
            Some(Ok(())) => "swapped".to_owned(),
            Some(Err(CasError::StoreError(error))) => said::<()>(Err(error), done),
            Some(Err(CasError::CasFailed(again))) => {
                *cas = Some(again);
                "it was another".to_owned()
            }
        },

        "get-many" => {
            let keys = rest.split(',').map(str::to_owned).collect::<Vec<_>>();
            said(batch::get_many(bucket, &keys), |found| {
                found.into_iter().map(|(key, value)| format!("{key}={}", shown(value))).collect::<Vec<_>>().join(",")
            })
        }
        "set-many" => {
            let entries = rest.split(',').filter_map(|entry| entry.split_once('='));
            let entries = entries.map(|(key, value)| (key.to_owned(), value.as_bytes().to_vec()));
            said(batch::set_many(bucket, &entries.collect::<Vec<_>>()), done)
        }
        "delete-many" => {
            let keys = rest.split(',').map(str::to_owned).collect::<Vec<_>>();
            said(batch::delete_many(bucket, &keys), done)
        }
        "many" => {
            let keys = (0..number).map(|n| format!("{key}{n:06}")).collect::<Vec<_>>();
            said(batch::get_many(bucket, &keys), |found| found.len().to_string())
        }

        // Keys of some length, values of some length, and many of either.
        "long" => said(bucket.set(&"k".repeat(number as usize), b""), done),
        "large" => said(bucket.set(key, &vec![b'v'; number as usize]), done),
        "flood" => repeated(bucket, number, |_| vec![b'v'; 1 << 18]),
        "rows" => repeated(bucket, number, |n| n.to_string().into_bytes()),
        "leak" => {
            (0..number).for_each(|_| std::mem::forget(store::open(key)));
            "leaked".to_owned()
        }
        _ => format!("no such verb: {verb}"),
    }
}

fn pages(bucket: &Bucket) -> String {
    let (mut sizes, mut last, mut cursor) = (Vec::new(), String::new(), None);
    loop {
        let page = match bucket.list_keys(cursor.as_deref()) {
            Ok(page) => page,
            Err(error) => return said::<()>(Err(error), done),
        };
        sizes.push(page.keys.len());
        for key in page.keys {
            assert!(last < key, "{last} comes before {key}");
            last = key;
        }
        match page.cursor {
            Some(next) => cursor = Some(next),
            None => return format!("{sizes:?}"),
        }
    }
}

/// Writes until something is refused.
fn repeated(bucket: &Bucket, count: i64, value: impl Fn(i64) -> Vec<u8>) -> String {
    for n in 0..count {
        if let Err(error) = bucket.set(&format!("{n:06}"), &value(n)) {
            return format!("after {n}: {}", said::<()>(Err(error), done));
        }
    }
    count.to_string()
}

fn said<T>(result: Result<T, Error>, say: impl FnOnce(T) -> String) -> String {
    match result {
        Ok(value) => say(value),
        Err(Error::Other(words)) => words,
        Err(error) => format!("{error:?}"),
    }
}

fn done((): ()) -> String {
    "done".to_owned()
}

fn shown(value: Option<Vec<u8>>) -> String {
    match value {
        None => "nothing".to_owned(),
        Some(value) => String::from_utf8_lossy(&value).into_owned(),
    }
}
