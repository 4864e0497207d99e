//! How the bus is with its disk and its clock.

use std::time::Duration;

use tonic::Code;
use wattle::api::{MissingEvents, Room, Storage};
use wattle::client::{ClientError, Window};

use super::bed::{LOG, all_of, bed, event, read_all};

#[tokio::test]
async fn a_full_disk_refuses_producers_and_says_when_to_try_again() {
    let bed = bed().await;
    bed.engine.storage.send_modify(|storage| storage.takes_events = false);
    let error = bed.client.publish(LOG, vec![event("a", "k")]).await.unwrap_err();
    assert!(error.is_retryable() && error.has_no_side_effects(), "{error}");
    let ClientError::Refused(refused) = error else { panic!("{error}") };
    assert_eq!((refused.code, refused.reason.as_str()), (Code::ResourceExhausted, "DISK_FULL"));
    assert_eq!(refused.retry_after, Some(Duration::from_secs(1)));
    assert!(refused.message.contains("make room"), "{}", refused.message);
    let status = bed.client.status().await.unwrap();
    assert_eq!(status.serving, Ok(()), "it still gives out events");
    assert_eq!(status.storage, Some(Storage { takes_events: false, ..Storage::default() }));
}

#[tokio::test]
async fn how_much_room_there_is_and_what_is_missing_is_said_as_it_is() {
    let bed = bed().await;
    let room = Room { left_bytes: 10 << 20, reserve_bytes: 8 << 20, publish_bytes: 1 << 20 };
    let (file, topic) = ("/data/log/segment-1".to_owned(), LOG.to_owned());
    let missing =
        vec![MissingEvents { file, topic, partition: 1, first_offset: 7, last_offset: 9, is_truncated: true }];
    bed.engine.storage.send_modify(|storage| (storage.room, storage.missing) = (Some(room), missing.clone()));
    let status = bed.client.status().await.unwrap();
    assert_eq!(status.serving, Ok(()));
    let storage = status.storage.unwrap();
    assert_eq!(storage, Storage { room: Some(room), missing, ..Storage::default() });
    assert_eq!(storage.publish_bytes_max(), Some(1 << 20), "less than a publish may have");
}

#[tokio::test]
async fn a_stream_goes_on_when_the_disk_has_room_again() {
    let bed = bed().await;
    bed.engine.storage.send_modify(|storage| storage.takes_events = false);
    let mut publishing = bed.client.publishing(LOG, Window::default());
    let room = bed.engine.storage.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        room.send_modify(|storage| storage.takes_events = true);
    });
    for number in 0..5 {
        publishing.send(vec![event(number.to_string(), "k")]).await.unwrap();
    }
    publishing.finish().await.unwrap();
    assert_eq!(read_all(&bed.client, all_of(LOG)).await.len(), 5);
}

#[tokio::test]
async fn a_clock_that_jumped_is_shown_until_it_is_confirmed() {
    let bed = bed().await;
    assert!(!bed.client.confirm_clock().await.unwrap());
    let jumped = Some(Duration::from_secs(49 * 3600));
    bed.engine.storage.send_modify(|storage| storage.clock_jumped = jumped);
    let clock = async || bed.client.status().await.unwrap().storage.unwrap().clock_jumped;
    assert_eq!(clock().await, jumped);
    assert!(bed.client.confirm_clock().await.unwrap());
    assert_eq!(clock().await, None);
    assert!(!bed.client.confirm_clock().await.unwrap());
}
