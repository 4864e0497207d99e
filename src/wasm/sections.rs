//! Reads a component before it is compiled: its declarations (the version of its state, the schema of its
//! configuration), the names of its imports and exports, and the sizes of its largest functions.
//!
//! ```text
//! component  \0asm 0d 00 01 00, sections
//! section    u8 id, LEB128 length, content         id 0: custom: LEB128 length, name, content
//!                                                  id 1: a core module, id 4: a component, which have sections as well
//!                                                  id 10, of a module: code: count, then each body after its length
//!                                                  id 10, 11, of a component: imports, exports: count, then each
//! ```
//!
//! Declarations are custom sections of the component, or of a module or component inside, as linkers produce them from
//! statics. Without a declared version it is 0, without a schema the configuration is not validated. Nothing else reads
//! these sections, so released plugins keep their meaning.
//!
//! The time and memory to compile a function grow faster than its size: a single large one cannot be interrupted, many
//! small ones are compiled one after the other.

use super::limits::CONFIG_SCHEMA_BYTES_MAX;
use super::words;

/// The custom section with a JSON Schema.
const CONFIG_SCHEMA: &[u8] = b"wattle:config-schema";
/// The custom section with the version, in decimal.
const STATE_VERSION: &[u8] = b"wattle:state-version";
/// Maximum bytes of it: a number, and padding by a linker.
const VERSION_BYTES_MAX: usize = 64;
/// Sections of a component: a core module, another component.
const MODULE: u8 = 1;
const COMPONENT: u8 = 4;
/// A module's section of functions.
const CODE: u8 = 10;
/// Those of a component for its imports and exports.
const IMPORT: u8 = 10;
const EXPORT: u8 = 11;
/// Maximum nesting of components.
const DEPTH_MAX: u32 = 8;

/// The version of a component's state. `Err`: the declaration is not a number, or there are two different ones.
pub(super) fn state_version(wasm: &[u8]) -> Result<u32, String> {
    match declared(wasm, STATE_VERSION)? {
        None => Ok(0),
        Some(version) => {
            let start = version.get(..version.len().min(VERSION_BYTES_MAX)).unwrap_or_default();
            let text = String::from_utf8_lossy(start);
            let number = text.trim_end_matches('\0').trim().parse();
            number.map_err(|_| format!("\"{}\" is not a number from 0 to {}", words::name(&text), u32::MAX))
        }
    }
}

/// The version of the state that a component declares. `None` if it cannot be read.
pub fn declared_state_version(wasm: &[u8]) -> Option<u32> {
    state_version(wasm).ok()
}

/// The JSON Schema that a component declares for its configuration, as text.
///
/// # Errors
/// The declaration is not text, is too long, or there are two different ones.
pub fn config_schema(wasm: &[u8]) -> Result<Option<&str>, String> {
    let Some(schema) = declared(wasm, CONFIG_SCHEMA)? else { return Ok(None) };
    if schema.len() > CONFIG_SCHEMA_BYTES_MAX {
        let bytes = schema.len();
        return Err(format!("has {bytes} bytes, and at most {CONFIG_SCHEMA_BYTES_MAX} are accepted"));
    }
    let text = std::str::from_utf8(schema).map_err(|_| "is not UTF-8".to_owned())?;
    Ok(Some(text.trim_end_matches('\0')))
}

/// The content of a component's custom sections with a name; `Err` if they differ.
fn declared<'a>(wasm: &'a [u8], name: &[u8]) -> Result<Option<&'a [u8]>, String> {
    let mut found = Vec::new();
    look(wasm, name, &mut found);
    found.dedup();
    match found.as_slice() {
        [] => Ok(None),
        [content] => Ok(Some(*content)),
        several => Err(format!("is declared {} times, and differs", several.len())),
    }
}

/// The size of the largest function of a component, and of all that have at least `large` bytes together, in bytes.
pub(super) fn function_bytes(wasm: &[u8], large: usize) -> (usize, usize) {
    let (mut largest, mut of_large) = (0, 0);
    each_section(wasm, DEPTH_MAX, &mut |is_module, id, content| {
        if is_module && id == CODE {
            let mut bodies = number(content).map_or(&[][..], |(_, bodies)| bodies);
            while let Some((body, behind)) = sized(bodies) {
                largest = largest.max(body.len());
                of_large += if body.len() >= large { body.len() } else { 0 };
                bodies = behind;
            }
        }
    });
    (largest, of_large)
}

