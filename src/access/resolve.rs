//! From what an access file says to its rules, with names looked up.
//!
//! Promises: every problem with names, credentials and rights is reported, each with its place and what to do. Knows
//! nothing of YAML.

use std::collections::HashMap;
use std::sync::Arc;

use jsonwebtoken::Algorithm;

use super::bounds::{
    CLAIMS_MAX, CREDENTIALS_MAX, ISSUERS_MAX, KEYS_BYTES_MAX, PATTERNS_MAX, PRINCIPALS_MAX, RULES_MAX,
};
use super::cache::Cache;
use super::files::Files;
use super::identity::{ANONYMOUS, FileMark, Identity, PrincipalIndex};
use super::jwt::Issuer;
use super::keyset::{KeySet, PublicKey};
use super::pattern::Pattern;
use super::raw;
use super::right::{Kind, Verb, Verbs};
use super::rules::{Access, ClaimedPrincipal, Principal, PrincipalLimits, Rule};
use super::token::TokenHash;
use super::values::{CertificateName, Items, PlainText};
use crate::topology::diagnostic::{Code, Diagnostic, Span};
use crate::topology::one_or_more::OneOrMore;
use crate::topology::reader::{Field, Key, Reader};
use crate::topology::values::{List, NamedTable, Table};

/// What to do about a file that asks for too much work.
pub(super) const SHORTER: &str =
    "give several callers one principal, and name topics and subscribers by patterns such as `shop/*`";

/// The value of a key that is there and was read.
fn value<T>(field: &Key<T>) -> Option<&T> {
    field.as_ref()?.value.as_ref()
}

/// The items of a list that may not be there.
fn items<T>(field: &Key<Items<T>>) -> &[(Span, T)] {
    value(field).map_or(&[], |items| &items.read)
}

/// Whether there is more in a list than could be read.
fn has_unread<T>(field: &Key<Items<T>>) -> bool {
    field.as_ref().is_some_and(|field| field.value.as_ref().is_none_or(|items| items.has_unread))
}

/// The same of a key with one value or a list.
fn one_or_more<T>(field: &Key<OneOrMore<T>>) -> &[(Span, T)] {
    value(field).map_or(&[], |OneOrMore(items)| items)
}

/// The entries of a table that may not be there.
fn entries<T>(field: &Key<NamedTable<T>>) -> &[(String, Field<T>)] {
    value(field).map_or(&[], |NamedTable(entries)| entries)
}

/// Looks names up, and collects what the rules are made of.
pub(super) struct Resolver<'r, 'c, 'f> {
    reader: &'r mut Reader<'c>,
    files: &'f dyn Files,
    access: Access,
    /// Positions of the principals by name, with that of the caller without credentials.
    principals: HashMap<String, PrincipalIndex>,
    /// Where credentials are that a principal has.
    tokens: HashMap<TokenHash, Span>,
    certificates: HashMap<CertificateName, Span>,
}

impl<'r, 'c, 'f> Resolver<'r, 'c, 'f> {
    pub(super) fn new(reader: &'r mut Reader<'c>, files: &'f dyn Files) -> Self {
        let mark = FileMark::default();
        let access = Access {
            mark,
            principals: Vec::new(),
            rules: Vec::new(),
            tokens: HashMap::new(),
            uris: HashMap::new(),
            dns: HashMap::new(),
            issuers: Vec::new(),
            claims: Vec::new(),
            cache: Cache::default(),
        };
        let (principals, tokens, certificates) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { reader, files, access, principals, tokens, certificates }
    }

