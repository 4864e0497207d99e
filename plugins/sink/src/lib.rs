//! Takes events and sends none: the least that a plugin can be. One setting says how long their data may be.

use wattle_plugin::{Event, Failure, config_or, plugin, state_version};

plugin!(handle);
state_version!(0x3_e8);

fn handle(event: Event) -> Result<(), Failure> {
    let bytes_max: usize = config_or("bytes_max", usize::MAX)?;
    match event.data.len() {
        bytes if bytes > bytes_max => Err(Failure::reject(format!("it has {bytes} bytes"))),
        _ => Ok(()),
    }
}
