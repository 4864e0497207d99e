//! Generates the gRPC code from `proto/`, without protoc, and the list of what `wattle new` writes from `sdk/`.
//!
//! Events are stored in the encoding in which they arrive and leave, so the server never decodes them: before the code
//! is generated, every field of type `CloudEvent` becomes a field of type `bytes`, which is the same on the wire.
//! Reflection serves the contract as it is written.
//!
//! Every method of the contract says the right that it needs (`option (wattle.v1.right)`). From that comes the table of
//! rights, and for each service a wrapper which judges a request before the service sees it; a method without a right
//! does not build.

use std::borrow::Cow;
use std::error::Error;
use std::fmt::Write;
use std::path::{Component, Path, PathBuf};

use prost_reflect::{
    DescriptorPool, ExtensionDescriptor, MessageDescriptor, MethodDescriptor, ReflectMessage, ServiceDescriptor, Value,
};
use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FileDescriptorSet};

const INCLUDE: &str = "proto";
const EVENT_FILE: &str = "io/cloudevents/v1/cloudevents.proto";
const EVENT_TYPE: &str = ".io.cloudevents.v1.CloudEvent";
const FILES: [&str; 9] = [
    "wattle/v1/access.proto",
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

    std::fs::write(out.join("rights.rs"), rights(&compiler.descriptor_pool())?)?;
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

/// The table of rights, and the wrappers that judge by them.
fn rights(contract: &DescriptorPool) -> Result<String, Box<dyn Error>> {
    let right = contract.get_extension_by_name("wattle.v1.right").ok_or("access.proto does not declare `right`")?;
    let mut table = String::from("pub(in crate::server) static RIGHTS: &[(&str, Right)] = &[\n");
    let mut wrappers = String::new();
    for service in contract.services().filter(|service| service.package_name() == "wattle.v1") {
        let methods: Vec<_> =
            service.methods().map(|method| Method::new(method, &right)).collect::<Result<_, Box<dyn Error>>>()?;
        for method in &methods {
            writeln!(
                table,
                "    (\"/{}/{}\", Right {{ verbs: &[{}], bus: {}, streams_requests: {}, \
                 is_audited: {} }}),",
                service.full_name(),
                method.of.name(),
                method.verbs.iter().map(|verb| format!("Verb::{verb}")).collect::<Vec<_>>().join(", "),
                matches!(method.subject, Subject::Bus),
                method.of.is_client_streaming(),
                method.is_audited,
            )?;
        }
        wrapper(&service, &methods, &mut wrappers)?;
    }
    table.push_str("];\n");
    Ok(table + &wrappers)
}

/// Verbs, all of whose calls are recorded.
const AUDITED: [&str; 4] = ["Operate", "Deploy", "Apply", "Backup"];

struct Method {
    of: MethodDescriptor,
    /// As they are named in Rust.
    verbs: Vec<String>,
    subject: Subject,
    is_audited: bool,
}

/// What a right is for; a path of Rust that gives the names in a request, as an iterator.
enum Subject {
    Topics(String),
    Subscribers(String),
    Namespaces(String),
    Bus,
    Each,
}

impl Method {
    fn new(of: MethodDescriptor, right: &ExtensionDescriptor) -> Result<Self, Box<dyn Error>> {
        let invalid = |what: &str| format!("{}: {what}", of.full_name());
        let options = of.options();
        if !options.has_extension(right) {
            return Err(invalid("has no `option (wattle.v1.right)`").into());
        }
        let value = options.get_extension(right);
        let right = value.as_message().ok_or_else(|| invalid("`right` is no message"))?;
        let verbs = right.get_field_by_name("verbs");
        let verbs = verbs.iter().flat_map(|verbs| verbs.as_list().unwrap_or_default());
        let kind = right.descriptor().get_field_by_name("verbs").and_then(|verbs| verbs.kind().as_enum().cloned());
        let kind = kind.ok_or_else(|| invalid("`verbs` is no enumeration"))?;
        let verbs = verbs.filter_map(|verb| kind.get_value(verb.as_enum_number()?)).map(|verb| {
            let name = verb.name().trim_start_matches("VERB_").to_lowercase();
            name.get(..1).unwrap_or_default().to_uppercase() + name.get(1..).unwrap_or_default()
        });
        let verbs: Vec<String> = verbs.collect();
        let value = |field: &str| -> Option<Value> {
            let is_set = right.has_field_by_name(field);
            is_set.then(|| right.get_field_by_name(field))?.map(Cow::into_owned)
        };
        let named = |field| value(field).and_then(|value| value.as_str().map(str::to_owned));
        let mut subjects = Vec::new();
        if let Some(field) = named("topic") {
            subjects.push(Subject::Topics(names(&of.input(), &field).ok_or_else(|| invalid("`topic` names no text"))?));
        }
        if let Some(field) = named("subscriber") {
            let names = names(&of.input(), &field).ok_or_else(|| invalid("`subscriber` names no text"))?;
            subjects.push(Subject::Subscribers(names));
        }
        if let Some(field) = named("namespaces") {
            let names = names(&of.input(), &field).ok_or_else(|| invalid("`namespaces` names no text"))?;
            subjects.push(Subject::Namespaces(names));
        }
        let is_set = |field| value(field).and_then(|value| value.as_bool()) == Some(true);
        subjects.extend(is_set("bus").then_some(Subject::Bus));
        subjects.extend(is_set("each").then_some(Subject::Each));
        match (verbs.is_empty(), subjects.len(), subjects.pop()) {
            (false, 1, Some(subject)) => {
                let is_audited = is_set("audited") || verbs.iter().all(|verb| AUDITED.contains(&verb.as_str()));
                Ok(Self { of, verbs, subject, is_audited })
            }
            _ => Err(invalid("`right` needs a verb and exactly one of the other fields").into()),
        }
    }
}

/// Rust that iterates over the texts in a field of a message, which may be in a message in it.
fn names(message: &MessageDescriptor, path: &str) -> Option<String> {
    let is_text = |message: &MessageDescriptor, field: &str| {
        message.get_field_by_name(field).filter(|field| matches!(field.kind(), prost_reflect::Kind::String))
    };
    match path.split_once('.') {
        None if is_text(message, path)?.is_list() => Some(format!("message.{path}.iter().map(String::as_str)")),
        None => Some(format!("std::iter::once(message.{path}.as_str())")),
        Some((outer, inner)) => {
            let field = message.get_field_by_name(outer)?;
            is_text(field.kind().as_message()?, inner)?;
            Some(format!("message.{outer}.iter().map(|part| part.{inner}.as_str())"))
        }
    }
}

/// A service that judges each request, and the streams of its answers for as long as they are open.
fn wrapper(service: &ServiceDescriptor, methods: &[Method], code: &mut String) -> Result<(), Box<dyn Error>> {
    let (name, module) = (service.name(), snake(service.name()) + "_server");
    writeln!(code, "impl<T: v1::{module}::{name}> v1::{module}::{name} for AuthorizedService<T> {{")?;
    for Method { of, verbs, subject, is_audited } in methods {
        let (method, input, output) = (snake(of.name()), of.input().name().to_owned(), of.output().name().to_owned());
        let verb = verbs.first().map(String::as_str).unwrap_or_default();
        let all = verbs.iter().map(|verb| format!("Verb::{verb}")).collect::<Vec<_>>().join(", ");
        let argument = match of.is_client_streaming() {
            true => format!("tonic::Streaming<v1::{input}>"),
            false => format!("v1::{input}"),
        };
        let output = match of.is_server_streaming() {
            true => format!("Self::{}Stream", of.name()),
            false => format!("v1::{output}"),
        };
        if of.is_server_streaming() {
            writeln!(code, "    type {0}Stream = WatchedStream<T::{0}Stream>;", of.name())?;
        }
        writeln!(code, "    fn {method}<'a, 'f>(&'a self, request: tonic::Request<{argument}>)")?;
        writeln!(code, "        -> ServiceFuture<'f, {output}>\n    where 'a: 'f, Self: 'f {{")?;
        // The requests of a stream are judged by the service, one by one.
        let judged = match subject {
            _ if of.is_client_streaming() => None,
            Subject::Topics(names) => Some((names, "topics")),
            Subject::Subscribers(names) => Some((names, "subscribers")),
            Subject::Namespaces(names) => Some((names, "namespaces")),
            Subject::Bus | Subject::Each => None,
        };
        if *is_audited && !of.is_client_streaming() {
            writeln!(code, "        record(&request);")?;
        }
        if let Some((names, judge)) = judged {
            writeln!(code, "        let judged = {{ let message = request.get_ref();")?;
            writeln!(code, "            self.{judge}(request.extensions(), Verb::{verb}, {names}) }};")?;
            writeln!(code, "        if let Err(refusal) = judged {{ return refused(refusal); }}")?;
        }
        match (of.is_server_streaming(), &judged) {
            (false, _) => writeln!(code, "        self.service.{method}(request)")?,
            (true, Some((names, judge))) => {
                writeln!(code, "        let watch = {{ let message = request.get_ref();")?;
                writeln!(code, "            Watch::{judge}(self, request.extensions(), &[{all}], {names}) }};")?;
                writeln!(code, "        watched(self.service.{method}(request), watch)")?;
            }
            (true, None) => {
                writeln!(code, "        let watch = Watch::verbs(request.extensions(), &[{all}]);")?;
                writeln!(code, "        watched(self.service.{method}(request), watch)")?;
            }
        }
        writeln!(code, "    }}")?;
    }
    writeln!(code, "}}")?;
    Ok(())
}

/// `PublishStream` as `publish_stream`.
fn snake(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}
