use super::{ReadState, RecordedRead, RecordedValue, *};

fn listing(after: Option<&str>, keys: &[&str], looked_to: Option<&str>) -> RecordedRead {
    RecordedRead::Keys {
        bucket: "b".into(),
        after: after.map(str::to_owned),
        keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        looked_to: looked_to.map(str::to_owned),
    }
}

/// Lists `count` keys after one, page by page, and whether the result is certain.
fn keys(state: &ReadState, after: Option<&str>, count: usize) -> (String, bool) {
    state.unknown.lock().unwrap().clear();
    let (mut keys, mut after) = (Vec::new(), after.map(str::to_owned));
    while keys.len() < count {
        let found = state.keys("b", after.as_deref(), count - keys.len(), 0).unwrap();
        keys.extend(found.keys);
        match found.looked_to {
            None => break,
            looked_to => after = looked_to,
        }
    }
    (keys.concat(), state.unknown().is_empty())
}

#[test]
fn a_page_that_was_listed_says_nothing_of_what_is_in_front_of_it_or_behind() {
    let state = ReadState::of(&[listing(Some("c"), &["d", "e"], Some("e"))]);
    assert_eq!(keys(&state, Some("c"), 2), ("de".into(), true), "as it was listed");
    assert_eq!(keys(&state, Some("c"), 1), ("d".into(), true));
    assert_eq!(keys(&state, Some("d"), 1), ("e".into(), true));
    assert_eq!(keys(&state, None, 1), ("d".into(), false), "there may be keys in front of it");
    assert_eq!(keys(&state, Some("b"), 1), ("d".into(), false));
    assert_eq!(keys(&state, Some("c"), 3), ("de".into(), false), "and behind it");
    assert_eq!(keys(&state, Some("e"), 1), (String::new(), false));
}

#[test]
fn pages_without_a_gap_are_one_listing() {
    let state = ReadState::of(&[
        listing(None, &["a", "b"], Some("b")),
        listing(Some("b"), &["c"], Some("d")), // which had expired
        listing(Some("d"), &["f"], None),
        RecordedRead::Value { bucket: "b".into(), key: "x".into(), value: None },
    ]);
    for count in 1..6 {
        assert_eq!(keys(&state, None, count), ("abcf".chars().take(count).collect(), true), "{count}");
    }
    assert_eq!(keys(&state, Some("bb"), 9), ("cf".into(), true));
    let gap = ReadState::of(&[listing(None, &["a", "b"], Some("b")), listing(Some("c"), &["d"], None)]);
    assert_eq!(keys(&gap, None, 2), ("ab".into(), true));
    assert_eq!(keys(&gap, None, 3), ("abd".into(), false), "between b and c");
    assert_eq!(keys(&gap, Some("c"), 3), ("d".into(), true));
}

#[test]
fn what_was_not_listed_at_all_is_unknown() {
    let value = RecordedValue::Text("1".into());
    let state = ReadState::of(&[RecordedRead::Value { bucket: "b".into(), key: "k".into(), value: Some(value) }]);
    assert_eq!(keys(&state, None, 1), ("k".into(), false));
    assert_eq!(keys(&state, None, 5), ("k".into(), false));
}
