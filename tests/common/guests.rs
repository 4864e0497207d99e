//! The example plugins and the hostile one, built once per test process.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The component of a plugin in `plugins/`.
///
/// Panics with the compiler's words when it does not build.
pub fn guest(name: &str) -> Vec<u8> {
    let path = guest_path(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The file of that component, built.
pub fn guest_path(name: &str) -> PathBuf {
    build();
    folder().join("target/wasm32-wasip2/release").join(format!("{name}.wasm"))
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins")
}

/// Builds all of them, which takes a moment when nothing has changed.
fn build() {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let mut cargo = Command::new("cargo");
        cargo.args(["build", "--release", "--locked", "--target", "wasm32-wasip2", "--target-dir", "target"]);
        // What a cargo that runs this test says about itself is not for another one.
        for (name, _) in std::env::vars_os() {
            let kept = ["CARGO_HOME", "CARGO_NET_", "CARGO_HTTP_", "CARGO_REGISTR"];
            let name = name.to_string_lossy();
            if name.starts_with("CARGO") && !kept.iter().any(|kept| name.starts_with(kept)) || name == "RUSTFLAGS" {
                cargo.env_remove(&*name);
            }
        }
        let output = cargo.current_dir(folder()).output().expect("cargo is on the path");
        assert!(output.status.success(), "plugins/ does not build:\n{}", String::from_utf8_lossy(&output.stderr));
    });
}
