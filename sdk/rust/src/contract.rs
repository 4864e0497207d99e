//! What the component says to its host, generated from the contract. Handlers do not need it: see the crate's root.

#![allow(missing_docs, reason = "generated; the contract itself is documented")]

wit_bindgen::generate!({
    path: "../../wit",
    world: "plugin",
    generate_all,
    pub_export_macro: true,
    export_macro_name: "export_component",
});
