//! Log lines of plugins, each with its event, bounded in length and in number.
//!
//! Promises: the number of dropped lines is reported within a second of the first of them, even if no more follow, and
//! at the plugin's end.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::limits::LOG_LINE_BYTES_MAX;
use crate::model::call::{EventContext, LogLevel};

/// Limits the lines per second over all instances of a plugin, and reports the number of dropped ones.
pub(super) struct Gate {
    lines_per_second: u32,
    window: Mutex<Window>,
    /// Gets the number of dropped lines.
    tell: Box<dyn Fn(u64) + Send + Sync>,
}

struct Window {
    since: Instant,
    passed: u32,
    left_out: u64,
}

/// The length of a window.
const WINDOW: Duration = Duration::from_secs(1);

impl Gate {
    pub(super) fn new(subscriber: &Arc<str>, lines_per_second: u32) -> Arc<Gate> {
        let subscriber = subscriber.clone();
        Gate::telling(lines_per_second, move |count| {
            let lines = if count == 1 { "line" } else { "lines" };
            tracing::warn!(
                target: "wattle::plugin",
                subscriber = &*subscriber,
                "{count} log {lines} left out: {lines_per_second} are logged in a second (`limits: {{ log: … }}`)"
            );
        })
    }

    fn telling(lines_per_second: u32, tell: impl Fn(u64) + Send + Sync + 'static) -> Arc<Gate> {
        let window = Mutex::new(Window { since: Instant::now(), passed: 0, left_out: 0 });
        Arc::new(Gate { lines_per_second, window, tell: Box::new(tell) })
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a line may pass.
    fn passes(self: &Arc<Self>) -> bool {
        let (now, mut window) = (Instant::now(), self.window());
        if now.duration_since(window.since) >= WINDOW {
            let left_out = std::mem::take(&mut window.left_out);
            (window.since, window.passed) = (now, 0);
            if left_out > 0 {
                // before the present line
                (self.tell)(left_out);
            }
        }
        if window.passed < self.lines_per_second {
            window.passed += 1;
            return true;
        }
        window.left_out += 1;
        let is_first = window.left_out == 1;
        let end = window.since + WINDOW;
        drop(window);
        // Without a runtime there is no task to wait: the next line reports it, or the end.
        if is_first && let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let gate = Arc::downgrade(self);
            runtime.spawn(async move {
                tokio::time::sleep_until(end).await;
                if let Some(gate) = gate.upgrade() {
                    gate.tell_left_out();
                }
            });
        }
        false
    }

    fn tell_left_out(&self) {
        let left_out = std::mem::take(&mut self.window().left_out);
        if left_out > 0 {
            (self.tell)(left_out);
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.tell_left_out();
    }
}

/// The log of an instance, and its last output.
pub(super) struct Log {
    subscriber: Arc<str>,
    gate: Arc<Gate>,
    output: PartialLine,
    errors: PartialLine,
    last_words: LastWords,
    panicked: bool,
}

/// A standard stream of the plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Output,
    Errors,
}

/// The destination of a line: the call and its event, if there are any.
pub(super) type Audience<'a> = Option<(&'a dyn EventContext, Option<u32>)>;

impl Log {
    pub(super) fn new(subscriber: Arc<str>, gate: Arc<Gate>) -> Log {
        let (output, errors) = (PartialLine::default(), PartialLine::default());
        Log { subscriber, gate, output, errors, last_words: LastWords::default(), panicked: false }
    }

    /// Logs a line of the logging interface.
    pub(super) fn line(&mut self, to: Audience<'_>, level: LogLevel, context: &str, line: &str) {
        if context == PANIC && level == LogLevel::Error {
            self.last_words = LastWords { text: cut(line).into_owned(), beyond: 0 };
            self.panicked = true;
            // It becomes the reason of the call's failure, which is logged once per attempt. A call with several events
            // is repeated for one alone.
            if to.is_some() {
                return;
            }
        }
        self.emit(to, level, cut(context).as_ref(), cut(line).as_ref());
    }

