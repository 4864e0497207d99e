//! Removes positions in the data from failure reasons.

/// Words with which parsers introduce a position. Positions differ per event although the reason is the same.
const PLACES: [&str; 9] = ["line", "column", "col", "char", "character", "position", "offset", "byte", "pos"];

/// A reason with `N` instead of each position.
pub(super) fn without_positions(reason: &str) -> String {
    let mut without = String::with_capacity(reason.len());
    let (mut rest, mut is_place) = (reason, false);
    while let Some(first) = rest.chars().next() {
        let is_same = |c: char| match first.is_ascii_digit() {
            true => c.is_ascii_digit(),
            false => first.is_alphabetic() == c.is_alphabetic() && !c.is_ascii_digit(),
        };
        let (run, behind) = rest.split_at(rest.find(|c| !is_same(c)).unwrap_or(rest.len()));
        match first.is_ascii_digit() && is_place {
            true => without.push('N'),
            false => without.push_str(run),
        }
        // a space, a colon or both separate the word from the number
        is_place = PLACES.contains(&run.to_ascii_lowercase().as_str())
            || is_place && matches!(run, " " | ": " | ":" | "=" | " #");
        rest = behind;
    }
    without
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_the_same_wherever_in_the_data_it_is() {
        for (reason, without) in [
            ("missing field `a` at line 1 column 57", "missing field `a` at line N column N"),
            ("Expecting value: line 1 column 5 (char 4)", "Expecting value: line N column N (char N)"),
            ("Unexpected token } in JSON at position 57", "Unexpected token } in JSON at position N"),
            ("invalid byte at offset: 12", "invalid byte at offset: N"),
            ("HTTP 404 of order 17 after 3 s", "HTTP 404 of order 17 after 3 s"),
            ("panicked at src/lib.rs:12:5: é", "panicked at src/lib.rs:12:5: é"),
            ("", ""),
        ] {
            assert_eq!(without_positions(reason), without);
        }
    }
}
