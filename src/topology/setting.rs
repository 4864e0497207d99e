//! A value of a plugin's configuration, as it is written.

use std::borrow::Cow;
use std::path::{Component, PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::diagnostic::{Code, Diagnostic};
use super::reader::{FromNode, Owner, Reader, keys};
use super::values::{Word, inline_schema};
use super::yaml::{NodeRef, View};
use super::{PathKind, plan};

keys! {
    /// A secret that stands in a file.
    struct Secret {
        /// The file with the secret, below a folder of secrets of the bus, where relative paths start from.
        file(required): Word,
    }
}

/// A value of a plugin's configuration.
#[derive(Debug, Clone)]
pub(crate) struct Setting(pub(crate) plan::ConfigValue);

inline_schema!(
    Setting,
    json_schema!({
        "anyOf": [
            { "type": ["string", "number", "boolean"] },
            {
                "type": "object",
                "properties": { "file": { "type": "string", "description": "The file with the secret, below a folder \
                    of secrets of the bus, where relative paths start from." } },
                "required": ["file"],
                "additionalProperties": false,
            },
        ]
    })
);

impl FromNode for Setting {
    fn read(node: NodeRef<'_>, owner: Owner<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        if !matches!(node.view(), View::Mapping(_)) {
            let text = reader.text(node, "a text, a number, a boolean or `{ file: path }`")?;
            let written = text.with_variables.map(str::to_owned);
            let text = text.text.into_owned();
            return Some(Setting(match written {
                Some(written) => plan::ConfigValue::Variable { text, written },
                None => plan::ConfigValue::Text(text),
            }));
        }
        let secret = Secret::read(node, owner, reader)?;
        let file = secret.file?;
        let written = PathBuf::from(file.value?.0);
        if written.is_relative() && written.components().any(|part| part == Component::ParentDir) {
            let message = format!("`{}` leads out of the folder of secrets", written.display());
            return reader.bad(file.span, message, "write a path below that folder, without `..`");
        }
        let path = reader.resolve(&written);
        // Where a topology is checked the secrets of where it runs need not be, so this alone does not refuse it.
        if reader.surroundings.at(&path) != PathKind::File {
            let message = format!("there is no file `{}`", path.display());
            let missing = Diagnostic::warning(Code::BadValue, file.span, "no such file here", message);
            let help = "it has to be below a folder of secrets where the topology runs (`wattle run --secrets`): the \
                folder of \
                        its file, where nothing else is said";
            reader.report(missing.help(help));
        }
        Some(Setting(plan::ConfigValue::SecretFile(written)))
    }
}
