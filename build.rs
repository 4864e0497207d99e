//! Generates the gRPC code from `proto/`, without protoc.
//!
//! Events are stored in the encoding in which they arrive and leave, so the server never decodes them: before the code
//! is generated, every field of type `CloudEvent` becomes a field of type `bytes`, which is the same on the wire.
//! Reflection serves the contract as it is written.

use std::error::Error;
use std::path::PathBuf;

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
    Ok(())
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
