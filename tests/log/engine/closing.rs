//! The end: what was accepted is kept, and everyone is told.

use wattle::engine::{AppendError, ApplyError, Engine, Health, Session, SessionError, StopReason};

use super::home::Home;
use super::{ALL, append, blueprint, commit, everything, lane, partition, slices, tree};

pub(crate) async fn a_closed_engine_says_so(home: impl Home) {
    let engine = home.open();
    let tree = tree(&engine).await;
    let partition = partition(tree.orders, 0);
    append(&engine, partition, &["a"]).await;
    let mut session = engine.acquire(lane(tree.validate, 0)).await.unwrap();
    let mut health = engine.health();
    engine.close().await.unwrap();
    let stopped = health.wait_for(|health| *health != Health::Serving).await.unwrap().clone();
    assert_eq!(stopped, Health::Stopped(StopReason::Closed));
    assert_eq!(*engine.health().borrow(), Health::Stopped(StopReason::Closed), "also who asks later is told");
    let error = engine.append(slices(&[(partition, "b")])).await.unwrap_err();
    assert!(matches!(error, AppendError::Stopped(StopReason::Closed)), "{error:?}");
    let error = engine.acquire(lane(tree.validate, 0)).await.err();
    assert!(matches!(error, Some(SessionError::Stopped(StopReason::Closed))), "{error:?}");
    for blueprint in [blueprint(&[("new", 1)], &[]), blueprint(&[("shop/orders", 3)], &[])] {
        let error = engine.apply(&blueprint).await.unwrap_err();
        assert!(matches!(error, ApplyError::Stopped(StopReason::Closed)), "{error:?}");
    }
    assert!(matches!(session.read(ALL).await, Err(SessionError::Stopped(StopReason::Closed))));
    assert!(matches!(commit(&mut session, 1, &[]).await, Err(SessionError::Stopped(StopReason::Closed))));
    assert!(matches!(session.flush().await, Err(SessionError::Stopped(StopReason::Closed))));
    assert_eq!(engine.wait_durable(partition, 1).await, Err(StopReason::Closed));
    engine.close().await.unwrap();
}

pub(crate) async fn closing_wakes_whoever_waits(home: impl Home) {
    let engine = home.open();
    let tree = tree(&engine).await;
    let mut session = engine.acquire(lane(tree.validate, 0)).await.unwrap();
    let reads = tokio::spawn(async move { session.read(ALL).await.map(drop) });
    let waits = tokio::spawn({
        let engine = engine.clone();
        async move { engine.wait_durable(partition(tree.orders, 0), 0).await }
    });
    let (first, second) = tokio::join!(engine.close(), engine.close());
    assert_eq!((first, second), (Ok(()), Ok(())), "two may close at once");
    assert!(matches!(reads.await.unwrap(), Err(SessionError::Stopped(StopReason::Closed))));
    assert_eq!(waits.await.unwrap(), Err(StopReason::Closed));
}

pub(crate) async fn what_was_durable_can_be_read_after_closing(home: impl Home) {
    let engine = home.open();
    let tree = tree(&engine).await;
    append(&engine, partition(tree.orders, 0), &["a", "b"]).await;
    engine.close().await.unwrap();
    assert_eq!(everything(&engine, partition(tree.orders, 0)).await, ["a", "b"]);
    assert_eq!(engine.bounds(partition(tree.orders, 0)).unwrap().durable, 2);
}
