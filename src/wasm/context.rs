//! The contract's own imports: the current event, its attributes, log lines, configuration.

use wasmtime::Result;

use super::contract::wasi::config::store;
use super::contract::wasi::logging::logging;
use super::contract::wattle::plugin::{context, types};
use super::store_data::StoreData;
use crate::model::call::LogLevel;

impl types::Host for StoreData {}

impl context::Host for StoreData {
    fn current(&mut self, index: u32) -> Result<()> {
        Ok(self.turn_to(index)?)
    }

    fn attributes(&mut self) -> Result<String> {
        Ok(StoreData::attributes(self))
    }

    fn ports(&mut self) -> Result<Vec<String>> {
        Ok(self.ports.to_vec())
    }
}

impl logging::Host for StoreData {
    fn log(&mut self, level: logging::Level, context: String, message: String) -> Result<()> {
        let level = match level {
            logging::Level::Trace => LogLevel::Trace,
            logging::Level::Debug => LogLevel::Debug,
            logging::Level::Info => LogLevel::Info,
            logging::Level::Warn => LogLevel::Warn,
            logging::Level::Error | logging::Level::Critical => LogLevel::Error,
        };
        self.say(level, &context, &message);
        Ok(())
    }
}

impl store::Host for StoreData {
    fn get(&mut self, key: String) -> Result<std::result::Result<Option<String>, store::Error>> {
        Ok(Ok(self.config.get(&key).cloned()))
    }

    fn get_all(&mut self) -> Result<std::result::Result<Vec<(String, String)>, store::Error>> {
        Ok(Ok(self.config.iter().map(|(key, value)| (key.clone(), value.clone())).collect()))
    }
}
