//! The settings of wasmtime, each with its reason.

use std::sync::Arc;

use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, WasmBacktraceDetails};

use super::functions::FunctionCache;
use super::limits::{FIBER_STACK_BYTES, STACK_BYTES, TABLE_ELEMENTS};

/// Maximum core instances, memories and tables per component. A Rust component has three instances and one memory,
/// CPython has 16 instances, and each component that is composed with it adds some. A maximum of instances costs
/// nothing; memories and tables that are not used cost address space.
pub(super) const CORE_INSTANCES_PER_COMPONENT: u32 = 64;
pub(super) const MEMORIES_PER_COMPONENT: u32 = 4;
pub(super) const TABLES_PER_COMPONENT: u32 = 8;

/// The address space that one memory reserves, so that accesses need no bounds checks.
const MEMORY_RESERVATION_BYTES: u64 = 4 << 30;

/// Memory of a slot that is kept for its next instance instead of being returned to the system, if the kernel can
/// report which pages were touched. Halves the cost of a fresh instance.
const KEEP_RESIDENT_BYTES: usize = 1 << 20;

/// The engine of a host. `functions` keeps what was compiled before.
pub(super) fn engine(instances: u32, functions: Option<Arc<FunctionCache>>) -> wasmtime::Result<Engine> {
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
        // Plugins yield to each other, and end when their time is up. Fuel would do the same at twice the cost.
        .epoch_interruption(true)
        // Components are called one at a time; support for asynchronous ones would cost each call 0.2 us.
        .concurrency_support(false)
        .max_wasm_stack(STACK_BYTES)
        .async_stack_size(FIBER_STACK_BYTES)
        // Names of functions in a backtrace; line numbers would need debug information, which release builds lack.
        .wasm_backtrace_details(WasmBacktraceDetails::Disable);
    if let Some(functions) = functions {
        config.enable_incremental_compilation(functions)?;
    }
    Engine::new(&config)
}
