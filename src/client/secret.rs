//! Secrets of a client, and the token that it sends with each request.
//!
//! Promises: a secret is not printed by `Debug`, has no other text form, and is overwritten in memory when it is
//! dropped; the header is marked as sensitive, so that no proxy puts it into a table and nothing prints it; a token
//! that is replaced in its file is sent from the next request on. Must not know: connections.

use std::fmt;
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tonic::codegen::http::HeaderValue;
use zeroize::Zeroizing;

/// Longest token in bytes: what a bus takes as a header has to hold it.
const TOKEN_BYTES_MAX: u64 = 8 << 10;

/// A secret text.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Keeps a text secret from here on.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// A token, which says who calls. Cheap to clone; clones share it.
#[derive(Debug, Clone)]
pub struct Token(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    source: TokenSource,
    latest: Mutex<Option<TokenHeader>>,
}

#[derive(Debug)]
enum TokenSource {
    Text(Secret),
    File(PathBuf),
}

/// The header of a token, and by what a newer file is known.
#[derive(Debug, Clone)]
struct TokenHeader {
    value: HeaderValue,
    version: Option<FileVersion>,
}

/// By what a file is known to be another one, or changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileVersion {
    device: u64,
    inode: u64,
    bytes: u64,
    changed_ns: (i64, i64),
}

impl FileVersion {
    /// `None` of a pipe: it can be read only once.
    fn of(metadata: &Metadata) -> Option<Self> {
        metadata.is_file().then(|| Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            changed_ns: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
}

impl Token {
    /// This token.
    pub fn from_secret(secret: Secret) -> Self {
        Self::from_source(TokenSource::Text(secret))
    }

    /// The token in a file, a newline behind it aside. The file is read when a connection is made, and again when it
    /// has changed.
    pub fn from_file(path: PathBuf) -> Self {
        Self::from_source(TokenSource::File(path))
    }

    fn from_source(source: TokenSource) -> Self {
        Self(Arc::new(Inner { source, latest: Mutex::default() }))
    }

    /// Reads it, for a new connection.
    pub(super) fn load(&self) -> Result<(), String> {
        let mut latest = self.0.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let is_pipe = latest.as_ref().is_some_and(|header| header.version.is_none());
        if !is_pipe {
            *latest = Some(self.0.source.read()?);
        }
        Ok(())
    }

    /// The value of `authorization`, once it is loaded. A file that cannot be read any more, since it is just being
    /// replaced, leaves the token as it was.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        let mut latest = self.0.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let (TokenSource::File(path), Some(TokenHeader { version: Some(version), .. })) = (&self.0.source, &*latest)
            && std::fs::metadata(path).is_ok_and(|now| FileVersion::of(&now).is_some_and(|now| now != *version))
            && let Ok(newer) = self.0.source.read()
        {
            *latest = Some(newer);
        }
        latest.as_ref().map(|header| header.value.clone())
    }
}

impl TokenSource {
    fn read(&self) -> Result<TokenHeader, String> {
        match self {
            Self::Text(Secret(text)) => {
                let value = header(text).map_err(|why| format!("the given token cannot be used: {why}"))?;
                Ok(TokenHeader { value, version: None })
            }
            Self::File(path) => {
                let fault = |why: &dyn fmt::Display| format!("the token file {} {why}", path.display());
                let (bytes, metadata) = read_bounded(path, TOKEN_BYTES_MAX).map_err(|why| fault(&why))?;
                let text = str::from_utf8(&bytes).map_err(|_| fault(&"has no token: it is no text"))?;
                let text = text.strip_suffix('\n').unwrap_or(text);
                let text = text.strip_suffix('\r').unwrap_or(text);
                let value = header(text).map_err(|why| fault(&format_args!("has no token: {why}")))?;
                Ok(TokenHeader { value, version: FileVersion::of(&metadata) })
            }
        }
    }
}

fn header(token: &str) -> Result<HeaderValue, &'static str> {
    if token.is_empty() {
        return Err("it is empty");
    }
    if token.len() as u64 > TOKEN_BYTES_MAX {
        return Err("it is longer than 8 KiB");
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("a token is one line of ASCII without blanks");
    }
    let text = Zeroizing::new(format!("Bearer {token}"));
    let mut value = HeaderValue::from_str(&text).map_err(|_| "a header cannot carry it")?;
    value.set_sensitive(true);
    Ok(value)
}

/// Reads a file of at most this size. The error continues a sentence that begins with the name of the file.
pub(super) fn read_bounded(path: &Path, bytes_max: u64) -> Result<(Zeroizing<Vec<u8>>, Metadata), String> {
    let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    // In one piece from the start: what grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(bytes_max + 1).unwrap_or_default()));
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > bytes_max {
        return Err(format!("is larger than {} KiB", bytes_max >> 10));
    }
    Ok((bytes, metadata))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn sent(token: &Token) -> String {
        token.header().unwrap().to_str().unwrap().to_owned()
    }

    #[test]
    fn a_secret_is_not_printed() {
        let secret = Secret::new("hunter2".to_owned());
        let token = Token::from_secret(secret.clone());
        token.load().unwrap();
        let printed = format!("{secret:?} {secret:#?} {token:?} {:?}", token.header());
        assert!(!printed.contains("hunter2"), "{printed}");
        assert_eq!(sent(&token), "Bearer hunter2");
        assert!(token.header().unwrap().is_sensitive());
    }

    #[test]
    fn a_token_file_has_one_line_and_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        for (content, sent_as) in [("abc", "Bearer abc"), ("abc\n", "Bearer abc"), ("abc\r\n", "Bearer abc")] {
            fs::write(&path, content).unwrap();
            let token = Token::from_file(path.clone());
            token.load().unwrap();
            assert_eq!(sent(&token), sent_as, "{content:?}");
        }
        let longest = "x".repeat(8 << 10);
        for (content, words) in [
            ("", "empty"),
            ("\n", "empty"),
            ("a b", "one line"),
            ("a\n\n", "one line"),
            ("a\0", "one line"),
            ("ä", "one line"),
            (&format!("{longest}x"), "larger than 8 KiB"),
        ] {
            fs::write(&path, content).unwrap();
            let why = Token::from_file(path.clone()).load().unwrap_err();
            assert!(why.contains(words) && why.contains(path.to_str().unwrap()), "{content:?}: {why}");
        }
        fs::write(&path, &longest).unwrap();
        assert_eq!(Token::from_file(path.clone()).load(), Ok(()));
        fs::remove_file(&path).unwrap();
        assert!(Token::from_file(path).load().unwrap_err().contains("cannot be read"));
        for wrong in ["", "a\n", "two words"] {
            assert!(Token::from_secret(Secret::new(wrong.to_owned())).load().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_token_that_is_replaced_in_its_file_is_sent_from_then_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, "first").unwrap();
        let token = Token::from_file(path.clone());
        token.load().unwrap();
        let replace = |with: &str| {
            fs::write(folder.path().join("new"), with).unwrap();
            fs::rename(folder.path().join("new"), &path).unwrap();
        };
        replace("second");
        assert_eq!(sent(&token), "Bearer second");
        replace("not usable");
        assert_eq!(sent(&token), "Bearer second", "the last one that was good");
        fs::remove_file(&path).unwrap();
        assert_eq!(sent(&token), "Bearer second");
        assert!(token.load().is_err(), "a new connection needs a good one");
        replace("third");
        assert_eq!(sent(&token), "Bearer third");
    }
}
