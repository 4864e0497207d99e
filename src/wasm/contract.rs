//! The host's side of `wit/`, generated: types, traits that the data of a store implements, typed exports.
//!
//! Private: no type of wasmtime or of the contract is visible outside of `wasm`.

#![allow(unsafe_code, reason = "generated: typed exports are looked up once and checked against the component's types")]
#![allow(missing_docs, unreachable_pub, reason = "generated; the contract itself is documented in wit/")]
#![allow(clippy::all, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "generated")]
#![allow(clippy::allow_attributes_without_reason, clippy::large_futures, reason = "generated")]

wasmtime::component::bindgen!({
    path: "wit",
    // Files and sockets are omitted on purpose: see `wasi::files` and `wasi::sockets`.
    inline: "
        package wattle:host;
        world sandbox {
            include wattle:plugin/plugin@0.1.0;
            import wasi:cli/environment@0.2.12;
            import wasi:cli/exit@0.2.12;
            import wasi:cli/stdin@0.2.12;
            import wasi:cli/stdout@0.2.12;
            import wasi:cli/stderr@0.2.12;
            import wasi:cli/terminal-input@0.2.12;
            import wasi:cli/terminal-output@0.2.12;
            import wasi:cli/terminal-stdin@0.2.12;
            import wasi:cli/terminal-stdout@0.2.12;
            import wasi:cli/terminal-stderr@0.2.12;
            import wasi:clocks/monotonic-clock@0.2.12;
            import wasi:clocks/wall-clock@0.2.12;
            import wasi:io/error@0.2.12;
            import wasi:io/poll@0.2.12;
            import wasi:io/streams@0.2.12;
            import wasi:random/random@0.2.12;
            import wasi:random/insecure@0.2.12;
            import wasi:random/insecure-seed@0.2.12;
        }
    ",
    world: "wattle:host/sandbox",
    ownership: Borrowing { duplicate_if_necessary: true },
    imports: { default: trappable },
    exports: { default: async },
    with: {
        "wasi:io/error.error": crate::wasm::wasi::streams::NoError,
        "wasi:io/poll.pollable": crate::wasm::wasi::clocks::Pollable,
        "wasi:io/streams.input-stream": crate::wasm::wasi::streams::Input,
        "wasi:io/streams.output-stream": crate::wasm::wasi::streams::Output,
        "wasi:keyvalue/store.bucket": crate::wasm::keyvalue::Bucket,
        "wasi:keyvalue/atomics.cas": crate::wasm::keyvalue::Cas,
        "wasi:cli/terminal-input.terminal-input": crate::wasm::wasi::streams::NoTerminal,
        "wasi:cli/terminal-output.terminal-output": crate::wasm::wasi::streams::NoTerminal,
    },
});
