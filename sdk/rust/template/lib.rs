//! Greets whoever comes by.

use serde::{Deserialize, Serialize};
use wattle_plugin::{Event, Failure, Output, config, plugin};

plugin!(handle, ports: { GREETED = "greeted" });

config! {
    /// What the topology may tell this plugin, in `config:`. A mistyped name is refused before anything runs.
    struct Settings {
        /// What a greeting begins with.
        word: String = "Hello",
    }
}

#[derive(Deserialize)]
struct Visit {
    name: String,
}

#[derive(Debug, PartialEq, Serialize)]
struct Greeting {
    text: String,
}

/// Called for each event. What it returns is sent to the topic that the topology connects to the port; an error sends
/// the event to the dead letters.
fn handle(event: Event) -> Result<Output, Failure> {
    let visit: Visit = event.json()?;
    GREETED.json(&greet(&visit, &Settings::get()?.word))
}

fn greet(visit: &Visit, word: &str) -> Greeting {
    Greeting { text: format!("{word}, {}!", visit.name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_names_the_visitor() {
        let visit = Visit { name: "Ada".into() };
        assert_eq!(greet(&visit, "Hello"), Greeting { text: "Hello, Ada!".into() });
    }
}
