//! Basic values of the bus: events, keys, and the numbers that identify topics, subscribers and positions.
//!
//! Promises: pure values and codecs; encoding and decoding are inverses; decoding never panics on any input. Must not
//! know: where events are stored, who handles them, YAML, gRPC or Wasm.

pub mod call;
pub mod chunk;
pub mod event;
mod excerpt;
mod fence;
pub(crate) mod guard;
pub mod identity;
pub mod json;
mod judge;
mod meter;
pub mod record;
pub mod settings;
pub mod slices;
mod time;
pub(crate) mod units;
mod wire;
pub mod writes;

pub use chunk::{Chunk, StoredEvent, TimeOf};
pub use event::{Attribute, AttributeView, Event, EventError, EventView};
pub(crate) use excerpt::excerpt;
pub use fence::Fence;
pub use guard::{
    Diversion, DivertedRecord, Guard, GuardCounts, GuardReason, GuardRefusal, GuardStates, KEY_IDENTITIES_MAX,
    Lifecycle, Verdict, keeper_of,
};
pub use identity::{
    EventId, LaneId, Offset, OutputId, OutputIds, PartitionId, Place, ProducerId, SubscriberId, TopicId, VersionId,
    partition_of,
};
pub use judge::GuardJudge;
pub use meter::Meter;
pub use record::{Lineage, Record, RecordError};
pub use settings::{Compression, Dedupe, Retention, TopicSettings};
pub use slices::{Duplicate, Mark, ProducerUnknown, SliceFull, Slices};
pub use time::Time;
pub use writes::{EntryPage, LaneWrite, PageBudget};