/// The names of a component's own imports and exports, such as `wasi:cli/stdout@0.2.0`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct OuterNames<'a> {
    pub(super) imports: Vec<&'a str>,
    pub(super) exports: Vec<&'a str>,
}

/// Reads them without compiling anything. `None` if any part of the component is not understood: then the compiler has
/// to say what it is.
pub(super) fn outer_names(wasm: &[u8]) -> Option<OuterNames<'_>> {
    let (_, mut rest) = wasm.split_at_checked(8)?;
    let mut names = OuterNames::default();
    while !rest.is_empty() {
        let (id, content, behind) = section(rest)?;
        rest = behind;
        let (list, entry): (_, ReadName) = match id {
            IMPORT => (&mut names.imports, import),
            EXPORT => (&mut names.exports, export),
            _ => continue,
        };
        let (count, mut entries) = number(content)?;
        for _ in 0..count {
            let (name, behind) = entry(entries)?;
            list.push(name);
            entries = behind;
        }
    }
    Some(names)
}

/// Reads the name of an import or export, and gives what comes after it.
type ReadName = fn(&[u8]) -> Option<(&str, &[u8])>;

/// An import: its name, then what it is.
fn import(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (name, rest) = outer_name(bytes)?;
    Some((name, described(rest)?))
}

/// An export: its name, the kind and the index of what is exported, and possibly what it is.
fn export(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (name, rest) = outer_name(bytes)?;
    let (kind, rest) = rest.split_first()?;
    let rest = if *kind == 0 { rest.split_first()?.1 } else { rest };
    let (_, rest) = number(rest)?;
    match rest.split_first()? {
        (0, rest) => Some((name, rest)),
        (1, rest) => Some((name, described(rest)?)),
        _ => None,
    }
}

fn outer_name(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (0 | 1, rest) = bytes.split_first()? else { return None };
    let (name, rest) = sized(rest)?;
    Some((std::str::from_utf8(name).ok()?, rest))
}

/// Skips what an import or export is.
fn described(bytes: &[u8]) -> Option<&[u8]> {
    let (kind, rest) = bytes.split_first()?;
    match kind {
        // a core module
        0 => number(rest.strip_prefix(&[0x11])?).map(|(_, rest)| rest),
        // a function, a component, an instance
        1 | 4 | 5 => number(rest).map(|(_, rest)| rest),
        // a type: equal to another, or a resource
        3 => match rest.split_first()? {
            (0, rest) => number(rest).map(|(_, rest)| rest),
            (1, rest) => Some(rest),
            _ => None,
        },
        _ => None,
    }
}

fn look<'a>(wasm: &'a [u8], wanted: &[u8], found: &mut Vec<&'a [u8]>) {
    each_section(wasm, DEPTH_MAX, &mut |_, id, content| {
        if id == 0
            && let Some((name, content)) = sized(content)
            && name == wanted
        {
            found.push(content);
        }
    });
}

/// Visits each section: whether it is a module's, its id and its content. Stops at malformed bytes, which the compiler
/// reports.
fn each_section<'a>(wasm: &'a [u8], depth: u32, see: &mut dyn FnMut(bool, u8, &'a [u8])) {
    let Some((head, mut rest)) = wasm.split_at_checked(8) else { return };
    let is_module = head.get(4..) == Some(&[1, 0, 0, 0]);
    while let Some((id, content, behind)) = section(rest) {
        rest = behind;
        see(is_module, id, content);
        if !is_module && matches!(id, MODULE | COMPONENT) && depth > 0 {
            each_section(content, depth - 1, see);
        }
    }
}

fn section(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (id, rest) = bytes.split_first()?;
    let (content, rest) = sized(rest)?;
    Some((*id, content, rest))
}

/// Bytes preceded by their length, and the rest.
fn sized(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = number(bytes)?;
    rest.split_at_checked(usize::try_from(length).ok()?)
}

