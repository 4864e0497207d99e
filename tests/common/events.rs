//! Random events, of whatever CloudEvents allows.

use bytes::Bytes;
use wattle::model::event::Data;
use wattle::model::{Attribute, Event, Time};

use super::random::Random;

/// Where random events begin: `WATTLE_SEED`, or the clock.
pub fn seed() -> u64 {
    let now = || std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as u64);
    std::env::var("WATTLE_SEED").map_or_else(|_| now(), |seed| seed.parse().expect("WATTLE_SEED is a number"))
}

/// How many cases there are: `PROPTEST_CASES`, or as many as are usual.
pub fn cases(usual: usize) -> usize {
    std::env::var("PROPTEST_CASES").map_or(usual, |cases| cases.parse().expect("PROPTEST_CASES is a number"))
}

fn pick<'a, T>(random: &mut Random, from: &'a [T]) -> &'a T {
    &from[random.below(from.len() as u64) as usize]
}

/// What texts are made of: all that may be taken for something else on its way.
const PIECES: [&str; 40] = [
    "a", "Z", "0", "-", "_", ".", "/", ":", "=", " ", "  ", "\"", "'", "\\", "\\n", "\\u0000", "{", "}", "[", "]", ",",
    "<", "&", "%20", "%", "$x", "${x}", "#", "null", "true", "1.10", "é", "ß", "\u{a0}", "\u{feff}", "\u{2028}", "😀",
    "\u{fffd}", "e\u{301}", "\u{202e}",
];

/// A text that may be an attribute, not empty.
pub fn text(random: &mut Random) -> String {
    (0..=random.below(8)).map(|_| *pick(random, &PIECES)).collect()
}

fn name(random: &mut Random) -> String {
    let letters = b"abcxyz0189";
    (0..=random.below(10)).map(|_| char::from(*pick(random, letters))).collect::<String>() + "x"
}

fn bytes(random: &mut Random, most: u64) -> Vec<u8> {
    (0..random.below(most + 1)).map(|_| random.next() as u8).collect()
}

fn time(random: &mut Random) -> Time {
    let second = match random.below(4) {
        0 => *pick(random, &[-62_135_596_800, 253_402_300_799, -1, 0, 951_782_400]),
        _ => (random.below(315_537_897_600)) as i64 - 62_135_596_800,
    };
    let nanosecond = *pick(random, &[0, 1, 500_000_000, 999_999_999, 120_000]);
    Time::new(second, nanosecond).unwrap()
}

fn attribute(random: &mut Random) -> Attribute {
    match random.below(7) {
        0 => Attribute::Boolean(random.one_in(2)),
        1 => Attribute::Integer(*pick(random, &[0, 1, -1, i32::MAX, i32::MIN, 17])),
        2 => Attribute::Bytes(bytes(random, 20)),
        3 => Attribute::Uri(format!("urn:x:{}", random.below(1000))),
        4 => Attribute::UriRef(format!("/{}", text(random))),
        5 => Attribute::Timestamp(time(random)),
        _ => Attribute::String(if random.one_in(8) { String::new() } else { text(random) }),
    }
}

/// A text in JSON, with everything that a parser would write otherwise.
pub fn json(random: &mut Random, depth: u64) -> String {
    let blank = |random: &mut Random| *pick(random, &["", "", "", "", " ", "\t", "  ", "\n", "\r\n"]);
    let one = match random.below(if depth > 4 { 4 } else { 6 }) {
        0 => (*pick(
            random,
            &[
                "0",
                "-0",
                "1.10",
                "1e2",
                "1E+2",
                "18446744073709551616",
                "-9223372036854775809",
                "0.1e-400",
                "1e400",
                "3.0",
                "12345678901234567890123456789",
            ],
        ))
        .to_owned(),
        1 => (*pick(random, &["true", "false", "null"])).to_owned(),
        2 | 3 => quoted(random),
        4 => {
            let items: Vec<_> = (0..random.below(4)).map(|_| json(random, depth + 1)).collect();
            format!("[{}]", items.join(","))
        }
        _ => {
            // names are few, so that some occur twice
            let name =
                |random: &mut Random| (*pick(random, &["\"b\"", "\"a\"", "\"\\u0061\"", "\"é\"", "\"\""])).to_owned();
            let entries: Vec<_> = (0..random.below(4))
                .map(|_| format!("{}{}:{}{}", blank(random), name(random), blank(random), json(random, depth + 1)))
                .collect();
            format!("{{{}}}", entries.join(","))
        }
    };
    if depth == 0 && random.one_in(40) {
        let deep = random.below(300) as usize;
        return format!("{}{one}{}", "[".repeat(deep), "]".repeat(deep));
    }
    format!("{}{one}{}", blank(random), blank(random))
}

