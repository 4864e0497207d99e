//! What the host calls of a component: the functions of the world that it was made for.

use wasmtime::component::{Component, InstancePre};
use wasmtime::{Result, Store};

use super::contract::wattle::plugin::types::{self, Handled};
use super::contract::{Sandbox, SandboxPre};
use super::messaging::{Messaging, MessagingPre};
use super::store_data::StoreData;
use super::worlds::World;
use crate::model::call::Batch;

/// A checked component of one of the worlds.
pub(super) enum EntryPre {
    Plugin(SandboxPre<StoreData>),
    Messaging(MessagingPre),
}

impl EntryPre {
    pub(super) fn new(pre: InstancePre<StoreData>, world: World) -> Result<Self> {
        Ok(match world {
            World::Plugin => Self::Plugin(SandboxPre::new(pre)?),
            World::Messaging => Self::Messaging(MessagingPre::new(pre)?),
        })
    }

    pub(super) fn component(&self) -> &Component {
        match self {
            Self::Plugin(pre) => pre.instance_pre().component(),
            Self::Messaging(messaging) => messaging.pre.component(),
        }
    }

    pub(super) async fn instantiate(&self, store: &mut Store<StoreData>) -> Result<Entry> {
        Ok(match self {
            Self::Plugin(pre) => Entry::Plugin(pre.instantiate_async(store).await?),
            Self::Messaging(messaging) => Entry::Messaging(messaging.instantiate(store).await?),
        })
    }
}

/// An instance that can be called.
pub(super) enum Entry {
    Plugin(Sandbox),
    Messaging(Messaging),
}

impl Entry {
    /// The ports; none where a component cannot say so, which then has those that the topology connects.
    pub(super) async fn describe(&self, store: &mut Store<StoreData>) -> Result<Vec<String>> {
        match self {
            Self::Plugin(sandbox) => sandbox.wattle_plugin_handler().call_describe(store).await,
            Self::Messaging(_) => Ok(Vec::new()),
        }
    }

    pub(super) async fn handle(&self, store: &mut Store<StoreData>, batch: &Batch<'_>) -> Result<Handled> {
        match self {
            Self::Plugin(sandbox) => {
                let (info, events) = lowered(batch);
                sandbox.wattle_plugin_handler().call_handle(store, info, &events).await
            }
            Self::Messaging(messaging) => messaging.handle(store, batch).await,
        }
    }
}

/// The batch in the contract's types, borrowed.
fn lowered<'a>(batch: &Batch<'a>) -> (types::Batch<'a>, Vec<types::Event<'a>>) {
    let info = types::Batch { topic: batch.topic, partition: batch.partition, content_type: batch.content_type };
    let events = batch.events.iter().map(|event| types::Event {
        key: event.key,
        type_: event.r#type,
        time: event.time_ns,
        attempt: event.attempt,
        data: event.data,
    });
    (info, events.collect())
}
