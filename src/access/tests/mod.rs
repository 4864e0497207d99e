//! Whole access files: what is wrong with them, who a caller is, what it may do.

mod decisions;
mod files;
mod jwt;
mod speed;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::*;
use crate::topology::render::{self, Style};
use crate::topology::{Diagnostic, Source};

/// Files by path.
#[derive(Default)]
struct Folder(BTreeMap<PathBuf, String>);

impl Files for Folder {
    fn text(&self, path: &Path, bytes_max: usize) -> Result<String, String> {
        let text = self.0.get(path).ok_or("it is not there")?;
        if text.len() > bytes_max { Err("it is too long".to_owned()) } else { Ok(text.clone()) }
    }
}

fn source(text: &str) -> Source {
    Source { path: "conf/access.yaml".into(), text: text.to_owned() }
}

/// The rules of a file with nothing wrong about it.
fn good(text: &str, folder: &Folder) -> Access {
    let (access, diagnostics) = check(&source(text), folder);
    assert!(diagnostics.is_empty(), "{}", shown(text, &diagnostics));
    access.unwrap()
}

/// What is wrong with a file, as people see it.
fn problems(text: &str) -> String {
    let (access, diagnostics) = check(&source(text), &Folder::default());
    assert_eq!(access.is_none(), diagnostics.iter().any(Diagnostic::is_error));
    shown(text, &diagnostics)
}

fn shown(text: &str, diagnostics: &[Diagnostic]) -> String {
    let source = source(text);
    render::text(&[masked(&source).into_owned()], diagnostics, Style { colour: false, width: 140 })
}

/// A token, of which there are as many as there are bytes.
fn token(seed: u8) -> NewToken {
    NewToken::from_random(&Zeroizing::new([seed; NewToken::RANDOM_BYTES]))
}

fn bearer(token: &str) -> Vec<u8> {
    format!("Bearer {token}").into_bytes()
}

/// Who shows this header at this time.
fn identify(access: &Access, header: &[u8], now_s: u64) -> Result<Identity, Unauthenticated> {
    let authorization = Authorization::Value(header);
    access.identify(&Credentials { authorization, certificate: None }, now_s)
}

/// Who shows a token at this time.
fn by_token(access: &Access, token: &str, now_s: u64) -> Result<Identity, Unauthenticated> {
    identify(access, &bearer(token), now_s)
}

/// Who shows a certificate with these names.
fn by_certificate(access: &Access, uris: &[&str], dns: &[&str]) -> Result<Identity, Unauthenticated> {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let names = CertificateNames { uris: owned(uris), dns: owned(dns) };
    access.identify(&Credentials { authorization: Authorization::Absent, certificate: Some(&names) }, NOW_S)
}

/// Who shows nothing.
fn anonymous(access: &Access) -> Identity {
    access.identify(&Credentials { authorization: Authorization::Absent, certificate: None }, NOW_S).unwrap()
}

const NOW_S: u64 = 1_800_000_000;
