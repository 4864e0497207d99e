//! wasi:random: bytes derived from the event's seed, and a constant hash seed.

use wasmtime::Result;

use crate::wasm::contract::wasi::random::{insecure, insecure_seed, random};
use crate::wasm::limits::RANDOM_BYTES_MAX;
use crate::wasm::store_data::{StopCause, StoreData};

/// Maps of most languages take their seed once per instance; a constant keeps their order independent of the instance.
const HASH_SEED: (u64, u64) = (0x7761_7474_6c65_2068, 0x6173_6820_7365_6564);

fn bytes(state: &mut StoreData, count: u64) -> Result<Vec<u8>> {
    let size = usize::try_from(count).ok().filter(|_| count <= RANDOM_BYTES_MAX).ok_or(StopCause::Random(count))?;
    let mut bytes = vec![0; size];
    state.random(&mut bytes);
    Ok(bytes)
}

fn number(state: &mut StoreData) -> u64 {
    let mut bytes = [0; 8];
    state.random(&mut bytes);
    u64::from_le_bytes(bytes)
}

impl random::Host for StoreData {
    fn get_random_bytes(&mut self, len: u64) -> Result<Vec<u8>> {
        bytes(self, len)
    }

    fn get_random_u64(&mut self) -> Result<u64> {
        Ok(number(self))
    }
}

impl insecure::Host for StoreData {
    fn get_insecure_random_bytes(&mut self, len: u64) -> Result<Vec<u8>> {
        bytes(self, len)
    }

    fn get_insecure_random_u64(&mut self) -> Result<u64> {
        Ok(number(self))
    }
}

impl insecure_seed::Host for StoreData {
    fn insecure_seed(&mut self) -> Result<(u64, u64)> {
        Ok(HASH_SEED)
    }
}
