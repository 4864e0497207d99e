//! Versions through the service and its client.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use wattle::api::v1::plugin_service_client::PluginServiceClient;
use wattle::api::v1::shadow_service_client::ShadowServiceClient;
use wattle::api::v1::upload_component_request::{Begin, Part};
use wattle::api::{DeployOutcome, Digest, Policy, Proposal, VersionRole, reason, v1};
use wattle::client::{Client, ClientError};
use wattle::limits::COMPONENT_BYTES_MAX;
use wattle::server::{Options, Port, Server};

use crate::common::trees::data;
use crate::reload::bed::{Bus, World};

struct Door {
    bus: Bus,
    client: Client,
    address: String,
    _server: Server,
    world: World,
}

impl Door {
    async fn open() -> Self {
        let world = World::new("a");
        let bus = world.start().await;
        let options = Options::open("127.0.0.1:0".parse().unwrap());
        let port = Port::take(&options).unwrap();
        let server = Server::start_with(port, bus.tree.clone(), Some(bus.reloader.clone()), None).await.unwrap();
        let address = server.address().to_string();
        let client = Client::connect(&address).await.unwrap();
        Self { bus, client, address, _server: server, world }
    }

    async fn deploy(&self, text: &'static str, policy: Policy) -> Result<DeployOutcome, ClientError> {
        let reloaded = self.client.deploy("work", Bytes::from_static(text.as_bytes()), policy, "a test", None).await?;
        Ok(reloaded.outcome)
    }

    async fn raw(&self) -> PluginServiceClient<Channel> {
        PluginServiceClient::connect(format!("http://{}", self.address)).await.unwrap()
    }

    /// Uploads in parts as they are.
    async fn parts(&self, parts: Vec<Part>) -> Result<v1::UploadComponentResponse, Status> {
        let requests = parts.into_iter().map(|part| v1::UploadComponentRequest { part: Some(part) });
        let requests = tokio_stream::iter(requests.collect::<Vec<_>>());
        Ok(self.raw().await.upload_component(requests).await?.into_inner())
    }

    /// The components on the disk.
    fn components(&self) -> usize {
        self.world.disk.contents().keys().filter(|name| name.ends_with(".wasm")).count()
    }
}

fn begin_of(text: &str, size_bytes: u64) -> Begin {
    Begin { component: Digest::of(text.as_bytes()).to_string(), size_bytes }
}

