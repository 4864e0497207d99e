//! C and C++: core modules by clang with wasi-libc, or by zig, which brings both.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::error::BuildError;
use super::language::Language;
use super::requirement::{self, Requirement};
use super::results::{LIBRARY, Results};
use super::tool::Tool;
use crate::deploy::is_output;

/// The target as both compilers know it.
const TARGET: &str = "--target=wasm32-wasi";
/// What the compilers are called, the newest first.
const CLANGS: [&str; 10] = [
    "clang", "clang-22", "clang-21", "clang-20", "clang-19", "clang-18", "clang-17", "clang-16", "clang-15", "clang-14",
];
/// The stack of a plugin. That of clang, 64 KiB, is little for a handler with a buffer, and that of zig, 16 MiB, much
/// memory for each instance.
const STACK: &str = "-Wl,-z,stack-size=262144";
/// A file of flags, one a line, which editors read as well.
const FLAGS: &str = "compile_flags.txt";
/// Folders of the library that are no part of a plugin.
const NO_LIBRARY: [&str; 5] = ["template", "probe", "test", "tests", "examples"];

/// The compilers of a folder.
struct Compilers {
    c: Tool,
    cpp: Tool,
    is_zig: bool,
}

/// Builds a folder with a `wattle.toml`, to a core module.
pub(super) fn build(
    results: &Results,
    language: Language,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<u8>, BuildError> {
    let folder = results.folder();
    let requirement = if language == Language::Cpp { &requirement::CPP } else { &requirement::C };
    let compilers = Compilers::find(folder, language, requirement)?;
    let mut sources = sources(folder);
    if !sources.iter().any(|source| !source.starts_with(LIBRARY)) {
        let path = folder.join(if language == Language::Cpp { "src/handler.cpp" } else { "src/handler.c" });
        return Err(BuildError::NoFile { path, why: "there is no source beside the library" });
    }
    let objects = results.target().join("objects");
    std::fs::create_dir_all(&objects).map_err(|source| BuildError::Io { path: objects.clone(), source })?;
    let flags = Flags::of(results, compilers.is_zig);
    let mut linked = Vec::new();
    for (number, source) in sources.drain(..).enumerate() {
        if source.extension() == Some(OsStr::new("o")) {
            linked.push(source);
            continue;
        }
        // The authors' own sources are compiled with warnings, and the library without.
        let is_own = !source.starts_with(LIBRARY);
        if is_own {
            progress(&format!("compiling {}", source.display()));
        }
        let object = objects.join(format!("{number}.o"));
        let (tool, standard): (_, &[&str]) = match is_cpp(&source) {
            true => (&compilers.cpp, &["-fno-exceptions", "-fno-rtti"]),
            false => (&compilers.c, &[]),
        };
        let mut command = flags.command(tool);
        command.args(standard).args(flags.own.iter().filter(|flag| is_own && is_for(flag, &source)));
        command.arg("-c").arg(&source);
        command.arg("-o").arg(&object);
        tool.run(command, folder, progress)?;
        linked.push(object);
    }
    let core = results.target().join("core.wasm");
    let linker = if language == Language::Cpp { &compilers.cpp } else { &compilers.c };
    let mut command = flags.command(linker);
    command.args(["-mexec-model=reactor", "-Wl,--strip-all", STACK]);
    if !compilers.is_zig {
        // A stack that is too deep traps, instead of growing into data. Zig's linker always does so.
        command.arg("-Wl,--stack-first");
    }
    command.args(linked).arg("-o").arg(&core);
    linker.run(command, folder, progress)?;
    std::fs::read(&core).map_err(|source| BuildError::Io { path: core, source })
}

impl Compilers {
    /// Clang where it makes a program for WASI, or else zig.
    fn find(folder: &Path, language: Language, requirement: &'static Requirement) -> Result<Self, BuildError> {
        let sdk = std::env::var_os("WASI_SDK_PATH").map(|sdk| PathBuf::from(sdk).join("bin/clang"));
        let sdk = sdk.filter(|clang| clang.is_file()).map(Tool::at);
        let clangs = sdk.into_iter().chain(CLANGS.iter().filter_map(|name| Tool::find(folder, &[name])));
        for clang in clangs {
            let name = clang.program.file_name().map(|name| name.to_string_lossy().replace("clang", "clang++"));
            let cpp = Tool::at(clang.program.with_file_name(name.unwrap_or_default()));
            let (tested, header, kind) = match language {
                Language::Cpp => (&cpp, "#include <string>\n", "c++"),
                _ => (&clang, "#include <stdlib.h>\n", "c"),
            };
            if compiles(tested, folder, header, kind) {
                return Ok(Self { c: clang, cpp, is_zig: false });
            }
        }
        let zig = zig(folder).ok_or(BuildError::NoTool { requirement, language })?;
        Ok(Self { c: zig.clone().with(&["cc"]), cpp: zig.with(&["c++"]), is_zig: true })
    }
}

/// Zig, as a program or as a package of Python.
pub(super) fn zig(folder: &Path) -> Option<Tool> {
    let package = || {
        let python = Tool::find(folder, &["python3", "python"])?;
        let mut command = python.command(folder);
        command.args(["-c", "import ziglang"]).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().ok().filter(std::process::ExitStatus::success)?;
        Some(python.with(&["-m", "ziglang"]))
    };
    Tool::find(folder, &["zig"]).or_else(package)
}

/// Whether a compiler makes a program for WASI: it needs the library and a linker beside itself.
fn compiles(tool: &Tool, folder: &Path, header: &str, kind: &str) -> bool {
    let Ok(mut child) = tool
        .command(folder)
        .args([TARGET, "-mexec-model=reactor", "-x", kind, "-", "-o", "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
    else {
        return false;
    };
    let written = child.stdin.take().map(|mut stdin| std::io::Write::write_all(&mut stdin, header.as_bytes()));
    child.wait().is_ok_and(|status| status.success()) && written.is_some_and(|written| written.is_ok())
}

/// The flags of all commands.
struct Flags {
    folder: PathBuf,
    all: Vec<String>,
    own: Vec<String>,
    zig_cache: Option<PathBuf>,
}

impl Flags {
    fn of(results: &Results, is_zig: bool) -> Self {
        let folder = results.folder();
        // By their paths in the folder, which are in what is compiled: a copy of it gives the same.
        let mut all = vec!["-O2".into(), "-I.".into(), format!("-ffile-prefix-map={}=.", folder.display())];
        all.extend(headers(folder).into_iter().map(|headers| format!("-I{}", headers.display())));
        let text = std::fs::read_to_string(folder.join(FLAGS)).unwrap_or_default();
        let flags = text.lines().map(str::trim).filter(|flag| !flag.is_empty() && !flag.starts_with('#'));
        // The target is given anyway.
        let own = flags.filter(|flag| !flag.starts_with("--target") && !flag.starts_with("--sysroot"));
        let own = ["-Wall"].into_iter().chain(own).map(str::to_owned).collect();
        Self { folder: folder.to_owned(), all, own, zig_cache: is_zig.then(|| results.target().join("zig-cache")) }
    }

    fn command(&self, tool: &Tool) -> Command {
        let mut command = tool.command(&self.folder);
        command.arg(TARGET).args(&self.all);
        if let Some(cache) = &self.zig_cache {
            command.env("ZIG_LOCAL_CACHE_DIR", cache);
        }
        command
    }
}

fn is_cpp(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "cpp" || extension == "cc" || extension == "cxx")
}

/// Whether a flag is for a source: a standard of C++ is not for one in C.
fn is_for(flag: &str, source: &Path) -> bool {
    is_cpp(source) || !(flag.starts_with("-std=c++") || flag.starts_with("-std=gnu++"))
}

/// The sources of a plugin, by their paths in its folder: those beside the manifest, in `src`, and in the library.
pub(super) fn sources(folder: &Path) -> Vec<PathBuf> {
    let is_test = |path: &Path| {
        let name = path.file_stem().and_then(OsStr::to_str).unwrap_or_default();
        name.starts_with("test_") || name.ends_with("_test")
    };
    let is_source = |path: &Path| path.extension().is_some_and(|extension| extension == "c") || is_cpp(path);
    let is_object = |path: &Path| path.extension().is_some_and(|extension| extension == "o");
    let mut found = Vec::new();
    for (top, is_deep) in [("", false), ("src", true), (LIBRARY, true)] {
        let mut folders = vec![PathBuf::from(top)];
        while let Some(inside) = folders.pop() {
            for path in entries(folder, &inside) {
                let real = folder.join(&path);
                if is_deep && real.is_dir() {
                    folders.push(path);
                } else if !is_test(&path) && (is_source(&path) || top == LIBRARY && is_object(&path)) {
                    found.push(path);
                }
            }
        }
    }
    found.sort();
    found
}

/// Folders of the library with headers.
pub(super) fn headers(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![PathBuf::from(LIBRARY), PathBuf::from("src")]);
    while let Some(inside) = folders.pop() {
        let is_header = |path: &PathBuf| path.extension().is_some_and(|of| of == "h" || of == "hpp");
        let entries = entries(folder, &inside);
        if entries.iter().any(is_header) {
            found.push(inside);
        }
        folders.extend(entries.into_iter().filter(|path| folder.join(path).is_dir()));
    }
    found.sort();
    found
}

/// What is in a folder, by paths in the plugin's folder, without what tools make.
fn entries(folder: &Path, inside: &Path) -> Vec<PathBuf> {
    let read = std::fs::read_dir(folder.join(inside)).into_iter().flatten().filter_map(Result::ok);
    let names = read.map(|entry| entry.file_name());
    let is_there = |name: &OsStr| {
        let name = name.to_str().unwrap_or_default();
        let is_no_part = inside == Path::new(LIBRARY) && NO_LIBRARY.contains(&name);
        !is_output(name) && !is_no_part
    };
    names.filter(|name| is_there(name)).map(|name| inside.join(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_those_of_the_plugin_and_the_library_without_their_tests() {
        let around = tempfile::tempdir().unwrap();
        let at = |path: &str| around.path().join(path);
        for path in [
            "sdk/wattle.c",
            "sdk/gen/plugin.c",
            "sdk/gen/plugin.h",
            "sdk/gen/plugin_component_type.o",
            "sdk/wattle.h",
            "sdk/template/handler.c",
            "sdk/probe/probe.c",
            "greet/handler.c",
            "greet/handler_test.c",
            "greet/other.o",
            "greet/src/deep/more.cpp",
            "greet/src/test_more.c",
            "greet/target/left.c",
            "greet/notes/old.c",
        ] {
            std::fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            std::fs::write(at(path), "").unwrap();
        }
        std::os::unix::fs::symlink(at("sdk"), at("greet/wattle")).unwrap();
        let expected = [
            "handler.c",
            "src/deep/more.cpp",
            "wattle/gen/plugin.c",
            "wattle/gen/plugin_component_type.o",
            "wattle/wattle.c",
        ];
        assert_eq!(sources(&at("greet")), expected.map(PathBuf::from));
        assert_eq!(headers(&at("greet")), ["wattle", "wattle/gen"].map(PathBuf::from));
    }
}
