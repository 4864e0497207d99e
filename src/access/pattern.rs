//! Patterns of full names.
//!
//! Promises: `*` stands for any characters of one of the two parts of a name, and a pattern matches a name from its
//! first to its last character or not at all.

use super::bounds::{PATTERN_BYTES_MAX, RESOURCE_BYTES_MAX};

/// A pattern of full names: `shop/orders`, `shop/*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    namespace: Segment,
    name: Segment,
}

/// A pattern of one part of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Any,
    Exact(Box<str>),
    /// Its texts before, between and after each `*`.
    Wild {
        first: Box<str>,
        middle: Box<[Box<str>]>,
        last: Box<str>,
    },
}

/// Why a text is no pattern, and how to write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PatternError {
    pub(super) message: String,
    pub(super) help: String,
}

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Self, PatternError> {
        let error = |message: String, help: &str| Err(PatternError { message, help: help.to_owned() });
        if text.len() > PATTERN_BYTES_MAX {
            let message = format!("this pattern has {} bytes, at most {PATTERN_BYTES_MAX} are possible", text.len());
            return error(message, "shorten it");
        }
        let Some((namespace, name)) = text.split_once('/') else {
            let full = if text == "*" { "*/*" } else { &format!("NAMESPACE/{text}") };
            return error(format!("`{text}` is not a full name"), &format!("write `{full}`"));
        };
        let rule = "a pattern is `NAMESPACE/NAME`, where `*` stands for any characters of one of the two";
        if namespace.is_empty() || name.is_empty() {
            return error(format!("`{text}` lacks the part on one side of the `/`"), rule);
        }
        let is_allowed = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || "._-@*".contains(char);
        if let Some(char) = namespace.chars().chain(name.chars()).find(|char| !is_allowed(*char)) {
            return error(format!("a pattern cannot have `{}`", char.escape_debug()), rule);
        }
        if text.contains("**") {
            return error(format!("`{text}` has two `*` in a row, which mean no more than one"), rule);
        }
        Ok(Self { namespace: Segment::parse(namespace), name: Segment::parse(name) })
    }

    /// Whether it matches a full name.
    pub(super) fn matches(&self, full: &str) -> bool {
        if full.len() > RESOURCE_BYTES_MAX {
            return false;
        }
        let parts = full.split_once('/').filter(|(_, name)| !name.contains('/'));
        parts.is_some_and(|(namespace, name)| self.namespace.matches(namespace) && self.name.matches(name))
    }

    /// Whether it matches each name that a namespace can have.
    pub(super) fn matches_all_of(&self, namespace: &str) -> bool {
        let is_name = namespace.len() <= RESOURCE_BYTES_MAX && !namespace.contains('/');
        self.is_of_namespaces() && is_name && self.namespace.matches(namespace)
    }

    /// Whether it matches each name of the namespaces that it matches.
    pub(super) fn is_of_namespaces(&self) -> bool {
        self.name == Segment::Any
    }
}

impl Segment {
    fn parse(text: &str) -> Self {
        if text == "*" {
            return Self::Any;
        }
        let parts: Vec<Box<str>> = text.split('*').map(Box::from).collect();
        match parts.as_slice() {
            [first, middle @ .., last] => {
                Self::Wild { first: first.clone(), middle: middle.into(), last: last.clone() }
            }
            _ => Self::Exact(text.into()),
        }
    }

