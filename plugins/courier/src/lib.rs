//! A component for `wasmcloud:messaging@0.2.0`: it knows nothing of Wattle, and runs there unchanged.
//!
//! A message whose body is a list of lines `SUBJECT TEXT` is delivered: each text goes to its subject. A line without a
//! text fails, and what was published for its message does not count.

use std::time::SystemTime;

use exports::wasmcloud::messaging::handler::Guest;
use wasmcloud::messaging::consumer;
use wasmcloud::messaging::types::BrokerMessage;

wit_bindgen::generate!({ world: "courier" });

struct Courier;

export!(Courier);

impl Guest for Courier {
    fn handle_message(message: BrokerMessage) -> Result<(), String> {
        let text = String::from_utf8(message.body).map_err(|error| error.to_string())?;
        for line in text.lines() {
            let (subject, text) = line.split_once(' ').ok_or_else(|| format!("no text for `{line}`"))?;
            let text = match text {
                // What it was told of the message, and of the world.
                "?" => {
                    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                    format!("{} {:?} {}", message.subject, message.reply_to, now.as_secs())
                }
                "!" => panic!("no such address"),
                text => text.to_owned(),
            };
            let reply_to = text.strip_prefix("reply to ").map(str::to_owned);
            consumer::publish(&BrokerMessage { subject: subject.to_owned(), body: text.into_bytes(), reply_to })?;
        }
        Ok(())
    }
}