    /// The rules, unless something was reported.
    pub(super) fn resolve(mut self, file: &raw::AccessFile, top: Span) -> Access {
        let issuers = self.at_most(entries(&file.issuers), ISSUERS_MAX, "issuers", |(_, field)| field.key);
        issuers.iter().for_each(|(name, field)| self.issuer(name, field));
        let principals = self.at_most(entries(&file.principals), PRINCIPALS_MAX, "principals", |(_, field)| field.key);
        let identity = Identity::anonymous(&self.access.mark, PrincipalIndex(0));
        self.add(ANONYMOUS, identity, None);
        for (name, field) in principals {
            self.principal(name, field, file);
        }
        let rules = value(&file.rules).map_or(&[][..], |List(rules)| rules);
        let rules = self.at_most(rules, RULES_MAX, "rules", |(span, _)| *span);
        let mut patterns = 0;
        for (span, rule) in rules {
            patterns += items(&rule.topics).len() + items(&rule.subscribers).len();
            if patterns > PATTERNS_MAX {
                let message = format!("the rules have more than {PATTERNS_MAX} patterns");
                let many = Diagnostic::error(Code::TooLarge, *span, "more with this rule", message);
                self.reader.report(many.help(SHORTER));
                break;
            }
            self.rule(*span, rule);
        }
        for (name, field) in entries(&file.limits) {
            let Some(index) = self.look_up(name, field.key) else { continue };
            let Some(limits) = &field.value else { continue };
            if let Some(principal) = self.access.principals.get_mut(index.0 as usize) {
                principal.limits = PrincipalLimits {
                    connections: value(&limits.connections).map(|count| count.0),
                    publish_bytes_per_s: value(&limits.publish).map(|rate| rate.0),
                    in_flight_bytes: value(&limits.in_flight).map(|size| size.0),
                };
            }
        }
        self.warn_of_unused(file, top);
        self.access
    }