fn chunk(text: &'static str) -> Part {
    Part::Chunk(Bytes::from_static(text.as_bytes()))
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, ClientError>, code: Code, reason: &str) {
    match result {
        Err(ClientError::Refused(refused)) => {
            assert_eq!((refused.code, refused.reason.as_str()), (code, reason), "{}", refused.message);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_version_is_deployed_listed_taken_back_and_pinned() {
    let door = Door::open().await;
    assert_eq!(door.deploy("b", Policy::Replace).await.unwrap(), DeployOutcome::Runs);
    assert_eq!(door.deploy("b", Policy::Replace).await.unwrap(), DeployOutcome::Unchanged);
    assert_eq!(door.deploy("c", Policy::Canary { percent: 50 }).await.unwrap(), DeployOutcome::Tried);
    let status = door.client.status().await.unwrap().tree.subscribers[0].clone();
    let versions = door.client.versions("work").await.unwrap();
    assert_eq!(status.digest, versions[1].version.to_string());
    assert_eq!(status.on_trial.unwrap().digest, versions[2].version.to_string());
    let standings: Vec<_> = versions.iter().map(|kept| (kept.standing, kept.is_next_back)).collect();
    assert_eq!(standings, [(VersionRole::Kept, false), (VersionRole::Proven, true), (VersionRole::Tried, false)]);
    assert_eq!(versions[1].cause, "deployed: a test");
    assert!(versions[0].cause.ends_with("work.wasm") && versions[0].decided_ns > 0);
    assert_eq!(door.client.rollback("t/work", None).await.unwrap(), versions[1].version);
    assert_eq!(door.client.rollback("work", None).await.unwrap(), versions[0].version);
    assert_eq!(door.bus.who().await, "a");
    let b = versions[1].version;
    assert_eq!(door.client.pin("work", Some(&b.short()), None).await.unwrap(), b);
    let [summary] = <[_; 1]>::try_from(door.client.plugins().await.unwrap()).unwrap();
    assert_eq!((summary.subscriber.as_str(), summary.proven, summary.tried), ("t/work", b, None));
    assert_eq!((summary.is_pinned, summary.kept), (true, 3));
    refused(door.deploy("d", Policy::Swap).await, Code::FailedPrecondition, reason::PINNED);
    door.client.unpin("work").await.unwrap();
    assert_eq!(door.deploy("d", Policy::Swap).await.unwrap(), DeployOutcome::Tried);
    assert_eq!(door.bus.who().await, "d");
    assert!(data(&door.bus.tree, "work.dead").await.is_empty());
}

#[tokio::test]
async fn what_is_refused_says_why() {
    let door = Door::open().await;
    refused(door.deploy("bad", Policy::Swap).await, Code::InvalidArgument, reason::PLUGIN_REFUSED);
    refused(door.client.rollback("work", None).await, Code::FailedPrecondition, reason::NO_VERSION_BEFORE);
    refused(door.client.pin("work", Some("zz"), None).await, Code::NotFound, reason::UNKNOWN_VERSION);
    refused(door.client.versions("nobody").await, Code::NotFound, reason::UNKNOWN_SUBSCRIBER);
    refused(door.client.unpin("nobody").await, Code::NotFound, reason::UNKNOWN_SUBSCRIBER);
    door.deploy("b", Policy::Swap).await.unwrap();
    refused(door.client.pin("work", Some(""), None).await, Code::InvalidArgument, reason::AMBIGUOUS_VERSION);
    refused(door.client.pin("work", None, None).await, Code::FailedPrecondition, reason::VERSION_ON_TRIAL);
    door.world.disk.remove_durably(door.world.disk.contents().keys().find(|name| name.ends_with(".wasm")).unwrap());
    let first = door.client.versions("work").await.unwrap();
    for kept in first {
        let pinned = door.client.pin("work", Some(&kept.version.to_string()), None).await;
        if pinned.is_err() {
            refused(pinned, Code::FailedPrecondition, reason::VERSION_UNUSABLE);
            return;
        }
    }
    panic!("one of them is not there");
}

#[tokio::test]
async fn a_component_comes_in_whole_or_not_at_all() {
    let door = Door::open().await;
    let begin = |size_bytes| Part::Begin(begin_of("b!", size_bytes));
    let wrong: [(Vec<Part>, &str); 8] = [
        (vec![], "part"),
        (vec![chunk("b")], "part"),
        (vec![begin(2), begin(2)], "part"),
        (vec![begin(2), chunk("b")], "begin.size_bytes"),
        (vec![begin(2), chunk("bcd")], "begin.size_bytes"),
        (vec![begin(2), chunk("b?")], "begin.component"),
        (vec![begin(COMPONENT_BYTES_MAX + 1)], "begin.size_bytes"),
        (vec![Part::Begin(Begin { component: "b".into(), size_bytes: 1 })], "begin.component"),
    ];
    for (parts, field) in wrong {
        let status = door.parts(parts).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        let fields = status.get_details_bad_request().unwrap().field_violations;
        assert_eq!(fields[0].field, field, "{status:?}");
        assert_eq!(door.components(), 1, "{status:?}");
    }
    let component = Digest::of(b"b!");
    assert_eq!(door.client.missing_components(&[component]).await.unwrap(), [component]);
    door.parts(vec![begin(2), chunk("b"), chunk("!")]).await.unwrap();
    assert_eq!(door.client.missing_components(&[component]).await.unwrap(), []);
    assert_eq!(door.client.versions("work").await.unwrap().len(), 1, "nothing is deployed");
    let request = v1::DeployRequest {
        subscriber: "work".into(),
        component: component.to_string(),
        cause: "ü".repeat(200),
        ..v1::DeployRequest::default()
    };
    for (wrong, field) in [
        (v1::DeployRequest { policy: 77, ..request.clone() }, "policy"),
        (v1::DeployRequest { component: "b".into(), ..request.clone() }, "component"),
    ] {
        let status = door.raw().await.deploy(wrong).await.unwrap_err();
        assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, field, "{status:?}");
    }
    let answer = door.raw().await.deploy(request).await.unwrap().into_inner();
    assert_eq!(answer.outcome(), v1::DeployOutcome::Candidate);
    assert_eq!(door.bus.who().await, "b!");
    let cause = door.client.versions("work").await.unwrap()[1].cause.clone();
    assert_eq!(cause, format!("deployed: {}", "ü".repeat(127)), "as much as is kept, in whole characters");
}

/// A request that is begun and goes on with this.
async fn begun<T: Send + 'static>(
    begin: T,
    rest: impl tokio_stream::Stream<Item = T> + Send + 'static,
) -> tonic::Request<impl tokio_stream::Stream<Item = T>> {
    let mut request = tonic::Request::new(tokio_stream::StreamExt::chain(tokio_stream::iter([begin]), rest));
    request.metadata_mut().insert("grpc-timeout", "99999999H".parse().unwrap());
    request
}

#[tokio::test]
async fn callers_that_send_nothing_keep_nobody_from_deploying() {
    let door = Door::open().await;
    let begin = begin_of("large", COMPONENT_BYTES_MAX);
    let mut silent = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let mut client = PluginServiceClient::connect(format!("http://{}", door.address)).await.unwrap();
        let begin = v1::UploadComponentRequest { part: Some(Part::Begin(begin.clone())) };
        let silence = begun(begin, tokio_stream::pending()).await;
        silent.spawn(async move { client.upload_component(silence).await.map(|_| ()) });
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let deployed = tokio::time::timeout(Duration::from_secs(5), door.deploy("b", Policy::Replace)).await;
    assert_eq!(deployed.expect("nobody waits for those").unwrap(), DeployOutcome::Runs);
    while let Some(ended) = silent.join_next().await {
        let status = ended.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::Aborted, "{status:?}");
    }
}

