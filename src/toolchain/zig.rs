//! Zig: core modules by its own compiler, over the library of C.
//!
//! ```text
//!   root      wattle/root.zig      the exports of the plugin
//!   wattle    wattle/wattle.zig    the library
//!   c         wattle/wattle.h      translated
//!   handler   src/handler.zig      the author's
//! ```

use std::path::Path;
use std::process::{Command, Stdio};

use super::c::{headers, sources, zig};
use super::error::BuildError;
use super::language::Language;
use super::requirement::{ZIG, ZIG_VERSION};
use super::results::{LIBRARY, Results};
use super::tool::Tool;

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
    let zig = |arguments: &[&str]| {
        let mut command = tool.command(folder);
        command.args(arguments).env("ZIG_LOCAL_CACHE_DIR", results.target().join("zig-cache"));
        command
    };
    let headers: Vec<String> = headers(folder).iter().map(|headers| format!("-I{}", headers.display())).collect();
    let translated = results.target().join("c.zig");
    let mut translate = zig(&["translate-c", "-target", "wasm32-wasi", "-lc"]);
    translate.args(&headers).arg(Path::new(LIBRARY).join("wattle.h"));
    progress("translating the headers of the library: zig translate-c");
    write_output(&tool, translate, folder, &translated)?;

    let core = results.target().join("core.wasm");
    let mut compile = zig(&["build-exe", "-mexec-model=reactor", "-rdynamic", "-fno-entry", "-target", "wasm32-wasi"]);
    compile.args(["-OReleaseSafe", "-fstrip", "-lc", "--stack", "262144"]).args(&headers);
    compile.arg(format!("-femit-bin={}", core.display())).args(C_FLAGS).args(library(folder));
    for (dependencies, name, path) in [
        (&["wattle"][..], "root", "wattle/root.zig"),
        (&["c", "handler"], "wattle", "wattle/wattle.zig"),
        (&["wattle"], "handler", HANDLER),
    ] {
        compile.args(dependencies.iter().flat_map(|dependency| ["--dep", dependency]));
        compile.arg(format!("-M{name}={path}"));
        compile.args(["-target", "wasm32-wasi"]);
    }
    compile.arg(format!("-Mc={}", translated.display()));
    progress("compiling: zig build-exe");
    tool.run(compile, folder, progress)?;
    std::fs::read(&core).map_err(|source| BuildError::Io { path: core, source })
}

/// The sources in C of the library.
fn library(folder: &Path) -> Vec<std::path::PathBuf> {
    sources(folder).into_iter().filter(|source| source.starts_with(LIBRARY)).collect()
}

/// Runs a command whose output is a file.
fn write_output(tool: &Tool, mut command: Command, folder: &Path, path: &Path) -> Result<(), BuildError> {
    let file = std::fs::File::create(path).map_err(|source| BuildError::Io { path: path.to_owned(), source })?;
    let output = command.stdout(Stdio::from(file)).output().map_err(|source| tool.broken(source))?;
    if output.status.success() {
        return Ok(());
    }
    let output = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(BuildError::Compile { folder: folder.to_owned(), output })
}
