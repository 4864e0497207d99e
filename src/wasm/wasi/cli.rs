//! wasi:cli except for streams: no arguments, no environment, and no exit other than to return.

use wasmtime::Result;

use crate::wasm::contract::wasi::cli::{environment, exit};
use crate::wasm::store_data::{StopCause, StoreData};

impl environment::Host for StoreData {
    fn get_environment(&mut self) -> Result<Vec<(String, String)>> {
        Ok(Vec::new())
    }

    fn get_arguments(&mut self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn initial_cwd(&mut self) -> Result<Option<String>> {
        Ok(None)
    }
}

impl exit::Host for StoreData {
    fn exit(&mut self, _: std::result::Result<(), ()>) -> Result<()> {
        Err(StopCause::Exit.into())
    }

    fn exit_with_code(&mut self, _: u8) -> Result<()> {
        Err(StopCause::Exit.into())
    }
}