#[tokio::test]
async fn an_upload_that_is_cut_off_leaves_nothing_and_gives_its_memory_back() {
    let door = Door::open().await;
    let mut cut_off = tokio::task::JoinSet::new();
    for number in 0..4 {
        let begin = Part::Begin(begin_of(&number.to_string(), COMPONENT_BYTES_MAX));
        let begin = v1::UploadComponentRequest { part: Some(begin) };
        let chunk = tokio_stream::iter([v1::UploadComponentRequest { part: Some(chunk("some")) }]);
        let request = begun(begin, tokio_stream::StreamExt::chain(chunk, tokio_stream::pending())).await;
        let mut client = door.raw().await;
        cut_off.spawn(async move { client.upload_component(request).await.map(|_| ()) });
    }
    tokio::time::sleep(Duration::from_millis(50)).await; // they have all of the memory then
    cut_off.shutdown().await;
    let deployed = tokio::time::timeout(Duration::from_secs(5), door.deploy("b", Policy::Replace)).await;
    assert_eq!(deployed.expect("nobody waits for those").unwrap(), DeployOutcome::Runs);
    assert_eq!(door.components(), 2);
}

#[tokio::test]
async fn an_apply_over_the_wire_names_components_by_their_digests_and_no_file_of_the_bus() {
    let door = Door::open().await;
    let plan = door.bus.tree.plan();
    let apply = |proposal| door.client.apply(proposal, false, None);
    let missing = apply(Proposal::of(&plan, &[Digest::of(b"b")])).await;
    refused(missing, Code::NotFound, reason::UNKNOWN_COMPONENT);
    let missing = door.client.plan(Proposal::of(&plan, &[Digest::of(b"b")])).await;
    refused(missing, Code::NotFound, reason::UNKNOWN_COMPONENT);
    refused(apply(Proposal::of(&plan, &[door.world.file()])).await, Code::InvalidArgument, reason::INVALID_ARGUMENT);
    door.client.upload(Digest::of(b"b"), Bytes::from_static(b"b")).await.unwrap();
    let (changes, _) = apply(Proposal::of(&plan, &[Digest::of(b"b")])).await.unwrap();
    assert_eq!(changes.changes[0].name, "t/work");
    assert_eq!(door.bus.who().await, "b");
    let wrong = door.client.upload(Digest::of(b"c"), Bytes::from_static(b"d")).await;
    refused(wrong, Code::InvalidArgument, reason::DIGEST_MISMATCH);
    let request =
        v1::DeployRequest { component: Digest::of(b"c").to_string(), subscriber: "work".into(), ..Default::default() };
    let status = door.raw().await.deploy(request).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status:?}");
}

#[tokio::test]
async fn a_comparison_takes_memory_when_it_has_its_place() {
    let door = Door::open().await;
    let client = || ShadowServiceClient::connect(format!("http://{}", door.address));
    let begin = v1::shadow_request::Begin {
        subscriber: "work".into(),
        size_bytes: COMPONENT_BYTES_MAX,
        ..v1::shadow_request::Begin::default()
    };
    let begin = v1::ShadowRequest { part: Some(v1::shadow_request::Part::Begin(begin)) };
    let (mut first, mut second) = (client().await.unwrap(), client().await.unwrap());
    let request = begun(begin.clone(), tokio_stream::pending()).await;
    let compared = tokio::spawn(async move { first.shadow(request).await.map(|_| ()) });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = sent.clone();
    let chunks = (0..64).map(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        let chunk = v1::shadow_request::Part::Chunk(vec![b'x'; 1 << 20].into());
        v1::ShadowRequest { part: Some(chunk) }
    });
    let request = begun(begin, tokio_stream::iter(chunks)).await;
    let waits = tokio::spawn(async move { second.shadow(request).await.map(|_| ()) });
    let mut seen = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = sent.load(Ordering::SeqCst);
        if now == seen && now > 0 {
            break;
        }
        seen = now;
    }
    assert!(seen < 16, "{seen} MiB came in, and it has no place yet");
    let status = compared.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Aborted, "the first sends nothing: {status:?}");
    waits.await.unwrap().expect("the second has its place then");
}