/// A number in LEB128, and the rest.
fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (mut number, mut rest) = (0_u64, bytes);
    for shift in (0..35).step_by(7) {
        let (byte, behind) = rest.split_first()?;
        rest = behind;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((number, rest));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(text: &str) -> Vec<u8> {
        wat::parse_str(text).unwrap()
    }

    #[test]
    fn a_version_is_found_in_the_component_and_in_what_is_in_it() {
        let version = |text: &str| state_version(&component(text));
        assert_eq!(version("(component)"), Ok(0));
        assert_eq!(version(r#"(component (@custom "wattle:state-version" "7"))"#), Ok(7));
        let inside = r#"(component (core module (memory 1)) (core module (@custom "wattle:state-version" "12\00")))"#;
        assert_eq!(version(inside), Ok(12));
        let deep = r#"(component (component (core module (@custom "wattle:state-version" "3"))))"#;
        assert_eq!(version(deep), Ok(3));
        assert_eq!(version(r#"(component (@custom "wattle:state" "7"))"#), Ok(0));
    }

    #[test]
    fn the_largest_function_is_found_wherever_it_is() {
        let nops = "nop ".repeat(1_000);
        assert_eq!(function_bytes(&component("(component)"), 1), (0, 0));
        let text = format!("(component (core module (func)) (component (core module (func {nops}) (func nop))))");
        assert_eq!(function_bytes(&component(&text), 1_000), (1_002, 1_002), "locals, the instructions, an end");
        assert_eq!(function_bytes(&component(&text), 2), (1_002, 1_007), "small ones as well");
    }

    #[test]
    fn imports_and_exports_are_named_without_a_compiler() {
        let text = r#"(component
            (core module $unused)
            (import "a:b/c@0.2.0" (instance $c (export "r" (type (sub resource)))))
            (alias export $c "r" (type $r))
            (import "t" (type (eq $r)))
            (import "s" (type (sub resource)))
            (import "f" (func $f (param "x" u8)))
            (import "m" (core module))
            (import "k" (component))
            (component (import "inside" (func)))
            (export "x:y/z@1.0.0" (instance $c))
            (export "g" (func $f) (func (param "x" u8))))"#;
        let whole = component(text);
        let names = outer_names(&whole).unwrap();
        assert_eq!(names.imports, ["a:b/c@0.2.0", "t", "s", "f", "m", "k"]);
        assert_eq!(names.exports, ["x:y/z@1.0.0", "g"]);
        assert_eq!(outer_names(&component("(component)")), Some(OuterNames::default()));
        for end in 0..whole.len() {
            if let Some(cut) = outer_names(&whole[..end]) {
                assert!(cut.imports.len() <= 6 && cut.exports.len() <= 2, "{end}");
            }
        }
        assert_eq!(outer_names(&whole[..whole.len() - 1]), None, "the compiler says what is wrong with it");
    }

    #[test]
    fn what_is_no_version_is_said() {
        let version = |text: &str| state_version(&component(text));
        assert!(version(r#"(component (@custom "wattle:state-version" "x"))"#).unwrap_err().contains("\"x\""));
        let twice =
            r#"(component (@custom "wattle:state-version" "1") (core module (@custom "wattle:state-version" "2")))"#;
        assert!(version(twice).unwrap_err().contains("2 times"));
    }

    #[test]
    fn a_schema_of_the_configuration_is_found_like_a_version() {
        let schema = |text: &str| config_schema(&component(text)).map(|found| found.map(str::to_owned));
        assert_eq!(schema(r#"(component (@custom "wattle:state-version" "7"))"#), Ok(None));
        let inside = r#"(component (core module (@custom "wattle:config-schema" "{}\00")))"#;
        assert_eq!(schema(inside), Ok(Some("{}".to_owned())));
        let odd = r#"(component (@custom "wattle:config-schema" "\ff"))"#;
        assert_eq!(schema(odd).unwrap_err(), "is not UTF-8");
        let long =
            format!(r#"(component (@custom "wattle:config-schema" "{}"))"#, " ".repeat(CONFIG_SCHEMA_BYTES_MAX + 1));
        assert!(schema(&long).unwrap_err().contains("at most 65536"));
    }

    #[test]
    fn bytes_that_are_cut_anywhere_are_looked_at_as_far_as_they_go() {
        let whole = component(r#"(component (core module (@custom "wattle:state-version" "12")) (core module))"#);
        for end in 0..whole.len() {
            assert!(state_version(&whole[..end]).is_ok_and(|version| [0, 12].contains(&version)), "{end}");
        }
    }
}
