//! wasi:clocks and wasi:io/poll: clocks that start at the event's time, and waits that take no time.

use wasmtime::Result;
use wasmtime::component::Resource;

use crate::wasm::contract::wasi::clocks::{monotonic_clock, wall_clock};
use crate::wasm::contract::wasi::io::poll;
use crate::wasm::store_data::{StopCause, StoreData};

pub(super) const NS_PER_S: u64 = 1_000_000_000;

/// A pollable. Everything is ready, except a future time.
pub enum Pollable {
    Ready,
    /// Ready at this reading of the monotonic clock.
    At(u64),
}

fn datetime(ns: u64) -> wall_clock::Datetime {
    let nanoseconds = u32::try_from(ns % NS_PER_S).unwrap_or(0);
    wall_clock::Datetime { seconds: ns / NS_PER_S, nanoseconds }
}

impl wall_clock::Host for StoreData {
    fn now(&mut self) -> Result<wall_clock::Datetime> {
        Ok(datetime(self.wall_ns()))
    }

    fn resolution(&mut self) -> Result<wall_clock::Datetime> {
        Ok(datetime(1))
    }
}

impl monotonic_clock::Host for StoreData {
    fn now(&mut self) -> Result<u64> {
        Ok(self.monotonic_ns())
    }

    fn resolution(&mut self) -> Result<u64> {
        Ok(1)
    }

    fn subscribe_instant(&mut self, when: u64) -> Result<Resource<Pollable>> {
        self.push(Pollable::At(when))
    }

    fn subscribe_duration(&mut self, when: u64) -> Result<Resource<Pollable>> {
        let at = self.monotonic_ns().saturating_add(when);
        self.push(Pollable::At(at))
    }
}

impl poll::HostPollable for StoreData {
    fn ready(&mut self, pollable: Resource<Pollable>) -> Result<bool> {
        // Counts as a read of the clock, so that a loop that polls until it is ready ends.
        let now = self.monotonic_ns();
        Ok(match self.table.get(&pollable)? {
            Pollable::Ready => true,
            Pollable::At(at) => *at <= now,
        })
    }

    fn block(&mut self, pollable: Resource<Pollable>) -> Result<()> {
        if let Pollable::At(at) = *self.table.get(&pollable)? {
            self.sleep_until(at);
        }
        Ok(())
    }

    fn drop(&mut self, pollable: Resource<Pollable>) -> Result<()> {
        self.table.delete(pollable)?;
        Ok(())
    }
}

impl poll::Host for StoreData {
    fn poll(&mut self, pollables: Vec<Resource<Pollable>>) -> Result<Vec<u32>> {
        if pollables.is_empty() {
            return Err(StopCause::Protocol("`poll` was called with nothing to wait for".into()).into());
        }
        let mut times = Vec::with_capacity(pollables.len());
        for pollable in &pollables {
            times.push(match *self.table.get(pollable)? {
                Pollable::Ready => 0,
                Pollable::At(at) => at,
            });
        }
        let soonest = times.iter().copied().min().unwrap_or(0);
        self.sleep_until(soonest);
        let now = self.monotonic_ns();
        Ok((0..).zip(times).filter(|(_, at)| *at <= now).map(|(index, _)| index).collect())
    }
}
