//! The example plugins through the host, as dispatch calls them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod common {
    #![allow(unreachable_pub, dead_code, reason = "shared by several tests, each of which uses a part")]
    pub mod guests;
    pub mod plugin_calls;
}

use common::plugin_calls::{call, host, sent, spec};
use wattle::wasm::Action;

const ORDER: &str = r#"{"order_id":"o-1","status":"paid","currency":"EUR","customer":{"name":"Ada","email":"ada@example.test"},
    "items":[{"sku":"lamp","qty":2,"price_cents":1999}],"total_cents":3998}"#;

#[tokio::test]
async fn a_batch_gives_outputs_by_port_up_to_the_first_failure() {
    let plugin = host().register(spec("validate", &["refused", "accepted"])).unwrap();
    let wrong = ORDER.replace("3998", "1");
    let events = [sent("a", ORDER), sent("b", wrong), sent("c", "no order"), sent("d", ORDER)];

    let (handled, _) = call(&plugin, &events).await;

    let handled = handled.unwrap();
    let [accepted, refused] = handled.outputs.as_slice() else { panic!("{handled:?}") };
    assert_eq!((accepted.event, accepted.port, accepted.r#type.as_str()), (0, 1, "order.accepted"));
    assert_eq!(accepted.data, ORDER.as_bytes());
    assert_eq!((refused.event, refused.port, refused.content_type.as_str()), (1, 0, "application/json"));
    let failed = handled.failed.unwrap();
    assert_eq!((failed.event, failed.action), (2, Action::Reject));
    assert!(failed.reason.contains("expected ident at line 1"), "{}", failed.reason);
}