    fn matches(&self, text: &str) -> bool {
        match self {
            // There is no empty name.
            Self::Any => !text.is_empty(),
            Self::Exact(exact) => **exact == *text,
            Self::Wild { first, middle, last } => {
                let Some(mut rest) = text.strip_prefix(&**first).and_then(|rest| rest.strip_suffix(&**last)) else {
                    return false;
                };
                // The first place of each text leaves the most room for the next: no other has to be tried.
                for part in middle {
                    let Some((_, after)) = rest.split_once(&**part) else { return false };
                    rest = after;
                }
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Pattern::parse(pattern).unwrap().matches(name)
    }

    #[test]
    fn a_star_stands_for_characters_of_one_part() {
        for (pattern, name) in [
            ("shop/orders", "shop/orders"),
            ("shop/*", "shop/orders"),
            ("*/*", "shop/orders"),
            ("shop-*/orders", "shop-eu/orders"),
            ("shop/order*", "shop/order"),
            ("shop/*.accepted", "shop/orders.accepted"),
            ("shop/a*b*c", "shop/abbc"),
            ("shop/a*aa", "shop/aaa"),
            ("shop/*@delayed", "shop/orders@delayed"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("shop/*", "shop/"),
            ("shop/*", "shop"),
            ("shop/*", "shop/orders/more"),
            ("*/*", "a/b/c"),
            ("*/orders", "/orders"),
            ("shop*", "shop/orders"),
            ("shop/a*aa", "shop/aa"),
            ("shop/a*b*c", "shop/acb"),
            ("shop/*.accepted", "shop/orders.accepted2"),
            ("shop/Orders", "shop/orders"),
        ]
        .into_iter()
        .filter(|(pattern, _)| Pattern::parse(pattern).is_ok())
        {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn what_names_no_full_name_is_no_pattern() {
        for text in ["", "orders", "*", "/orders", "shop/", "shop/a/b", "shop/**", "Shop/x", "shop/a b", "shop/${x}"] {
            assert!(Pattern::parse(text).is_err(), "{text}");
        }
        assert!(Pattern::parse(&format!("a/{}", "x".repeat(254))).is_err());
        assert_eq!(Pattern::parse("*").unwrap_err().help, "write `*/*`");
        assert_eq!(Pattern::parse("orders").unwrap_err().help, "write `NAMESPACE/orders`");
    }

    #[test]
    fn only_a_pattern_of_all_names_is_for_the_whole_namespace() {
        let all_of = |pattern: &str, namespace: &str| Pattern::parse(pattern).unwrap().matches_all_of(namespace);
        assert!(all_of("shop/*", "shop") && all_of("*/*", "shop") && all_of("sh*/*", "shop"));
        assert!(!all_of("shop/o*", "shop") && !all_of("shop/*", "shops") && !all_of("shop/*", "sho"));
        assert!(!all_of("*/*", "") && !all_of("*/*", "a/b"));
    }

    #[test]
    fn a_name_of_any_length_is_compared_in_bounded_time() {
        let long = format!("shop/{}", "a".repeat(8 << 20));
        assert!(!matches("shop/*", &long));
    }

    /// The same rule, written as a regular expression.
    fn expression(pattern: &str) -> regex::Regex {
        let part = |part: &str| match part {
            "*" => "[^/]+".to_owned(),
            part => part.split('*').map(regex::escape).collect::<Vec<_>>().join("[^/]*"),
        };
        let (namespace, name) = pattern.split_once('/').unwrap();
        regex::Regex::new(&format!(r"\A{}/{}\z", part(namespace), part(name))).unwrap()
    }

    proptest! {
        #[test]
        fn a_pattern_matches_what_its_regular_expression_does(
            pattern in r"[ab*]{1,5}/[ab.*]{1,6}",
            name in r"[ab]{0,5}/[ab.]{0,6}(/a)?",
        ) {
            if let Ok(parsed) = Pattern::parse(&pattern) {
                prop_assert_eq!(parsed.matches(&name), expression(&pattern).is_match(&name));
            }
        }

        #[test]
        fn a_name_one_character_longer_or_shorter_is_another_name(
            namespace in "[a-z0-9][a-z0-9._-]{0,8}",
            name in "[a-z0-9][a-z0-9._-]{0,8}",
            other in "[a-z0-9._@-]",
            at in any::<prop::sample::Index>(),
        ) {
            let full = format!("{namespace}/{name}");
            let pattern = Pattern::parse(&full).unwrap();
            prop_assert!(pattern.matches(&full));
            let at = at.index(full.len() + 1);
            let mut longer = full.clone();
            longer.insert_str(at, &other);
            prop_assert!(!pattern.matches(&longer), "{}", longer);
            if at < full.len() {
                let mut shorter = full.clone();
                shorter.remove(at);
                prop_assert!(!pattern.matches(&shorter), "{}", shorter);
            }
        }

        #[test]
        fn what_stands_around_a_star_is_needed_to_its_last_character(
            prefix in "[a-z]{1,5}",
            suffix in "[a-z]{1,5}",
            inside in "[0-9]{0,5}",
        ) {
            let pattern = Pattern::parse(&format!("n/{prefix}*{suffix}")).unwrap();
            let matched = format!("n/{prefix}{inside}{suffix}");
            let longer = format!("n/{prefix}{inside}{suffix}0");
            prop_assert!(pattern.matches(&matched));
            prop_assert!(!pattern.matches(&longer));
            prop_assert!(!pattern.matches(&longer[..longer.len() - 2]));
            let elsewhere = format!("n/0{prefix}{inside}{suffix}");
            prop_assert!(!pattern.matches(&elsewhere));
        }
    }
}