    /// The first of a list, and a report if there are more.
    fn at_most<'l, T>(&mut self, list: &'l [T], max: usize, what: &str, span: impl Fn(&T) -> Span) -> &'l [T] {
        let (taken, rest) = list.split_at(max.min(list.len()));
        if let Some(next) = rest.first() {
            let message = format!("this file has {} {what}, at most {max} are possible", list.len());
            let many = Diagnostic::error(Code::TooLarge, span(next), "one too many", message);
            self.reader.report(many.help(SHORTER));
        }
        taken
    }

    fn bad(&mut self, span: Span, message: impl Into<String>, help: impl Into<String>) {
        self.reader.bad::<()>(span, message, help);
    }

    fn warn(&mut self, span: Span, label: &str, message: String, help: &str) {
        self.reader.report(Diagnostic::warning(Code::BadValue, span, label, message).help(help));
    }

    fn issuer(&mut self, name: &str, field: &Field<raw::IssuerKeys>) {
        let Some(keys) = &field.value else { return };
        let algorithms: Vec<Algorithm> =
            items(&keys.algorithms).iter().map(|(_, signing)| algorithm(signing.0)).collect();
        let (Some(issuer), Some(audience), Some(path)) = (&keys.issuer, value(&keys.audience), keys.keys.as_ref())
        else {
            return;
        };
        let (Some(PlainText(text)), Some(file)) = (&issuer.value, &path.value) else { return };
        if self.access.issuers.iter().any(|other| other.issuer == *text) {
            let message = "two issuers have the same `iss`, so that it does not say which keys count";
            return self.bad(issuer.span, message, "remove one of the two");
        }
        let shown = file.0.display();
        let help = "name a file with the public keys of the issuer: a JSON Web Key Set, as its `jwks_uri` gives it";
        let set = match self.files.text(&file.0, KEYS_BYTES_MAX) {
            Ok(set) => KeySet::parse(&set).map_err(|error| format!("`{shown}` {error}")),
            Err(why) => Err(format!("`{shown}` cannot be read: {why}")),
        };
        let set = match set {
            Ok(set) => set,
            Err(message) => return self.bad(path.span, message, help),
        };
        if set.has_secret {
            let message = format!("`{shown}` has a private or shared key");
            self.warn(path.span, "not only public keys", message, "only public keys are needed: keep the others away");
        }
        let public = set.fitting(&algorithms);
        if public.is_empty() && !algorithms.is_empty() {
            let message = format!("`{shown}` has no key for any of `algorithms`");
            self.bad(path.span, message, "look at `kty`, `crv`, `alg` and `use` of its keys");
        }
        let overlaps = |(at, key): (usize, &PublicKey)| {
            let before = public.iter().take(at).filter(|other| key.id.is_some() && other.id == key.id);
            before.flat_map(|other| &other.algorithms).any(|algorithm| key.algorithms.contains(algorithm))
        };
        if public.iter().enumerate().any(overlaps) {
            let message = format!("`{shown}` has two keys of one name (`kid`) for the same algorithm");
            self.bad(path.span, message, "give each key a name of its own");
        }
        if public.len() > 1 && public.iter().any(|key| key.id.is_none()) {
            let message = format!("`{shown}` has several keys, and one of them has no name");
            let help = "give each key a name (`kid`): tokens say with it which key they were signed with";
            self.warn(path.span, "this key is never used", message, help);
        }
        self.access.issuers.push(Issuer::new(name, text, &audience.0, algorithms, public));
    }

    /// Adds a principal to those that names refer to.
    fn add(&mut self, name: &str, identity: Identity, expires_s: Option<u64>) {
        self.principals.insert(name.to_owned(), PrincipalIndex(self.access.principals.len() as u32));
        let (rules, limits) = (Vec::new(), PrincipalLimits::default());
        self.access.principals.push(Principal { name: name.into(), identity, expires_s, rules, limits });
    }

    fn principal(&mut self, name: &str, field: &Field<raw::PrincipalKeys>, file: &raw::AccessFile) {
        if name == ANONYMOUS {
            let message = "`anonymous` is the caller without credentials, which is always there";
            let help = "remove it here; rules and limits can name it";
            return self.bad(field.key, message, help);
        }
        let index = PrincipalIndex(self.access.principals.len() as u32);
        let expires_s = field.value.as_ref().and_then(|keys| value(&keys.expires)).map(|expiry| expiry.0);
        let shared: Arc<str> = name.into();
        let identity = Identity::new(&self.access.mark, name.to_owned(), vec![(index, shared)], expires_s);
        self.add(name, identity, expires_s);
        // What could not be read was reported.
        let Some(keys) = &field.value else { return };
        if keys.token.is_none() && keys.certificate.is_none() && keys.issuer.is_none() && keys.claim.is_none() {
            let message = format!("`{name}` has no credentials, so that no caller is ever it");
            let missing = Diagnostic::error(Code::MissingKey, field.key, "by what?", message);
            let help = "give it a `token` (`wattle token new`), a `certificate`, or an `issuer` with a `claim`";
            self.reader.report(missing.help(help));
        }
        let tokens =
            self.at_most(one_or_more(&keys.token), CREDENTIALS_MAX, "tokens of one principal", |(span, _)| *span);
        for (span, hash) in tokens {
            match self.tokens.insert(*hash, *span) {
                Some(first) => self.twice("token", *span, first),
                None => drop(self.access.tokens.insert(*hash, (*hash, index))),
            }
        }
        let certificates = one_or_more(&keys.certificate);
        let what = "certificates of one principal";
        for (span, name) in self.at_most(certificates, CREDENTIALS_MAX, what, |(span, _)| *span) {
            if let Some(first) = self.certificates.insert(name.clone(), *span) {
                self.twice("certificate", *span, first);
                continue;
            }
            match name {
                CertificateName::Uri(uri) => self.access.uris.insert(uri.clone(), index),
                CertificateName::Dns(name) => self.access.dns.insert(name.clone(), index),
            };
        }
        self.claims(index, keys, file);
    }

    fn twice(&mut self, what: &str, again: Span, first: Span) {
        let message = format!("this {what} is there twice, so that it does not say who the caller is");
        let duplicate = Diagnostic::error(Code::DuplicateName, again, "again here", message);
        self.reader.report(duplicate.label(first, "first here").help("give each principal its own"));
    }

    fn claims(&mut self, index: PrincipalIndex, keys: &raw::PrincipalKeys, file: &raw::AccessFile) {
        let (issuer, claim) = match (&keys.issuer, &keys.claim) {
            (Some(issuer), Some(claim)) => (issuer, claim),
            (Some(issuer), None) => {
                let message = "`issuer` alone would make each caller with a token of the issuer this principal";
                let missing = Diagnostic::error(Code::MissingKey, issuer.key, "`claim` is missing", message);
                return self.reader.report(missing.help("say which of them: `claim: { groups: NAME }`"));
            }
            (None, Some(claim)) => {
                let missing =
                    Diagnostic::error(Code::MissingKey, claim.key, "`issuer` is missing", "whose claim is this?");
                return self.reader.report(missing.help("add `issuer`: the name of an issuer in this file"));
            }
            (None, None) => return,
        };
        if let Some(Table(claims)) = &claim.value {
            if claims.is_empty() {
                let message = "without a claim, each caller with a token of the issuer would be this principal";
                self.bad(claim.span, message, "say which of them: `claim: { groups: NAME }`");
            }
            self.at_most(claims, CLAIMS_MAX, "claims of one principal", |(_, field)| field.key);
        }
        let Some(PlainText(name)) = &issuer.value else { return };
        let declared = entries(&file.issuers);
        if !declared.iter().any(|(declared, _)| declared == name) {
            let names = declared.iter().map(|(declared, _)| declared.as_str());
            let help = match self.reader.nearest(name, names) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "declare it under `issuers`".to_owned(),
            };
            return self.bad(issuer.span, format!("there is no issuer `{name}` in this file"), help);
        }
        let Some(position) = self.access.issuers.iter().position(|issuer| issuer.name == *name) else { return };
        let claims = claim.value.iter().flat_map(|Table(claims)| claims);
        let claims = claims.filter_map(|(name, field)| Some((name.clone(), field.value.as_ref()?.0.clone())));
        let claims = claims.collect();
        self.access.claims.push(ClaimedPrincipal { principal: index, issuer: position, claims });
    }

    /// The principal of a name.
    fn look_up(&mut self, name: &str, span: Span) -> Option<PrincipalIndex> {
        if let Some(index) = self.principals.get(name) {
            return Some(*index);
        }
        let known = self.principals.keys().map(String::as_str);
        let help = match self.reader.nearest(name, known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "declare it under `principals`".to_owned(),
        };
        let shown = name.escape_debug();
        self.bad(span, format!("there is no principal `{shown}` in this file"), help);
        None
    }

    fn rule(&mut self, span: Span, keys: &raw::RuleKeys) {
        let index = self.access.rules.len() as u32;
        for (span, PlainText(name)) in items(&keys.who) {
            let Some(principal) = self.look_up(name, *span) else { continue };
            if let Some(principal) = self.access.principals.get_mut(principal.0 as usize)
                && principal.rules.last() != Some(&index)
            {
                principal.rules.push(index);
            }
        }
        let patterns = |list: &Key<Items<Pattern>>| items(list).iter().map(|(_, pattern)| pattern.clone()).collect();
        let bus = value(&keys.bus).is_some_and(|flag| flag.0);
        let (topics, subscribers) = (patterns(&keys.topics), patterns(&keys.subscribers));
        let mut rule = Rule { verbs: Verbs::default(), topics, subscribers, bus };
        // What could not be read was reported: the rule may be for it.
        let is_written = |kind: Kind| match kind {
            Kind::Topics => keys.topics.is_some(),
            Kind::Subscribers => keys.subscribers.is_some(),
            Kind::Namespaces => {
                let mut all = rule.topics.iter().chain(&rule.subscribers);
                all.any(Pattern::is_of_namespaces) || has_unread(&keys.topics) || has_unread(&keys.subscribers)
            }
            Kind::Bus => bus || keys.bus.as_ref().is_some_and(|field| field.value.is_none()),
        };
        if keys.topics.is_none() && keys.subscribers.is_none() && !is_written(Kind::Bus) {
            let nothing = Diagnostic::error(Code::MissingKey, span, "for what?", "this rule is for nothing");
            let help = "add `topics`, `subscribers`, or `bus: true` for what belongs to neither";
            return self.reader.report(nothing.help(help));
        }
        for (span, word) in items(&keys.may) {
            let verb = verb(*word);
            rule.verbs.insert(verb);
            if !verb.kinds().iter().any(|kind| is_written(*kind)) {
                self.never_applies(*span, verb);
            }
        }
        self.access.rules.push(rule);
        if keys.may.is_none() || has_unread(&keys.may) {
            return;
        }
        let is_useless = |kinds: &[Kind]| {
            let mut verbs = items(&keys.may).iter().flat_map(|(_, word)| verb(*word).kinds());
            !verbs.any(|kind| kinds.contains(kind))
        };
        let parts = [
            (keys.topics.as_ref().map(|field| field.key), [Kind::Topics, Kind::Namespaces], "topics"),
            (keys.subscribers.as_ref().map(|field| field.key), [Kind::Subscribers, Kind::Namespaces], "subscribers"),
            (keys.bus.as_ref().filter(|_| bus).map(|field| field.key), [Kind::Bus, Kind::Bus], "the bus as a whole"),
        ];
        for (span, kinds, what) in parts {
            if let Some(span) = span.filter(|_| is_useless(&kinds)) {
                let message = format!("no right of this rule is a right to {what}");
                self.warn(span, "without effect", message, "remove it, or add the right that is meant");
            }
        }
    }

    /// Reports a right to nothing that its rule names.
    fn never_applies(&mut self, span: Span, verb: Verb) {
        let (what, help) = match verb.kinds() {
            [Kind::Bus] => ("the bus as a whole, which this rule is not for", "add `bus: true` to the rule"),
            [Kind::Topics] => ("topics, and this rule names none", "add `topics: [NAMESPACE/NAME]` to the rule"),
            [Kind::Namespaces, ..] => (
                "whole namespaces, and this rule names none",
                "add a pattern of all names of a namespace, such as `subscribers: [\"NAMESPACE/*\"]`; `bus: true` is \
                    for deleting the data of removed topics",
            ),
            [Kind::Subscribers, Kind::Bus] => (
                "subscribers, and this rule names none",
                "add `subscribers: [NAMESPACE/NAME]`, or `bus: true` for the clock",
            ),
            _ => ("subscribers, and this rule names none", "add `subscribers: [NAMESPACE/NAME]` to the rule"),
        };
        let message = format!("`{verb}` is a right to {what}");
        self.reader.report(Diagnostic::error(Code::BadValue, span, "never applies", message).help(help));
    }

    fn warn_of_unused(&mut self, file: &raw::AccessFile, top: Span) {
        if file.rules.is_none() || value(&file.rules).is_some_and(|List(rules)| rules.is_empty()) {
            let message = "there are no rules, so that no caller may do anything".to_owned();
            return self.warn(
                top,
                "",
                message,
                "add `rules`: `- { who: [NAME], may: [publish], topics: [NAMESPACE/NAME] }`",
            );
        }
        for (name, field) in entries(&file.principals) {
            let index = self.principals.get(name);
            let principal = index.and_then(|index| self.access.principals.get(index.0 as usize));
            if principal.is_some_and(|principal| principal.rules.is_empty()) && name != ANONYMOUS {
                let message = format!("no rule names `{name}`, so that it may do nothing");
                self.warn(field.key, "unused", message, "name it in `who` of a rule, or remove it");
            }
        }
        for (name, field) in entries(&file.issuers) {
            let of_it = |(_, principal): &(String, Field<raw::PrincipalKeys>)| {
                let issuer = principal.value.as_ref().and_then(|keys| value(&keys.issuer));
                issuer.is_some_and(|issuer| issuer.0 == *name)
            };
            if !entries(&file.principals).iter().any(of_it) {
                let message =
                    format!("no principal has the issuer `{name}`, so that its tokens are those of no caller");
                self.warn(field.key, "unused", message, "name it as `issuer` of a principal, or remove it");
            }
        }
    }
}

