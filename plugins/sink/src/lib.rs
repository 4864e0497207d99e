//! Takes events and sends none: the least that a plugin can be. One setting says how long their data may be.

use wattle_plugin::{Event, Failure, config, plugin, state_version};

plugin!(handle);
state_version!(0x3_e8);

config! {
    struct Settings {
        /// Bytes that the data of an event may have; any number where nothing is said.
        bytes_max: Option<usize>,
    }
}

fn handle(event: Event) -> Result<(), Failure> {
    let bytes_max = Settings::get()?.bytes_max;
    match event.data.len() {
        bytes if bytes_max.is_some_and(|bytes_max| bytes > bytes_max) => {
            Err(Failure::reject(format!("it has {bytes} bytes")))
        }
        _ => Ok(()),
    }
}