    /// Writes to a standard stream: each line becomes a log line.
    pub(super) fn write(&mut self, to: Audience<'_>, stream: Stream, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let line = match stream {
                Stream::Output => &mut self.output,
                Stream::Errors => &mut self.errors,
            };
            line.push(part.strip_suffix(b"\n").unwrap_or(part));
            if part.ends_with(b"\n") {
                self.end_line(to, stream);
            }
        }
    }

    /// Ends incomplete lines, because their event is over.
    pub(super) fn flush(&mut self, to: Audience<'_>) {
        if !self.output.is_empty() {
            self.end_line(to, Stream::Output);
        }
        if !self.errors.is_empty() {
            self.end_line(to, Stream::Errors);
        }
    }

    /// Clears the output of the previous event.
    pub(super) fn forget(&mut self) {
        self.last_words = LastWords::default();
        self.panicked = false;
    }

    /// The first lines of what the plugin wrote to standard error for this event; "" if there is nothing.
    pub(super) fn last_words(&self) -> Cow<'_, str> {
        match self.last_words.beyond {
            0 => self.last_words.text.trim_end().into(),
            beyond => format!("{}… ({beyond} more bytes)", self.last_words.text.trim_end()).into(),
        }
    }

    /// The message of a panic that an SDK logged: "panicked at …".
    pub(super) fn panic(&self) -> Option<&str> {
        self.panicked.then_some(self.last_words.text.as_str())
    }

    fn end_line(&mut self, to: Audience<'_>, stream: Stream) {
        let (line, level) = match stream {
            Stream::Output => (self.output.take(), LogLevel::Info),
            Stream::Errors => (self.errors.take(), LogLevel::Warn),
        };
        if stream == Stream::Errors && !self.panicked {
            self.last_words.add(&line);
        }
        self.emit(to, level, "", &line);
    }

    fn emit(&self, to: Audience<'_>, level: LogLevel, context: &str, line: &str) {
        if self.gate.passes() {
            self.send(to, level, context, line);
        }
    }

    fn send(&self, to: Audience<'_>, level: LogLevel, context: &str, line: &str) {
        let subscriber = &*self.subscriber;
        match to {
            Some((call, event)) => call.log(event, level, context, line),
            None => match level {
                LogLevel::Trace => tracing::trace!(subscriber, context, "{line}"),
                LogLevel::Debug => tracing::debug!(subscriber, context, "{line}"),
                LogLevel::Info => tracing::info!(subscriber, context, "{line}"),
                LogLevel::Warn => tracing::warn!(subscriber, context, "{line}"),
                LogLevel::Error => tracing::error!(subscriber, context, "{line}"),
            },
        }
    }
}

/// The context under which SDKs log a panic.
const PANIC: &str = "panic";

/// A line that was cut, with its mark.
const LAST_WORDS_BYTES_MAX: usize = LOG_LINE_BYTES_MAX + 64;

/// What an event has written to standard error: as much as becomes a reason. Runtimes begin with what happened and
/// continue with their own state, so the first lines are those that stay.
#[derive(Default)]
struct LastWords {
    text: String,
    /// The number of bytes after it.
    beyond: usize,
}

impl LastWords {
    fn add(&mut self, line: &str) {
        let room = LAST_WORDS_BYTES_MAX.saturating_sub(self.text.len());
        let kept = if self.beyond > 0 { 0 } else { line.floor_char_boundary(room.min(line.len())) };
        let (kept, beyond) = line.split_at_checked(kept).unwrap_or_default();
        self.text.push_str(kept);
        self.beyond += beyond.len();
        match self.beyond {
            0 => self.text.push('\n'),
            _ => self.beyond += 1,
        }
    }
}

/// An incomplete line of a stream.
#[derive(Default)]
struct PartialLine {
    bytes: Vec<u8>,
    beyond: u64,
}

impl PartialLine {
    fn push(&mut self, bytes: &[u8]) {
        let room = LOG_LINE_BYTES_MAX.saturating_sub(self.bytes.len());
        let (kept, beyond) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
        self.bytes.extend_from_slice(kept);
        self.beyond += beyond.len() as u64;
    }

    fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.beyond == 0
    }

    fn take(&mut self) -> String {
        let mut line = String::from_utf8_lossy(&self.bytes).into_owned();
        if self.beyond > 0 {
            line.push_str(&format!("… ({} more bytes)", self.beyond));
        }
        self.bytes.clear();
        self.beyond = 0;
        line
    }
}

