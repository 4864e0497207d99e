//! The reasons of refusals, as `google.rpc.ErrorInfo` carries them. They are promises: programs act on them.

/// The caller has not shown who it is, or what it has shown is not, or no longer, valid.
pub const UNAUTHENTICATED: &str = "UNAUTHENTICATED";
/// The caller does not have the right that the call needs.
pub const FORBIDDEN: &str = "FORBIDDEN";
/// The caller uses as much as the access file lets it: try again later.
pub const OVER_LIMIT: &str = "OVER_LIMIT";
/// The route does not exist.
pub const UNKNOWN_ROUTE: &str = "UNKNOWN_ROUTE";
/// The route exists, and does not take the method.
pub const UNKNOWN_METHOD: &str = "UNKNOWN_METHOD";
/// The topic does not exist.
pub const UNKNOWN_TOPIC: &str = "UNKNOWN_TOPIC";
/// The topic's short name is that of several.
pub const AMBIGUOUS_TOPIC: &str = "AMBIGUOUS_TOPIC";
/// The topic does not take events from outside.
pub const NOT_A_ROOT: &str = "NOT_A_ROOT";
/// An event is not a CloudEvent.
pub const INVALID_EVENT: &str = "INVALID_EVENT";
/// An event is larger than an event may be.
pub const EVENT_TOO_LARGE: &str = "EVENT_TOO_LARGE";
/// An event's key is longer than a key may be, or the topic's expression gives none.
pub const INVALID_KEY: &str = "INVALID_KEY";
/// The topic's `id` expression does not give a text for an event.
pub const INVALID_ID: &str = "INVALID_ID";
/// The `deliverat` or `delay` of an event makes no sense.
pub const INVALID_DELAY: &str = "INVALID_DELAY";
/// The state of an event is none of its topic's lifecycle.
pub const INVALID_STATE: &str = "INVALID_STATE";
/// The topic's lifecycle does not allow the state of an event to follow that of its key.
pub const LIFECYCLE: &str = "LIFECYCLE";
/// An earlier request of the same stream was refused.
pub const STREAM_REFUSED: &str = "STREAM_REFUSED";
/// The data of an event is not what the topic's schema says.
pub const SCHEMA_MISMATCH: &str = "SCHEMA_MISMATCH";
/// The numbers of the events, or the name of who numbered them, cannot be.
pub const INVALID_NUMBERING: &str = "INVALID_NUMBERING";
/// The topic does not know the producer that numbered the events, and may have forgotten it: it has to begin anew.
pub const PRODUCER_UNKNOWN: &str = "PRODUCER_UNKNOWN";
/// More events than one call may have.
pub const TOO_MANY_EVENTS: &str = "TOO_MANY_EVENTS";
/// More bytes than one call may have.
pub const TOO_LARGE: &str = "TOO_LARGE";
/// More is waiting for the disk than may: try again later.
pub const BUSY: &str = "BUSY";
/// As many events wait in the topic as may: try again later.
pub const BACKLOG_FULL: &str = "BACKLOG_FULL";
/// The disk is nearly full.
pub const DISK_FULL: &str = "DISK_FULL";
/// The bus is on its way down.
pub const SHUTTING_DOWN: &str = "SHUTTING_DOWN";
/// The bus has stopped, since its storage failed.
pub const STORAGE_FAILED: &str = "STORAGE_FAILED";
/// The deadline of the call is over.
pub const DEADLINE_EXCEEDED: &str = "DEADLINE_EXCEEDED";
/// The subscriber does not exist.
pub const UNKNOWN_SUBSCRIBER: &str = "UNKNOWN_SUBSCRIBER";
/// The subscriber's short name is that of several.
pub const AMBIGUOUS_SUBSCRIBER: &str = "AMBIGUOUS_SUBSCRIBER";
/// The subscriber keeps no dead letters.
pub const NO_DEAD_LETTERS: &str = "NO_DEAD_LETTERS";
/// There is no such capsule, or not any more.
pub const UNKNOWN_CAPSULE: &str = "UNKNOWN_CAPSULE";
/// Events wait that would be left behind.
pub const EVENTS_WAIT: &str = "EVENTS_WAIT";
/// The subscriber shares its events with others, so it cannot be moved among them.
pub const EVENTS_SHARED: &str = "EVENTS_SHARED";
/// The subscriber's handler keeps state, and it was not said what becomes of it.
pub const HAS_STATE: &str = "HAS_STATE";
/// The subscriber has no such snapshot.
pub const UNKNOWN_SNAPSHOT: &str = "UNKNOWN_SNAPSHOT";
/// The snapshot cannot be gone back to: it is damaged, or events are gone that it goes with.
pub const UNUSABLE_SNAPSHOT: &str = "UNUSABLE_SNAPSHOT";
/// The bus has nowhere to keep snapshots.
pub const NO_SNAPSHOTS: &str = "NO_SNAPSHOTS";
/// The snapshot could not be written.
pub const SNAPSHOT_FAILED: &str = "SNAPSHOT_FAILED";
/// The state of a lane is not whole, since a seek broke off.
pub const BROKEN_STATE: &str = "BROKEN_STATE";
/// Imported entries exceed the maximum size of a lane's state.
pub const STATE_FULL: &str = "STATE_FULL";
/// A lane of the subscriber has stopped or does not answer.
pub const LANE_STOPPED: &str = "LANE_STOPPED";
/// A component does not fit, or is not one.
pub const PLUGIN_REFUSED: &str = "PLUGIN_REFUSED";
/// A file that a plugin needs besides its component cannot be read.
pub const PLUGIN_UNREADABLE: &str = "PLUGIN_UNREADABLE";
/// A component is not stored on the bus, or not any more: it has to be uploaded first.
pub const UNKNOWN_COMPONENT: &str = "UNKNOWN_COMPONENT";
/// A component has another digest than was announced.
pub const DIGEST_MISMATCH: &str = "DIGEST_MISMATCH";
/// Too many components were uploaded that nothing uses yet.
pub const UPLOADS_FULL: &str = "UPLOADS_FULL";
/// The subscriber has no version on trial.
pub const NO_TRIAL: &str = "NO_TRIAL";
/// The subscriber is pinned to a version.
pub const PINNED: &str = "PINNED";
/// Superseded by a later deploy.
pub const SUPERSEDED: &str = "SUPERSEDED";
/// Nothing of a component came in for so long that its place was given to others.
pub const TOO_SLOW: &str = "TOO_SLOW";
/// There is no version to go back to.
pub const NO_VERSION_BEFORE: &str = "NO_VERSION_BEFORE";
/// No version begins so.
pub const UNKNOWN_VERSION: &str = "UNKNOWN_VERSION";
/// Several versions begin so.
pub const AMBIGUOUS_VERSION: &str = "AMBIGUOUS_VERSION";
/// A version is on trial, so that it is not clear which one is meant.
pub const VERSION_ON_TRIAL: &str = "VERSION_ON_TRIAL";
/// A version that is kept cannot run now.
pub const VERSION_UNUSABLE: &str = "VERSION_UNUSABLE";
/// A topology cannot be applied.
pub const TOPOLOGY_REFUSED: &str = "TOPOLOGY_REFUSED";
/// Another topology is applied than the caller expects.
pub const TOPOLOGY_MOVED: &str = "TOPOLOGY_MOVED";
/// Another version runs than the caller expects.
pub const VERSION_MOVED: &str = "VERSION_MOVED";
/// Applying a topology would lose something, and it was not said that it may.
pub const WOULD_LOSE: &str = "WOULD_LOSE";
/// A topology cannot be kept, or does not run as a whole.
pub const TOPOLOGY_FAILED: &str = "TOPOLOGY_FAILED";
/// Versions cannot be kept.
pub const VERSIONS_FAILED: &str = "VERSIONS_FAILED";
/// The topic or subscriber has no such partition.
pub const UNKNOWN_PARTITION: &str = "UNKNOWN_PARTITION";
/// A field of the request has an impossible value.
pub const INVALID_ARGUMENT: &str = "INVALID_ARGUMENT";
/// The position is before all retained events.
pub const POSITION_EXPIRED: &str = "POSITION_EXPIRED";
/// The position lies beyond the end.
pub const POSITION_BEYOND_END: &str = "POSITION_BEYOND_END";
/// The event before the position is another one than the caller has read.
pub const POSITION_LOST: &str = "POSITION_LOST";
/// The event is not there.
pub const UNKNOWN_EVENT: &str = "UNKNOWN_EVENT";
/// Too much would have to be looked at to find the event.
pub const TOO_FAR_BACK: &str = "TOO_FAR_BACK";
/// Stored events cannot be read.
pub const UNREADABLE: &str = "UNREADABLE";

/// Key of the metadata that is "unknown" where a refused publish may have happened all the same.
pub const OUTCOME: &str = "outcome";
/// Value of [`OUTCOME`].
pub const OUTCOME_UNKNOWN: &str = "unknown";
