//! wasi:cli except for streams: no arguments, no environment, and no exit other than to return.

use wasmtime::Result;

use crate::wasm::contract::wasi::cli::{environment, exit};
use crate::wasm::state::{State, Stop};

impl environment::Host for State {
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

impl exit::Host for State {
    fn exit(&mut self, _: std::result::Result<(), ()>) -> Result<()> {
        Err(Stop::Exit.into())
    }

    fn exit_with_code(&mut self, _: u8) -> Result<()> {
        Err(Stop::Exit.into())
    }
}
