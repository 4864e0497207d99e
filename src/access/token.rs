//! Tokens: `wtl_ID_SECRET`, their form, their hashes, and new ones.
//!
//! Promises: a token is hashed only if it has the form of one; no type that holds a secret can be printed, and each is
//! zeroed when it is dropped. Relies on the caller for random bytes.

use std::borrow::Cow;
use std::fmt::Write as _;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use zeroize::Zeroizing;

use super::bounds::JWT_BYTES_MAX;
use super::error::CredentialsError;

/// The beginning of each token, by which scanners for secrets find them.
pub(super) const PREFIX: &str = "wtl_";
/// Digits of the public part, which tells tokens apart for people.
const ID_DIGITS: std::ops::RangeInclusive<usize> = 8..=32;
/// Digits of the secret part: 256 bits.
const SECRET_DIGITS: usize = 64;

/// The SHA-256 of a text. It takes as long to guess the text from it as to guess the text, which has 256 random bits:
/// a slow hash would only be more work for the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TokenHash(pub(super) [u8; 32]);

impl TokenHash {
    pub(super) fn of(text: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, text).as_ref());
        Self(bytes)
    }

    /// Reads 64 digits.
    pub(super) fn parse(hex: &str) -> Option<Self> {
        let digits: Vec<u8> =
            hex.chars().map(|digit| digit.to_digit(16).map(|digit| digit as u8)).collect::<Option<_>>()?;
        let (pairs, []) = digits.as_chunks::<2>() else { return None };
        let bytes: Vec<u8> = pairs.iter().map(|[high, low]| high << 4 | low).collect();
        bytes.try_into().ok().map(Self)
    }

    /// Compares in a time that does not depend on where the two differ.
    pub(super) fn is(&self, other: &Self) -> bool {
        verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

/// The token in the value of a header `authorization`.
pub(super) fn bearer(value: &[u8]) -> Result<&[u8], CredentialsError> {
    // The characters of RFC 6750 without the padding of base64, which neither kind of token has.
    let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(byte);
    let at = value.iter().position(|byte| *byte == b' ').ok_or(CredentialsError::Malformed)?;
    let (scheme, token) = value.split_at(at);
    let token = token.get(1..).filter(|token| !token.is_empty() && token.len() <= JWT_BYTES_MAX);
    let token = token.filter(|token| scheme.eq_ignore_ascii_case(b"bearer") && token.iter().all(is_allowed));
    token.ok_or(CredentialsError::Malformed)
}

/// Whether a text has the form of a token.
pub(super) fn is_token(text: &[u8]) -> bool {
    let Some((id, secret)) = text.strip_prefix(PREFIX.as_bytes()).and_then(|rest| {
        let at = rest.iter().take(ID_DIGITS.end() + 1).position(|byte| *byte == b'_')?;
        Some((rest.get(..at)?, rest.get(at + 1..)?))
    }) else {
        return false;
    };
    let is_digits = |part: &[u8]| part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    ID_DIGITS.contains(&id.len()) && secret.len() == SECRET_DIGITS && is_digits(id) && is_digits(secret)
}

/// A text with a `*` for each character of the tokens in it, so that places in it stay where they are.
pub(super) fn mask(text: &str) -> Cow<'_, str> {
    let mut masked = Cow::Borrowed(text);
    for (prefix, is_inside, shortest) in MASKS {
        let mut from = 0;
        while let Some(at) = masked.get(from..).and_then(|rest| rest.find(prefix)).map(|at| from + at) {
            let begin = at + prefix.len();
            let rest = masked.get(begin..).unwrap_or_default();
            let length = rest.bytes().take_while(|byte| is_inside(*byte)).count();
            if length >= shortest {
                masked.to_mut().replace_range(begin..begin + length, &"*".repeat(length));
            }
            from = begin + length;
        }
    }
    masked
}

type Mask = (&'static str, fn(u8) -> bool, usize);

/// The beginnings of tokens and of JWT, which characters follow them, and how many at least.
const MASKS: [Mask; 2] = [
    (PREFIX, |byte| byte.is_ascii_alphanumeric() || byte == b'_', 24),
    ("eyJ", |byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte), 24),
];

/// A secret text: it cannot be printed by mistake, and is zeroed when it is dropped.
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// The text, for the one place that shows it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

/// A token that no principal has yet.
pub struct NewToken {
    text: Secret,
    id: String,
    hash: TokenHash,
}

