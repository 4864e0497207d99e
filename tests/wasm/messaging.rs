//! Components for `wasmcloud:messaging`, which run unchanged.

use std::sync::LazyLock;

use wattle::model::call::{Action, CallErrorKind, Handled, Limits};
use wattle::wasm::{Host, Plugin, PluginSpec, RegisterError};

use crate::common::guests::guest;
use crate::common::plugin_calls::{START_NS, call, host, sent, spec};

static HOST: LazyLock<Host> = LazyLock::new(host);

fn courier(limits: Limits) -> Plugin {
    HOST.register(PluginSpec { limits, ..spec("courier", &["left", "right.1"]) }).unwrap()
}

/// The outputs: of which event, to which port, and their data.
fn outputs(handled: &Handled) -> Vec<(u32, u32, String)> {
    let text = |data: &[u8]| String::from_utf8_lossy(data).into_owned();
    handled.outputs.iter().map(|output| (output.event, output.port, text(&output.data))).collect()
}

fn output(event: u32, port: u32, data: &str) -> (u32, u32, String) {
    (event, port, data.to_owned())
}

#[tokio::test]
async fn what_is_published_goes_to_the_port_of_that_name() {
    let plugin = courier(Limits::default());
    assert!(!plugin.declares_ports());
    let events = [sent("a", "left one\nright.1 two\nleft three"), sent("b", ""), sent("c", "right.1 reply to d")];
    let handled = call(&plugin, &events).await.0.unwrap();
    let expected = [output(0, 0, "one"), output(0, 1, "two"), output(0, 0, "three"), output(2, 1, "reply to d")];
    assert_eq!(outputs(&handled), expected);
    assert_eq!(handled.failure(), None);
    let [first, .., last] = handled.outputs.as_slice() else { panic!("{handled:?}") };
    // As of any output that says nothing of these.
    assert_eq!((first.r#type.as_str(), first.content_type.as_str(), &first.key), ("left", "application/json", &None));
    assert_eq!((first.attributes.as_str(), last.attributes.as_str()), ("", "replyto=d\n"));
}

/// `subject` of the event; time, as everything else that it sees, is the event's.
#[tokio::test]
async fn a_message_says_of_its_event_what_one_can_say() {
    let plugin = courier(Limits::default());
    let handled = call(&plugin, &[sent("a", "left ?"), sent("ask-b", "left ?")]).await.0.unwrap();
    let seconds = START_NS / 1_000_000_000;
    let first = format!("about a None {seconds}");
    let second = format!("about ask-b Some(\"b\") {seconds}");
    assert_eq!(outputs(&handled), [output(0, 0, &first), output(1, 0, &second)]);
}

#[tokio::test]
async fn an_error_is_a_retry_and_a_trap_is_a_trap() {
    let plugin = courier(Limits::default());
    let events = |bad: &str| [sent("a", "left one"), sent("b", format!("left lost\n{bad}")), sent("c", "left three")];
    for (bad, reason) in [
        ("nothing", "no text for `nothing`"),
        ("Nowhere x", "no port `Nowhere` of this subscriber: add it to its `to:`"),
        ("left reply to \u{7}", "the reply subject has control characters"),
    ] {
        let handled = call(&plugin, &events(bad)).await.0.unwrap();
        assert_eq!(outputs(&handled), [output(0, 0, "one")], "{bad}");
        let failure = handled.failure().unwrap();
        assert_eq!((failure.event, failure.action), (1, Action::Retry(None)), "{bad}");
        assert!(failure.reason.contains(reason), "{}", failure.reason);
    }
    let error = call(&plugin, &events("left !")).await.0.unwrap_err();
    assert_eq!((error.event, error.kind), (Some(1), CallErrorKind::Trap), "{error}");
    assert!(error.message.contains("no such address"), "{error}");
    // Another instance handles the next call.
    let handled = call(&plugin, &[sent("c", "left three")]).await.0.unwrap();
    assert_eq!(outputs(&handled), [output(0, 0, "three")]);
}

#[tokio::test]
async fn what_is_published_is_bounded() {
    let plugin = courier(Limits { output_bytes: 1_000, ..Limits::default() });
    let many = "left 0123456789\n".repeat(101);
    let error = call(&plugin, &[sent("a", "left one"), sent("b", many)]).await.0.unwrap_err();
    assert_eq!((error.event, error.kind), (Some(1), CallErrorKind::OutputTooLarge), "{error}");
    // Before the call has ended, so that no call costs the bus more than that.
    let endless = "left x\n".repeat(100_000);
    let error = call(&plugin, &[sent("b", endless)]).await.0.unwrap_err();
    assert_eq!(error.kind, CallErrorKind::OutputTooLarge, "{error}");
    assert!(error.message.contains("publish more together"), "{error}");
    // Of each call by itself, however many an instance has handled.
    let events: Vec<_> = (0..20).map(|_| sent("c", "left 0123456789\n".repeat(50))).collect();
    for _ in 0..200 {
        assert_eq!(call(&plugin, &events).await.0.unwrap().outputs.len(), 1_000);
    }
}

/// A component whose handler of messages is this, with an import of the consumer that has these functions.
fn component(consumer: &str, handle: &str) -> Result<Plugin, RegisterError> {
    let text = format!(
        r#"(component
            (import "wasmcloud:messaging/types@0.2.0" (instance $types
                (type $m (record (field "subject" string) (field "body" (list u8)) (field "reply-to" (option string))))
                (export "broker-message" (type (eq $m)))))
            (alias export $types "broker-message" (type $message))
            (import "wasmcloud:messaging/consumer@0.2.0" (instance
                (alias outer 1 $message (type $m))
                (export "broker-message" (type $message (eq $m)))
                {consumer}))
            (core module $m
                (memory (export "memory") 1)
                (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 1024)
                (func (export "handle") (param i32 i32 i32 i32 i32 i32 i32) (result i32) i32.const 0)
                (func (export "other") (param i32)))
            (core instance $i (instantiate $m))
            {handle}
            (instance $handler (export "handle-message" (func $handle)))
            (export "wasmcloud:messaging/handler@0.2.0" (instance $handler)))"#
    );
    HOST.register(PluginSpec { wasm: wat::parse_str(text).unwrap(), ..spec("courier", &[]) })
}

const HANDLE: &str = r#"(func $handle (param "msg" $message) (result (result (error string)))
    (canon lift (core func $i "handle") (memory $i "memory") (realloc (core func $i "realloc"))))"#;
