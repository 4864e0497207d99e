//! Generates the gRPC code from `proto/`, without protoc, and the list of what `wattle new` writes from `sdk/`.
//!
//! Events are stored in the encoding in which they arrive and leave, so the server never decodes them: before the code
//! is generated, every field of type `CloudEvent` becomes a field of type `bytes`, which is the same on the wire.
//! Reflection serves the contract as it is written.

use std::error::Error;
use std::fmt::Write;
use std::path::{Component, Path, PathBuf};

use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FileDescriptorSet};

const INCLUDE: &str = "proto";
const EVENT_FILE: &str = "io/cloudevents/v1/cloudevents.proto";
const EVENT_TYPE: &str = ".io.cloudevents.v1.CloudEvent";
const FILES: [&str; 8] = [
    "wattle/v1/admin.proto",
    "wattle/v1/capsule.proto",
    "wattle/v1/plugin.proto",
    "wattle/v1/publisher.proto",
    "wattle/v1/reader.proto",
    "wattle/v1/shadow.proto",
    "wattle/v1/subscriber.proto",
    "wattle/v1/topology.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={INCLUDE}");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: run this through cargo")?);

    let mut compiler = protox::Compiler::new([INCLUDE])?;
    compiler.include_imports(true).include_source_info(true).open_files(FILES)?;
    std::fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;

    let mut descriptors = compiler.file_descriptor_set();
    keep_events_encoded(&mut descriptors);
    tonic_prost_build::configure()
        .bytes(".")
        .codec_path("crate::api::Codec")
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)?;
    std::fs::write(out.join("scaffolds.rs"), scaffolds()?)?;
    Ok(())
}

/// Folders of `sdk/` with a list of files, and what the list is called in the program.
const LANGUAGES: [(&str, &str); 8] = [
    ("rust", "RUST"),
    ("typescript", "TYPESCRIPT"),
    ("javascript", "JAVASCRIPT"),
    ("python", "PYTHON"),
    ("go", "GO"),
    ("c", "C"),
    ("cpp", "CPP"),
    ("zig", "ZIG"),
];

/// The files of each language, as `sdk/LANG/files.txt` lists them: `SOURCE -> DESTINATION`.
fn scaffolds() -> Result<String, Box<dyn Error>> {
    let top = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").ok_or("CARGO_MANIFEST_DIR is not set")?);
    let mut code = String::new();
    for (folder, name) in LANGUAGES {
        let folder = top.join("sdk").join(folder);
        let list = folder.join("files.txt");
        println!("cargo::rerun-if-changed={}", list.display());
        let text = std::fs::read_to_string(&list).map_err(|error| format!("{}: {error}", list.display()))?;
        writeln!(code, "const {name}: &[File] = &[")?;
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let file = line.split_once(" -> ").filter(|(source, to)| {
                folder.join(source).is_file() && Path::new(to).components().all(|of| matches!(of, Component::Normal(_)))
            });
            let (source, to) = file.ok_or_else(|| format!("{}: `{line}` is no file and its path", list.display()))?;
            writeln!(code, "    ({to:?}, include_bytes!({:?})),", folder.join(source).display().to_string())?;
        }
        writeln!(code, "];")?;
    }
    Ok(code)
}

fn keep_events_encoded(descriptors: &mut FileDescriptorSet) {
    descriptors.file.retain(|file| file.name() != EVENT_FILE);
    for file in &mut descriptors.file {
        file.dependency.retain(|dependency| dependency != EVENT_FILE);
        file.message_type.iter_mut().for_each(keep_encoded);
    }
}

fn keep_encoded(message: &mut DescriptorProto) {
    for field in &mut message.field {
        if field.type_name() == EVENT_TYPE {
            field.type_name = None;
            field.set_type(Type::Bytes);
        }
    }
    message.nested_type.iter_mut().for_each(keep_encoded);
}