/// The beginning of a long text, with a note.
pub(super) fn cut(text: &str) -> Cow<'_, str> {
    if text.len() <= LOG_LINE_BYTES_MAX {
        return text.into();
    }
    let kept = text.get(..text.floor_char_boundary(LOG_LINE_BYTES_MAX)).unwrap_or_default();
    format!("{kept}… ({} more bytes)", text.len() - kept.len()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct HeardLines(Mutex<Vec<String>>);

    impl EventContext for HeardLines {
        fn attributes(&self, _: u32) -> String {
            String::new()
        }
        fn seed(&self, _: u32) -> [u8; 32] {
            [0; 32]
        }
        fn log(&self, index: Option<u32>, level: LogLevel, _: &str, line: &str) {
            self.0.lock().unwrap().push(format!("{index:?} {level:?} {line}"));
        }
    }

    #[test]
    fn a_line_ends_with_its_newline_or_with_its_event() {
        let heard = HeardLines::default();
        let mut log = Log::new("s".into(), Gate::new(&"s".into(), 100));
        log.write(Some((&heard, Some(0))), Stream::Output, b"one\ntw");
        log.write(Some((&heard, Some(0))), Stream::Errors, b"oops");
        log.write(Some((&heard, Some(0))), Stream::Output, b"o");
        log.flush(Some((&heard, Some(0))));
        assert_eq!(*heard.0.lock().unwrap(), ["Some(0) Info one", "Some(0) Info two", "Some(0) Warn oops"]);
        assert_eq!(log.last_words(), "oops");
    }

    #[test]
    fn many_words_keep_their_first_lines_and_say_that_there_were_more() {
        let heard = HeardLines::default();
        let mut log = Log::new("s".into(), Gate::new(&"s".into(), 100));
        log.write(Some((&heard, None)), Stream::Errors, b"fatal error: out of memory\n");
        for _ in 0..2 {
            log.write(Some((&heard, None)), Stream::Errors, &["é".repeat(1_500).as_bytes(), b"\n"].concat());
        }
        log.write(Some((&heard, None)), Stream::Errors, b"the end\n");
        let words = log.last_words();
        assert!(words.starts_with("fatal error: out of memory\né"), "{words}");
        // 4,160 bytes hold the first line, the second, and 1,132 of the third.
        assert!(words.ends_with("é… (1877 more bytes)"), "{words}");
        log.forget();
        assert_eq!(log.last_words(), "");
    }

    #[test]
    fn an_endless_line_is_cut_and_says_so() {
        let heard = HeardLines::default();
        let mut log = Log::new("s".into(), Gate::new(&"s".into(), 100));
        for _ in 0..10 {
            log.write(Some((&heard, None)), Stream::Output, &[b'x'; 1000]);
        }
        log.flush(Some((&heard, None)));
        let line = heard.0.lock().unwrap().concat();
        assert!(line.ends_with("x… (5904 more bytes)"), "{line}");
        assert_eq!(cut(&"é".repeat(3_000)).chars().filter(|c| *c == 'é').count(), 2_048);
    }

    /// A gate that lets three lines pass, and its reports.
    fn gate() -> (Arc<Gate>, Arc<Mutex<Vec<u64>>>) {
        let told = Arc::new(Mutex::new(Vec::new()));
        let heard = told.clone();
        (Gate::telling(3, move |count| heard.lock().unwrap().push(count)), told)
    }

    fn passed(gate: &Arc<Gate>, lines: usize) -> usize {
        (0..lines).filter(|_| gate.passes()).count()
    }

    #[tokio::test(start_paused = true)]
    async fn how_many_lines_a_flood_has_left_out_is_told_within_a_second() {
        let (gate, told) = gate();
        assert_eq!(passed(&gate, 10), 3);
        assert!(told.lock().unwrap().is_empty());
        tokio::time::sleep(WINDOW + Duration::from_millis(1)).await;
        assert_eq!(*told.lock().unwrap(), [7], "though no more lines come");
        assert_eq!(passed(&gate, 3), 3);
        tokio::time::sleep(3 * WINDOW).await;
        assert_eq!(*told.lock().unwrap(), [7], "nothing was left out");
        assert_eq!(passed(&gate, 4), 3);
        drop(gate);
        assert_eq!(*told.lock().unwrap(), [7, 1], "at the end");
        tokio::time::sleep(3 * WINDOW).await;
        assert_eq!(*told.lock().unwrap(), [7, 1], "once");
    }

    #[test]
    fn where_nothing_can_wait_it_is_told_at_the_end() {
        let (gate, told) = gate();
        assert_eq!(passed(&gate, 10), 3);
        drop(gate);
        assert_eq!(*told.lock().unwrap(), [7]);
    }

    #[test]
    fn a_panic_of_a_call_is_no_line_of_its_own() {
        let heard = HeardLines::default();
        let mut log = Log::new("s".into(), Gate::new(&"s".into(), 100));
        log.line(Some((&heard, Some(0))), LogLevel::Error, "panic", "panicked at x: no such shelf");
        log.line(Some((&heard, Some(0))), LogLevel::Error, "other", "kept");
        assert_eq!(*heard.0.lock().unwrap(), ["Some(0) Error kept"]);
        assert_eq!(
            (log.panic(), &*log.last_words()),
            (Some("panicked at x: no such shelf"), "panicked at x: no such shelf")
        );
    }
}
