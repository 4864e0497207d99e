//! wasi:filesystem without files.
//!
//! The C library of many languages requires the interface; without a preopened directory there are no descriptors, so
//! its methods can never be called. Therefore they are linked by name instead of being implemented.

use wasmtime::Result;
use wasmtime::component::{Linker, ResourceType, Val};

use crate::wasm::store_data::{StopCause, StoreData};

/// Never created.
enum Descriptor {}

/// Never created.
enum DirectoryEntries {}

const DESCRIPTOR_METHODS: &[&str] = &[
    "read-via-stream",
    "write-via-stream",
    "append-via-stream",
    "advise",
    "sync-data",
    "get-flags",
    "get-type",
    "set-size",
    "set-times",
    "read",
    "write",
    "read-directory",
    "sync",
    "create-directory-at",
    "stat",
    "stat-at",
    "set-times-at",
    "link-at",
    "open-at",
    "readlink-at",
    "remove-directory-at",
    "rename-at",
    "symlink-at",
    "unlink-file-at",
    "is-same-object",
    "metadata-hash",
    "metadata-hash-at",
];

pub(in crate::wasm) fn add_to_linker(linker: &mut Linker<StoreData>) -> Result<()> {
    let mut preopens = linker.instance("wasi:filesystem/preopens@0.2.12")?;
    preopens.func_new("get-directories", |_, _, _, results| {
        if let [directories] = results {
            *directories = Val::List(Vec::new());
        }
        Ok(())
    })?;

    let mut types = linker.instance("wasi:filesystem/types@0.2.12")?;
    types.resource("descriptor", ResourceType::host::<Descriptor>(), |_, _| Ok(()))?;
    types.resource("directory-entry-stream", ResourceType::host::<DirectoryEntries>(), |_, _| Ok(()))?;
    let methods = DESCRIPTOR_METHODS.iter().map(|method| format!("[method]descriptor.{method}"));
    let others = ["[method]directory-entry-stream.read-directory-entry", "filesystem-error-code"];
    for name in methods.chain(others.map(str::to_owned)) {
        let named = name.clone();
        types.func_new(&name, move |_, _, _, _| Err(StopCause::Files(named.clone()).into()))?;
    }
    Ok(())
}
