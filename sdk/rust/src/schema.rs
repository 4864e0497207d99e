//! The JSON Schema of a configuration, put together while the plugin is compiled: the macro [`config!`](crate::config!)
//! says of which pieces.

/// A piece of it.
#[doc(hidden)]
pub enum Piece {
    /// Text as it is.
    Raw(&'static str),
    /// Begins the schema of a setting of this name.
    Name(&'static str),
    /// Its description, if there is one, as comments have it: each line begins with a space.
    About(&'static str),
    /// Its default, if there is one.
    Default { is_text: bool, text: &'static [&'static str] },
    /// A text in a list.
    Item { is_there: bool, text: &'static str },
}

/// Bytes of the schema.
#[doc(hidden)]
pub const fn length(pieces: &[Piece]) -> usize {
    write(pieces, &mut [])
}

/// The schema, which has [`length`] bytes.
#[doc(hidden)]
pub const fn json<const BYTES: usize>(pieces: &[Piece]) -> [u8; BYTES] {
    let mut json = [b' '; BYTES];
    write(pieces, &mut json);
    json
}

/// Where in it the next byte goes, and what the last one was.
struct End {
    at: usize,
    last: u8,
}

/// Writes as much as there is room for. How many bytes it would have.
const fn write(pieces: &[Piece], json: &mut [u8]) -> usize {
    let mut end = End { at: 0, last: 0 };
    let mut next = 0;
    while next < pieces.len() {
        match &pieces[next] {
            Piece::Raw(text) => raw(text, json, &mut end),
            Piece::Name(name) => {
                comma(json, &mut end);
                quoted(name, json, &mut end);
                raw(":{", json, &mut end);
            }
            Piece::About(text) if text.len() > 1 => {
                raw(",\"description\":", json, &mut end);
                quoted(about(text), json, &mut end);
            }
            Piece::Default { is_text, text: [text] } => {
                raw(",\"default\":", json, &mut end);
                if *is_text { quoted(text, json, &mut end) } else { raw(text, json, &mut end) }
            }
            Piece::Item { is_there: true, text } => {
                comma(json, &mut end);
                quoted(text, json, &mut end);
            }
            Piece::About(_) | Piece::Default { .. } | Piece::Item { .. } => {}
        }
        next += 1;
    }
    end.at
}

/// Without the space before the first line and the end of the last.
const fn about(text: &str) -> &str {
    let (_, text) = text.split_at(if text.as_bytes()[0] == b' ' { 1 } else { 0 });
    text.split_at(text.len() - 1).0
}

const fn put(byte: u8, json: &mut [u8], end: &mut End) {
    if end.at < json.len() {
        json[end.at] = byte;
    }
    end.at += 1;
    end.last = byte;
}

const fn raw(text: &str, json: &mut [u8], end: &mut End) {
    let mut at = 0;
    while at < text.len() {
        put(text.as_bytes()[at], json, end);
        at += 1;
    }
}

/// Before what is not the first in a list.
const fn comma(json: &mut [u8], end: &mut End) {
    if end.last != b'{' && end.last != b'[' {
        put(b',', json, end);
    }
}

const fn quoted(text: &str, json: &mut [u8], end: &mut End) {
    const DIGITS: &[u8] = b"0123456789abcdef";
    put(b'"', json, end);
    let mut at = 0;
    while at < text.len() {
        match text.as_bytes()[at] {
            byte @ (b'"' | b'\\') => {
                put(b'\\', json, end);
                put(byte, json, end);
            }
            byte @ 0..=0x1f => {
                raw("\\u00", json, end);
                put(DIGITS[byte as usize / 16], json, end);
                put(DIGITS[byte as usize % 16], json, end);
            }
            byte => put(byte, json, end),
        }
        at += 1;
    }
    put(b'"', json, end);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_become_one_json_text() {
        const PIECES: &[Piece] = &[
            Piece::Raw("{\"a\":1"),
            Piece::About(" All \"of\" it.\n Two lines.\n"),
            Piece::Raw(",\"p\":{"),
            Piece::Name("word"),
            Piece::Raw("\"type\":\"string\""),
            Piece::About(""),
            Piece::Default { is_text: true, text: &["a\\\tb"] },
            Piece::Raw("}"),
            Piece::Name("times"),
            Piece::Raw("\"type\":\"integer\""),
            Piece::Default { is_text: false, text: &["7"] },
            Piece::Raw("}"),
            Piece::Raw("},\"r\":["),
            Piece::Item { is_there: false, text: "no" },
            Piece::Item { is_there: true, text: "x" },
            Piece::Item { is_there: true, text: "y" },
            Piece::Raw("]}"),
        ];
        const JSON: [u8; length(PIECES)] = json(PIECES);
        let expected = r#"{"a":1,"description":"All \"of\" it.\u000a Two lines.","p":{"word":{"type":"string","default":"a\\\u0009b"},"times":{"type":"integer","default":7}},"r":["x","y"]}"#;
        assert_eq!(std::str::from_utf8(&JSON).unwrap(), expected);
    }
}
