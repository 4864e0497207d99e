//! The clocks and random numbers of WASI 0.3, which are those of 0.2 under other names.
//!
//! Only the synchronous functions: to wait for a time is asynchronous there, and a component that does is refused.

#![allow(unsafe_code, reason = "derived: how a record lies in the memory of a component, checked against its types")]

use wasmtime::component::{ComponentType, Linker, Lower};
use wasmtime::{Result, StoreContextMut};

use super::clocks::NS_PER_S;
use crate::wasm::contract::wasi::random::{insecure, insecure_seed, random};
use crate::wasm::store_data::StoreData;

/// A time of the system clock.
#[derive(ComponentType, Lower)]
#[component(record)]
struct Instant {
    seconds: i64,
    nanoseconds: u32,
}

type Caller<'a> = StoreContextMut<'a, StoreData>;

pub(in crate::wasm) fn add_to_linker(linker: &mut Linker<StoreData>) -> Result<()> {
    let mut clock = linker.instance("wasi:clocks/monotonic-clock@0.3.0")?;
    clock.func_wrap("now", |mut caller: Caller<'_>, ()| Ok((caller.data_mut().monotonic_ns(),)))?;
    clock.func_wrap("get-resolution", |_: Caller<'_>, ()| Ok((1_u64,)))?;

    let mut clock = linker.instance("wasi:clocks/system-clock@0.3.0")?;
    clock.func_wrap("now", |caller: Caller<'_>, ()| {
        let ns = caller.data().wall_ns();
        let nanoseconds = u32::try_from(ns % NS_PER_S).unwrap_or(0);
        Ok((Instant { seconds: (ns / NS_PER_S).cast_signed(), nanoseconds },))
    })?;
    clock.func_wrap("get-resolution", |_: Caller<'_>, ()| Ok((1_u64,)))?;

    let mut numbers = linker.instance("wasi:random/random@0.3.0")?;
    numbers.func_wrap("get-random-bytes", |mut caller: Caller<'_>, (count,): (u64,)| {
        Ok((random::Host::get_random_bytes(caller.data_mut(), count)?,))
    })?;
    numbers.func_wrap("get-random-u64", |mut caller: Caller<'_>, ()| {
        Ok((random::Host::get_random_u64(caller.data_mut())?,))
    })?;

    let mut numbers = linker.instance("wasi:random/insecure@0.3.0")?;
    numbers.func_wrap("get-insecure-random-bytes", |mut caller: Caller<'_>, (count,): (u64,)| {
        Ok((insecure::Host::get_insecure_random_bytes(caller.data_mut(), count)?,))
    })?;
    numbers.func_wrap("get-insecure-random-u64", |mut caller: Caller<'_>, ()| {
        Ok((insecure::Host::get_insecure_random_u64(caller.data_mut())?,))
    })?;

    let mut seed = linker.instance("wasi:random/insecure-seed@0.3.0")?;
    seed.func_wrap("get-insecure-seed", |mut caller: Caller<'_>, ()| {
        Ok((insecure_seed::Host::insecure_seed(caller.data_mut())?,))
    })
}
