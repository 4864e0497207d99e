//! What one connection, one stream and one reader may take of the process, each bound with its reason.

use std::time::Duration;

use crate::limits;
use crate::limits::COMPONENT_BYTES_MAX;

/// Connections at once. Further ones wait to be accepted, so that file descriptors are left for the disk.
pub(super) const CONNECTIONS_MAX: usize = 1024;
/// Connections that the system holds for us until they are accepted.
pub(super) const BACKLOG: u32 = 1024;
/// Calls at once on one connection.
pub(super) const STREAMS_PER_CONNECTION_MAX: u32 = 256;
/// How long a TLS handshake may take.
pub(super) const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// How long a client may take to say what it speaks, and to end the head of its first request of HTTP/1.
pub(super) const PREFACE_WITHIN: Duration = Duration::from_secs(10);
/// The preface of HTTP/2.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of the preface and of the head of the frame after it.
pub(super) const PREFACE_BYTES: usize = PREFACE.len() + 9;
/// How long the head of a further request of HTTP/1 may take from its first byte.
pub(super) const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// How long a connection of HTTP/1 may be idle between requests.
pub(super) const IDLE_WITHIN: Duration = Duration::from_secs(75);
/// Headers of one request of HTTP/1.
pub(super) const HEADERS_MAX: usize = 100;
/// Bytes of the head of a request of HTTP/1 (others: [`HEADER_BYTES`]), and of its body that are read ahead.
pub(super) const HEAD_BUFFER_BYTES: usize = 32 << 10;
/// Principals whose connections are limited, on one connection: gateways show the tokens of several.
pub(super) const PRINCIPALS_PER_CONNECTION_MAX: usize = 64;
/// How often open streams are judged again at the least, so that expired credentials end them.
pub(super) const JUDGED_EVERY: Duration = Duration::from_secs(2);
/// How long accepting pauses after a failure, such as having no file descriptors left.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a client may have on its way without being asked: one large message for a stream, several for a connection.
/// On a network of 10 ms this is 800 MB/s.
pub(super) const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// The same for all streams of a connection.
pub(super) const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Largest frame: large batches in few frames, and small calls still get in between.
pub(super) const FRAME_BYTES: u32 = 256 << 10;
/// Bytes of one call's headers.
pub(super) const HEADER_BYTES: u32 = 16 << 10;
/// Calls that a client reset before they were begun; more than that is an attack, and its connection is closed.
pub(super) const PENDING_RESETS_MAX: usize = 20;
/// Streams that we had to reset for a client's errors before its connection is closed.
pub(super) const ERROR_RESETS_MAX: usize = 256;
/// Silence after which a client is asked whether it is there.
pub(super) const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);
/// How long it may take to answer that.
pub(super) const KEEPALIVE_WITHIN: Duration = Duration::from_secs(10);

/// Requests of one stream that wait for the disk. More than the disk groups together gain nothing.
pub(super) const PIPELINE_REQUESTS_MAX: usize = 64;
/// Bytes of events in them, unless one request alone has more.
pub(super) const PIPELINE_BYTES_MAX: usize = 2 * limits::MESSAGE_BYTES_MAX;
/// Bytes of requests that wait for room in their topics (`when_full: wait`), all together. Those past that are told to
/// come again.
pub(super) const WAITING_BYTES_MAX: u64 = 64 << 20;

/// Events that one answer of a read has at the most.
pub(super) const READ_EVENTS: u32 = 1024;
/// Bytes of records that one answer of a read has, unless one event alone has more. Nothing else is buffered for a
/// reader but what HTTP/2 holds, so this bounds what a slow one costs.
pub(super) const READ_BYTES: usize = 256 << 10;

/// Events or entries of a state that one answer lists. Its bytes are bounded by the reader.
pub(super) const LISTED_MAX: usize = 1_000;

/// How many entries an answer has, by how many are asked for; 0 stands for the most.
pub(super) fn page_size(asked: u32) -> usize {
    match asked as usize {
        0 => LISTED_MAX,
        asked => asked.min(LISTED_MAX),
    }
}

/// Bytes of the note of a snapshot: a sentence.
pub(super) const NOTE_BYTES_MAX: usize = 200;
/// Entries of a state that are taken in one unit: as many as a publish may have events.
pub(super) const IMPORTED_MAX: usize = limits::PUBLISH_EVENTS_MAX;

/// Listings of capsules, and capsules and components that are given out, at once: each holds a file open, and a listing
/// reads as much as one capsule may have.
pub(super) const CAPSULE_READERS_MAX: usize = 4;
/// Bytes of a capsule or a component in one message.
pub(super) const CAPSULE_PART_BYTES: u64 = 1 << 20;

/// Bytes of components that come in or wait to be compiled, all together: of the largest, a few.
pub(super) const DEPLOYS_BYTES_MAX: u64 = 4 * COMPONENT_BYTES_MAX;
/// Components that one request asks about: as many as a large topology has.
pub(super) const COMPONENTS_ASKED_MAX: usize = 10_000;
/// How long the upload of a component may take, whatever deadline its sender sets.
pub(super) const PARTS_WITHIN: Duration = Duration::from_secs(120);
/// How long a sender may say nothing in the middle of that: others wait for its place.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Bytes that are stored of a caller's text about the origin of a component.
pub(super) const CAUSE_BYTES_MAX: usize = 255;

/// Comparisons of versions at once: each takes what processors lanes leave, and memory.
pub(super) const SHADOWS_MAX: usize = 1;
/// The same over future events, which take long.
pub(super) const SHADOWS_COMING_MAX: usize = 1;
/// How long one may take whose caller does not say.
pub(super) const SHADOW_WITHIN: Duration = Duration::from_secs(10 * 60);
/// Default number of events that are compared.
pub(super) const SHADOW_EVENTS_DEFAULT: u32 = 1_000;
/// Most events that are compared.
pub(super) const SHADOW_EVENTS_MAX: u32 = 100_000;
/// Differences that an answer shows at the most, and their bytes.
pub(super) const SHADOW_SHOWN_MAX: usize = 100;
pub(super) const SHADOW_SHOWN_BYTES_MAX: usize = limits::MESSAGE_BYTES_MAX / 2;

/// While the bus stops, how long a caller may take none of the answers that there are for it, before it is left alone.
pub(super) const UNTAKEN_AFTER: Duration = Duration::from_secs(1);
/// After the calls have ended, how long clients get to close their connections before we do.
pub(super) const CLOSE_GRACE: Duration = Duration::from_millis(500);
/// Smallest step of the runtime's clock. Deadlines end that much early, to end before the transport's own timer, which
/// would say CANCELLED.
pub(super) const TIMER_STEP: Duration = Duration::from_millis(1);

const _: () = assert!(READ_BYTES < limits::MESSAGE_BYTES_MAX && limits::EVENT_BYTES_MAX < limits::MESSAGE_BYTES_MAX);
const _: () = assert!(CAPSULE_PART_BYTES < limits::MESSAGE_BYTES_MAX as u64);
const _: () = assert!(STREAM_WINDOW_BYTES < CONNECTION_WINDOW_BYTES, "one stream cannot stop the others");