impl NewToken {
    /// Random bytes that a token needs.
    pub const RANDOM_BYTES: usize = 4 + 32;

    /// A token of random bytes of a cryptographic source.
    pub fn from_random(random: &Zeroizing<[u8; Self::RANDOM_BYTES]>) -> Self {
        let (id, secret) = random.split_at(4);
        let id = hex(id);
        // As long as it will be, so that no copy stays behind when it grows.
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + id.len() + 1 + SECRET_DIGITS));
        text.push_str(PREFIX);
        text.push_str(&id);
        text.push('_');
        push_hex(&mut text, secret);
        let hash = TokenHash::of(text.as_bytes());
        Self { text: Secret(text), id, hash }
    }

    /// The token itself.
    pub fn text(&self) -> &Secret {
        &self.text
    }

    /// The beginning of the token, which is no secret, up to its second `_`.
    pub fn id(&self) -> String {
        format!("{PREFIX}{}", self.id)
    }

    /// What an access file has of it: `sha256:…`.
    pub fn hash(&self) -> String {
        format!("{HASH_PREFIX}{}", hex(&self.hash.0))
    }
}

/// What stands before the digits of a hash.
pub(super) const HASH_PREFIX: &str = "sha256:";

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    push_hex(&mut text, bytes);
    text
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let _ = write!(text, "{byte:02x}"); // a `String` takes all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> NewToken {
        NewToken::from_random(&Zeroizing::new(std::array::from_fn(|at| at as u8)))
    }

    #[test]
    fn a_new_token_has_the_form_of_tokens_and_its_hash() {
        let token = token();
        let text = token.text().reveal();
        assert_eq!(text, format!("wtl_00010203_{}", &hex(&std::array::from_fn::<u8, 36, _>(|at| at as u8))[8..]));
        assert!(is_token(text.as_bytes()));
        assert_eq!(token.id(), "wtl_00010203");
        let hash = token.hash();
        let hash = TokenHash::parse(hash.strip_prefix("sha256:").unwrap()).unwrap();
        assert!(hash.is(&TokenHash::of(text.as_bytes())));
        assert!(!hash.is(&TokenHash::of(b"another")));
    }

    #[test]
    fn other_texts_have_not_the_form_of_tokens() {
        let token = token();
        let good = token.text().reveal();
        let secret = &good[13..];
        let too_short = format!("wtl_0001020_{secret}");
        let too_long = format!("wtl_{}_{secret}", "0".repeat(33));
        for bad in [
            "",
            "wtl_",
            "wtl__",
            &good[..good.len() - 1],
            &format!("{good}0"),
            &good.to_uppercase(),
            &good.replace("wtl_", "wtl-"),
            &good.replace("0203_", "0203-"),
            &format!(" {good}"),
            &good.replace('f', "g"),
            &too_short,
            &too_long,
        ] {
            assert!(!is_token(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn only_one_form_of_the_header_has_a_token() {
        for good in ["Bearer abc.d-e_f", "bearer abc.d-e_f", "BEARER abc.d-e_f"] {
            assert_eq!(bearer(good.as_bytes()), Ok(b"abc.d-e_f".as_slice()), "{good}");
        }
        let long = format!("Bearer {}", "a".repeat(JWT_BYTES_MAX + 1));
        for bad in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer  abc",
            " Bearer abc",
            "Bearer abc ",
            "Bearer\tabc",
            "Bearer abc\0",
            "Bearer abc=",
            "Bearer abc,def",
            "Basic abc",
            "Bearerabc",
            "abc",
            "Bearer a b",
            "Bearer ä",
            &long,
        ] {
            assert_eq!(bearer(bad.as_bytes()), Err(CredentialsError::Malformed), "{bad:?}");
        }
    }

    #[test]
    fn tokens_in_a_text_are_masked_and_nothing_moves() {
        let token = token();
        let jwt = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl";
        let text = format!("a: {}\nb: [wtl_short, {jwt}] # {}\nc: ä", token.text().reveal(), token.text().reveal());
        let masked = mask(&text);
        assert_eq!(masked.len(), text.len());
        assert!(!masked.contains(&token.text().reveal()[4..]) && !masked.contains(&jwt[3..]), "{masked}");
        assert!(masked.contains("b: [wtl_short, eyJ***") && masked.ends_with("c: ä"), "{masked}");
        let without = format!("token: {}", token.hash());
        assert_eq!(mask(&without), without);
    }
}
