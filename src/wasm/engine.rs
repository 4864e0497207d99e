//! How WebAssembly is compiled and run: the settings of wasmtime, each with its reason.

use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, WasmBacktraceDetails};

use super::limits::{FIBER_STACK_BYTES, STACK_BYTES, TABLE_ELEMENTS};

/// How many core instances, memories and tables one component may be made of. A Rust component has three instances and
/// one memory; one of an interpreter with an adapter has more. What a component does not use costs address space only.
const CORE_INSTANCES_PER_COMPONENT: u32 = 16;
const MEMORIES_PER_COMPONENT: u32 = 4;
const TABLES_PER_COMPONENT: u32 = 8;

/// What one memory reserves of the address space, so that no access needs a check of its bounds.
const MEMORY_RESERVATION_BYTES: u64 = 4 << 30;

/// Memory that a slot keeps for the next instance in it instead of giving it back to the system, where the kernel can
/// tell which pages were touched. Halves the cost of a fresh instance.
const KEEP_RESIDENT_BYTES: usize = 1 << 20;

pub(super) fn engine(instances: u32) -> wasmtime::Result<Engine> {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(CORE_INSTANCES_PER_COMPONENT))
        .total_memories(instances.saturating_mul(MEMORIES_PER_COMPONENT))
        .total_tables(instances.saturating_mul(TABLES_PER_COMPONENT))
        .total_stacks(instances)
        .max_core_instances_per_component(CORE_INSTANCES_PER_COMPONENT)
        .max_memories_per_component(MEMORIES_PER_COMPONENT)
        .max_tables_per_component(TABLES_PER_COMPONENT)
        .table_elements(TABLE_ELEMENTS);
    if PoolingAllocationConfig::is_pagemap_scan_available() {
        pool.pagemap_scan(Enabled::Yes).linear_memory_keep_resident(KEEP_RESIDENT_BYTES);
    }

    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .memory_reservation(MEMORY_RESERVATION_BYTES)
        // The same inputs give the same outputs, on any processor.
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        // Plugins give way to each other, and end when their time is up. Fuel would do it at twice the cost.
        .epoch_interruption(true)
        // Components are called one at a time; what asynchronous ones need would cost each call 0.2 us.
        .concurrency_support(false)
        .max_wasm_stack(STACK_BYTES)
        .async_stack_size(FIBER_STACK_BYTES)
        // Names of functions in a backtrace; lines would need debug information, which release builds do not carry.
        .wasm_backtrace_details(WasmBacktraceDetails::Disable);
    Engine::new(&config)
}
