//! wasi:io/streams and the standard streams: output becomes log lines of the current event, input has ended.

use wasmtime::Result;
use wasmtime::component::Resource;

use super::clocks::Pollable;
use crate::wasm::contract::wasi::cli::{
    stderr, stdin, stdout, terminal_input, terminal_output, terminal_stderr, terminal_stdin, terminal_stdout,
};
use crate::wasm::contract::wasi::io::error;
use crate::wasm::contract::wasi::io::streams::{self, StreamError};
use crate::wasm::logs::Stream;
use crate::wasm::store_data::StoreData;

/// Streams do not fail: the type has no value.
pub enum NoError {}

/// Nothing is a terminal: the type has no value.
pub enum NoTerminal {}

/// Standard input, which has ended.
pub struct Input;

/// Standard output or error.
pub struct Output(Stream);

/// Maximum bytes per write. Larger data needs several writes.
const WRITE_BYTES_MAX: u64 = 64 * 1024;

type StreamResult<T> = Result<std::result::Result<T, StreamError>>;

impl error::HostError for StoreData {
    fn to_debug_string(&mut self, error: Resource<NoError>) -> Result<String> {
        match *self.table.get(&error)? {}
    }

    fn drop(&mut self, error: Resource<NoError>) -> Result<()> {
        match self.table.delete(error)? {}
    }
}

impl error::Host for StoreData {}

impl streams::HostInputStream for StoreData {
    fn read(&mut self, _: Resource<Input>, _: u64) -> StreamResult<Vec<u8>> {
        Ok(Err(StreamError::Closed))
    }

    fn blocking_read(&mut self, _: Resource<Input>, _: u64) -> StreamResult<Vec<u8>> {
        Ok(Err(StreamError::Closed))
    }

    fn skip(&mut self, _: Resource<Input>, _: u64) -> StreamResult<u64> {
        Ok(Err(StreamError::Closed))
    }

    fn blocking_skip(&mut self, _: Resource<Input>, _: u64) -> StreamResult<u64> {
        Ok(Err(StreamError::Closed))
    }

    fn subscribe(&mut self, _: Resource<Input>) -> Result<Resource<Pollable>> {
        self.push(Pollable::Ready)
    }

    fn drop(&mut self, stream: Resource<Input>) -> Result<()> {
        self.table.delete(stream)?;
        Ok(())
    }
}

impl streams::HostOutputStream for StoreData {
    fn check_write(&mut self, _: Resource<Output>) -> StreamResult<u64> {
        Ok(Ok(WRITE_BYTES_MAX))
    }

    fn write(&mut self, stream: Resource<Output>, contents: Vec<u8>) -> StreamResult<()> {
        let Output(stream) = *self.table.get(&stream)?;
        StoreData::write(self, stream, &contents);
        Ok(Ok(()))
    }

    fn blocking_write_and_flush(&mut self, stream: Resource<Output>, contents: Vec<u8>) -> StreamResult<()> {
        streams::HostOutputStream::write(self, stream, contents)
    }

    fn flush(&mut self, _: Resource<Output>) -> StreamResult<()> {
        Ok(Ok(()))
    }

    fn blocking_flush(&mut self, _: Resource<Output>) -> StreamResult<()> {
        Ok(Ok(()))
    }

    fn subscribe(&mut self, _: Resource<Output>) -> Result<Resource<Pollable>> {
        self.push(Pollable::Ready)
    }

    // Zeros are not logged.
    fn write_zeroes(&mut self, _: Resource<Output>, _: u64) -> StreamResult<()> {
        Ok(Ok(()))
    }

    fn blocking_write_zeroes_and_flush(&mut self, _: Resource<Output>, _: u64) -> StreamResult<()> {
        Ok(Ok(()))
    }

    // The only input has ended.
    fn splice(&mut self, _: Resource<Output>, _: Resource<Input>, _: u64) -> StreamResult<u64> {
        Ok(Err(StreamError::Closed))
    }

    fn blocking_splice(&mut self, _: Resource<Output>, _: Resource<Input>, _: u64) -> StreamResult<u64> {
        Ok(Err(StreamError::Closed))
    }

    fn drop(&mut self, stream: Resource<Output>) -> Result<()> {
        self.table.delete(stream)?;
        Ok(())
    }
}

impl streams::Host for StoreData {}

impl stdin::Host for StoreData {
    fn get_stdin(&mut self) -> Result<Resource<Input>> {
        self.push(Input)
    }
}

impl stdout::Host for StoreData {
    fn get_stdout(&mut self) -> Result<Resource<Output>> {
        self.push(Output(Stream::Output))
    }
}

impl stderr::Host for StoreData {
    fn get_stderr(&mut self) -> Result<Resource<Output>> {
        self.push(Output(Stream::Errors))
    }
}

impl terminal_input::HostTerminalInput for StoreData {
    fn drop(&mut self, terminal: Resource<NoTerminal>) -> Result<()> {
        match self.table.delete(terminal)? {}
    }
}

impl terminal_input::Host for StoreData {}

impl terminal_output::HostTerminalOutput for StoreData {
    fn drop(&mut self, terminal: Resource<NoTerminal>) -> Result<()> {
        match self.table.delete(terminal)? {}
    }
}

impl terminal_output::Host for StoreData {}

impl terminal_stdin::Host for StoreData {
    fn get_terminal_stdin(&mut self) -> Result<Option<Resource<NoTerminal>>> {
        Ok(None)
    }
}

impl terminal_stdout::Host for StoreData {
    fn get_terminal_stdout(&mut self) -> Result<Option<Resource<NoTerminal>>> {
        Ok(None)
    }
}

impl terminal_stderr::Host for StoreData {
    fn get_terminal_stderr(&mut self) -> Result<Option<Resource<NoTerminal>>> {
        Ok(None)
    }
}