fn algorithm(name: raw::SigningName) -> Algorithm {
    match name {
        raw::SigningName::Es256 => Algorithm::ES256,
        raw::SigningName::Es384 => Algorithm::ES384,
        raw::SigningName::EdDsa => Algorithm::EdDSA,
        raw::SigningName::Rs256 => Algorithm::RS256,
        raw::SigningName::Rs384 => Algorithm::RS384,
        raw::SigningName::Rs512 => Algorithm::RS512,
        raw::SigningName::Ps256 => Algorithm::PS256,
        raw::SigningName::Ps384 => Algorithm::PS384,
        raw::SigningName::Ps512 => Algorithm::PS512,
    }
}

fn verb(name: raw::VerbName) -> Verb {
    match name {
        raw::VerbName::Publish => Verb::Publish,
        raw::VerbName::Read => Verb::Read,
        raw::VerbName::State => Verb::State,
        raw::VerbName::Inspect => Verb::Inspect,
        raw::VerbName::Operate => Verb::Operate,
        raw::VerbName::Consume => Verb::Consume,
        raw::VerbName::Deploy => Verb::Deploy,
        raw::VerbName::Apply => Verb::Apply,
        raw::VerbName::Backup => Verb::Backup,
        raw::VerbName::Metrics => Verb::Metrics,
    }
}
