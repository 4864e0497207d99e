//! A value that may also be a list of values.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::diagnostic::Span;
use super::reader::{FromNode, Owner, Reader};
use super::values::List;
use super::yaml::{NodeRef, View};

/// One, or a list of some.
#[derive(Debug, Clone)]
pub(crate) struct OneOrMore<T>(pub(crate) Vec<(Span, T)>);

impl<T: JsonSchema> JsonSchema for OneOrMore<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("{}OrMore", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        let list = generator.subschema_for::<List<T>>();
        json_schema!({ "anyOf": [one, list] })
    }
}

impl<T: FromNode> FromNode for OneOrMore<T> {
    fn read(node: NodeRef<'_>, owner: Owner<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        match node.view() {
            View::Sequence(_) => List::read(node, owner, reader).map(|List(items)| OneOrMore(items)),
            _ => T::read(node, owner, reader).map(|one| OneOrMore(vec![(node.span(), one)])),
        }
    }
}
