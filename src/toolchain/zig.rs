//! Zig: core modules by its own compiler, over the library of C.
//!
//! ```text
//!   root      wattle/root.zig      the exports of the plugin
//!   wattle    wattle/wattle.zig    the library, and wattle/c.zig, which is what it uses of wattle/wattle.h
//!   handler   src/handler.zig      the author's
//! ```

use std::path::Path;

use super::c::{headers, sources, zig};
use super::error::BuildError;
use super::language::Language;
use super::requirement::{ZIG, ZIG_VERSION};
use super::results::{LIBRARY, Results};

/// The author's module.
const HANDLER: &str = "src/handler.zig";
/// What the library's C is compiled with.
const C_FLAGS: [&str; 3] = ["-cflags", "-O2", "--"];

/// Builds a folder with a `wattle.toml`, to a core module.
pub(super) fn build(results: &Results, progress: &mut dyn FnMut(&str)) -> Result<Vec<u8>, BuildError> {
    let (folder, language) = (results.folder(), Language::Zig);
    let tool = zig(folder).ok_or(BuildError::NoTool { requirement: &ZIG, language })?;
    let found = tool.version(folder, &["version"])?;
    if !found.starts_with(&format!("{ZIG_VERSION}.")) {
        let (program, needed) = (tool.program, ZIG_VERSION.to_owned());
        return Err(BuildError::ToolVersion { requirement: &ZIG, language, program, found, needed });
    }
    if !folder.join(HANDLER).is_file() {
        return Err(BuildError::NoFile { path: folder.join(HANDLER), why: "it is the handler" });
    }
    let headers: Vec<String> = headers(folder).iter().map(|headers| format!("-I{}", headers.display())).collect();
    let core = results.target().join("core.wasm");
    let mut compile = tool.command(folder);
    compile.env("ZIG_LOCAL_CACHE_DIR", results.target().join("zig-cache"));
    compile.args(["build-exe", "-mexec-model=reactor", "-rdynamic", "-fno-entry"]);
    compile.args(["-OReleaseSafe", "-fstrip", "-lc", "--stack", "262144"]).args(&headers);
    compile.arg(format!("-femit-bin={}", core.display())).args(C_FLAGS).args(library(folder));
    for (dependency, name, path) in [
        ("wattle", "root", "wattle/root.zig"),
        ("handler", "wattle", "wattle/wattle.zig"),
        ("wattle", "handler", HANDLER),
    ] {
        compile.args(["-target", "wasm32-wasi", "--dep", dependency]).arg(format!("-M{name}={path}"));
    }
    progress("compiling: zig build-exe");
    tool.run(compile, folder, progress)?;
    std::fs::read(&core).map_err(|source| BuildError::Io { path: core, source })
}

/// The sources in C of the library.
fn library(folder: &Path) -> Vec<std::path::PathBuf> {
    sources(folder).into_iter().filter(|source| source.starts_with(LIBRARY)).collect()
}