const PUBLISH: &str = r#"(export "publish" (func (param "msg" $message) (result (result (error string)))))"#;
const REQUEST: &str = r#"(export "request" (func (param "subject" string) (param "body" (list u8))
    (param "timeout-ms" u32) (result (result $message (error string)))))"#;

#[tokio::test]
async fn a_component_that_asks_for_answers_is_refused() {
    let plugin = component(PUBLISH, HANDLE).unwrap();
    assert!(call(&plugin, &[sent("a", "x")]).await.0.unwrap().outputs.is_empty());
    let refused = component(&format!("{PUBLISH}{REQUEST}"), HANDLE).unwrap_err();
    assert!(matches!(refused, RegisterError::Imports { .. }), "{refused}");
    assert!(refused.to_string().contains("the function `request`"), "{refused}");
    assert!(refused.to_string().contains("nothing answers on this bus"), "{refused}");
}

#[test]
fn a_handler_of_another_type_is_refused() {
    let other = r#"(func $handle (param "msg" u32) (canon lift (core func $i "other")))"#;
    let refused = component(PUBLISH, other).unwrap_err();
    assert!(matches!(refused, RegisterError::Signature { .. }), "{refused}");
    assert!(refused.to_string().contains("`handle-message`"), "{refused}");
}

#[test]
fn another_version_is_named_and_plugins_of_the_contract_do_not_publish() {
    let refusal = |text: &str| {
        let wasm = wat::parse_str(text).unwrap();
        HOST.register(PluginSpec { wasm, ..spec("courier", &[]) }).unwrap_err().to_string()
    };
    let other = refusal(r#"(component (instance $i) (export "wasmcloud:messaging/handler@0.1.0" (instance $i)))"#);
    assert!(other.contains("`wasmcloud:messaging` this host has version 0.2.0"), "{other}");
    let mixed = refusal(
        r#"(component
            (import "wasmcloud:messaging/consumer@0.2.0" (instance))
            (instance $i)
            (export "wattle:plugin/handler@0.1.0" (instance $i)))"#,
    );
    assert!(mixed.contains("plugins of this contract send by returning outputs"), "{mixed}");
    assert!(String::from_utf8_lossy(&guest("courier")).contains("wasmcloud:messaging/consumer@0.2.0"));
}