fn quoted(random: &mut Random) -> String {
    let pieces = [
        "a",
        "é",
        "\\u00e9",
        "\\/",
        "\\n",
        "\\\"",
        "\\\\",
        "\\ud83d\\ude00",
        "\\ud800",
        "\u{7f}",
        "\u{2028}",
        "😀",
        " ",
    ];
    let inside: String = (0..random.below(6)).map(|_| *pick(random, &pieces)).collect();
    format!("\"{inside}\"")
}

/// A URI reference.
pub fn reference(random: &mut Random) -> String {
    let pieces =
        ["/a", "b", "%20", "%C3%bc", "ü", "€", "?x=1", "&y", "#z", "@", "://", "~", "'", "(1)", "..", "*", "+"];
    (0..=random.below(6)).map(|_| *pick(random, &pieces)).collect()
}

/// An event whose id nobody else has.
pub fn event(random: &mut Random, number: usize) -> Event {
    let mut event = Event {
        id: format!("{number}-{}", text(random)),
        source: reference(random),
        r#type: text(random),
        ..Event::default()
    };
    let content_types = [
        "application/json",
        "text/json",
        "Foo/JSON",
        "application/problem+JSON",
        "application/json; charset=utf-8",
        "text/plain",
        "application/octet-stream",
        "application/xml",
    ];
    if !random.one_in(4) {
        event.attributes.insert("datacontenttype".into(), Attribute::String((*pick(random, &content_types)).into()));
    }
    for name in ["subject", "partitionkey"] {
        if random.one_in(3) {
            event.attributes.insert(name.into(), Attribute::String(text(random)));
        }
    }
    if random.one_in(3) {
        event.attributes.insert("time".into(), Attribute::Timestamp(time(random)));
    }
    if random.one_in(4) {
        event.attributes.insert("dataschema".into(), Attribute::Uri("https://example.com/a.json".into()));
    }
    for _ in 0..random.below(5) {
        event.attributes.insert(name(random), attribute(random));
    }
    event.data = match random.below(8) {
        0 => None,
        1 => Some(Data::Binary(bytes(random, 200).into())),
        2 => Some(Data::Text(text(random))),
        3 => Some(Data::Text(json(random, 0))),
        4 => Some(Data::Binary(text(random).into())),
        _ => Some(Data::Binary(json(random, 0).into())),
    };
    event
}

/// The payload of an event, byte for byte.
pub fn payload(event: &Event) -> Option<Bytes> {
    event.data.as_ref().map(|data| Bytes::copy_from_slice(data.as_bytes()))
}

/// What an output cannot say, or says otherwise.
pub const NOT_OF_OUTPUTS: [&str; 5] = ["id", "source", "time", "datacontenttype", "partitionkey"];

/// An output that answers an event with all that it is has the event's data, type and further attributes.
pub fn assert_mirrored(came: &Event, answer: &Event) {
    let data = payload(came).unwrap_or_default();
    assert_eq!(payload(answer), Some(data), "{came:?}");
    assert_eq!(answer.r#type, came.r#type);
    for (name, value) in came.attributes.iter().filter(|(name, _)| !NOT_OF_OUTPUTS.contains(&name.as_str())) {
        let text = Some(value.to_string()).filter(|text| !text.is_empty());
        assert_eq!(answer.attributes.get(name).map(ToString::to_string), text, "{name} of {came:?}");
    }
}

/// What of an event is the same in every format of CloudEvents: of the value of an attribute, its text.
pub fn canonical(event: &Event) -> (String, String, String, Vec<(String, String)>, Option<Bytes>) {
    let attributes = event.attributes.iter().map(|(name, value)| (name.clone(), value.to_string()));
    (event.id.clone(), event.source.clone(), event.r#type.clone(), attributes.collect(), payload(event))
}
