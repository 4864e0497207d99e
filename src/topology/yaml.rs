//! From the text of a file to a tree of YAML nodes that know where they are written.
//!
//! Promises: bounded time and memory for any text ([`super::bounds`]); a node for each key and value, with its place.
//! Uses of anchors are not written out: a node that is an alias refers to its target, so no text can multiply memory,
//! and what the aliases stand for is counted so that it cannot multiply time either.
//!
//! This is the only module that knows the YAML parser. It does not know what a topology is.

use std::collections::HashMap;

use serde_yaml::granit_parser::{ErrorKind, Event, Options, Parser, ScalarStyle, ScanError, Span as YamlSpan, options};

use super::bounds::{ALIASED_NODES_MAX, ALIASES_MAX, DEPTH_MAX, NODES_MAX, SCANNER_DEPTH_MAX, TEXT_BYTES_MAX};
use super::diagnostic::{Code, Diagnostic, Span};

/// The nodes of one file, in the order in which they are written; a node is followed by its children.
#[derive(Debug)]
pub(crate) struct Tree<'s> {
    source: u32,
    text: &'s str,
    nodes: Vec<Node>,
    /// Texts of scalars that differ from the source, one after the other: without quotes, escapes, line folds.
    unquoted: String,
    /// Where each of them ends in `unquoted`.
    ends: Vec<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    start: u32,
    end: u32,
    /// Index of the first node that is not below this one; 0 while it is open.
    next: u32,
    kind: NodeKind,
}

// What `NODES_MAX` says about memory.
const _: () = assert!(size_of::<Node>() <= 20);

#[derive(Debug, Clone, Copy)]
enum NodeKind {
    /// A plain scalar whose text is the source.
    Plain,
    /// A plain scalar over several lines; the index of its text.
    PlainText(u32),
    /// A quoted or block scalar; the index of its text.
    Quoted(u32),
    /// A scalar, mapping or list with a tag that means nothing here.
    Tagged,
    /// An alias of nothing, which was reported.
    Unknown,
    Mapping,
    Sequence,
    /// The index of the node that it stands for.
    Alias(u32),
}

/// A node of a tree.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NodeRef<'t> {
    tree: &'t Tree<'t>,
    index: u32,
}

/// What a node is, aliases followed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum View<'t> {
    /// Nothing, `~` or `null`.
    Null,
    /// A scalar that is not null.
    Scalar(Scalar<'t>),
    Mapping(Children<'t>),
    Sequence(Children<'t>),
    /// A node with a tag (`!name`).
    Tagged,
    /// Unknown and reported.
    Unknown,
}

/// The text of a scalar.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scalar<'t> {
    pub(crate) text: &'t str,
    /// Neither quoted nor a block, so that `7` is a number.
    pub(crate) plain: bool,
    /// Whether byte `i` of `text` is byte `span.start + quote + i` of the file; `None` if it is not that simple.
    pub(crate) quote: Option<u32>,
}

/// The direct children of a node: the items of a list, or keys and values in turn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Children<'t> {
    tree: &'t Tree<'t>,
    at: u32,
    end: u32,
}

impl<'t> Iterator for Children<'t> {
    type Item = NodeRef<'t>;

    fn next(&mut self) -> Option<NodeRef<'t>> {
        if self.at >= self.end {
            return None;
        }
        let index = self.at;
        self.at = self.tree.node(index)?.next;
        Some(NodeRef { tree: self.tree, index })
    }
}

impl<'s> Tree<'s> {
    /// The top of the document; `None` if the file is empty.
    pub(crate) fn root(&'s self) -> Option<NodeRef<'s>> {
        self.node(0).map(|_| NodeRef { tree: self, index: 0 })
    }

    /// A text that differs from the source.
    fn unquoted(&self, index: u32) -> &str {
        let end_of = |index: u32| self.ends.get(index as usize).map_or(0, |end| *end as usize);
        let start = index.checked_sub(1).map_or(0, end_of);
        self.unquoted.get(start..end_of(index)).unwrap_or_default()
    }

    fn node(&self, index: u32) -> Option<Node> {
        self.nodes.get(index as usize).copied()
    }
}

impl<'t> NodeRef<'t> {
    /// Where the node is written. Of a mapping or list over several lines only the first is meant, since this is what
    /// gets underlined.
    pub(crate) fn span(self) -> Span {
        let (start, end) = self.tree.node(self.index).map_or((0, 0), |node| (node.start, node.end));
        let written = self.tree.text.get(start as usize..end as usize).unwrap_or_default();
        let first_line = written.lines().next().unwrap_or_default().trim_end();
        Span { source: self.tree.source, start, end: start + first_line.len() as u32 }
    }

    /// What the node is.
    pub(crate) fn view(self) -> View<'t> {
        let Some((index, node)) = self.target() else { return View::Null };
        let written = self.tree.text.get(node.start as usize..node.end as usize).unwrap_or_default();
        let children = Children { tree: self.tree, at: index + 1, end: node.next };
        match node.kind {
            NodeKind::Plain if matches!(written, "" | "~" | "null" | "Null" | "NULL") => View::Null,
            NodeKind::Plain => View::Scalar(Scalar { text: written, plain: true, quote: Some(0) }),
            NodeKind::PlainText(text) => {
                View::Scalar(Scalar { text: self.tree.unquoted(text), plain: true, quote: None })
            }
            NodeKind::Quoted(text) => {
                let text = self.tree.unquoted(text);
                let quoted = written.get(1..written.len().saturating_sub(1));
                View::Scalar(Scalar { text, plain: false, quote: (quoted == Some(text)).then_some(1) })
            }
            NodeKind::Mapping => View::Mapping(children),
            NodeKind::Sequence => View::Sequence(children),
            NodeKind::Tagged => View::Tagged,
            NodeKind::Unknown => View::Unknown,
            // An alias refers to a node, never to an alias.
            NodeKind::Alias(_) => View::Null,
        }
    }

    /// Where the keys of a mapping are.
    pub(crate) fn key_spans(self) -> Vec<Span> {
        match self.view() {
            View::Mapping(children) => children.step_by(2).map(NodeRef::span).collect(),
            _ => Vec::new(),
        }
    }

    /// The node, or the target of an alias.
    fn target(self) -> Option<(u32, Node)> {
        let node = self.tree.node(self.index)?;
        match node.kind {
            NodeKind::Alias(target) => Some((target, self.tree.node(target)?)),
            _ => Some((self.index, node)),
        }
    }
}

/// Parses one file. Without a tree there is at least one error among the diagnostics; with one there may be as well.
pub(crate) fn parse(source: u32, text: &str) -> (Option<Tree<'_>>, Vec<Diagnostic>) {
    let mut builder = Builder::new(source, text);
    let whole = builder.run();
    let Builder { tree, diagnostics, .. } = builder;
    match whole {
        Ok(()) => (Some(tree), diagnostics),
        Err(refused) => (None, diagnostics.into_iter().chain([*refused]).collect()),
    }
}

/// A collection that is being read.
struct OpenCollection {
    node: u32,
    anchor: usize,
    /// Count of nodes, with what aliases stand for, when it began.
    counted_before: u64,
    /// Deepest level below and including it, 1 being itself.
    height: u32,
}

#[derive(Clone, Copy)]
struct Anchor {
    node: u32,
    nodes: u64,
    height: u32,
}

struct Builder<'s> {
    tree: Tree<'s>,
    diagnostics: Vec<Diagnostic>,
    open: Vec<OpenCollection>,
    /// Finished anchors by their id.
    anchors: HashMap<usize, Anchor>,
    /// Nodes so far, with what aliases stand for.
    counted: u64,
    aliases: usize,
    aliased: u64,
    /// End of the last thing that was written, where a collection without brackets ends.
    last_end: u32,
}

type YamlError = Box<Diagnostic>;

impl<'s> Builder<'s> {
    fn new(source: u32, text: &'s str) -> Self {
        let tree = Tree { source, text, nodes: Vec::new(), unquoted: String::new(), ends: Vec::new() };
        Builder {
            tree,
            diagnostics: Vec::new(),
            open: Vec::new(),
            anchors: HashMap::new(),
            counted: 0,
            aliases: 0,
            aliased: 0,
            last_end: 0,
        }
    }

    fn run(&mut self) -> Result<(), YamlError> {
        let text = self.tree.text;
        if text.len() > TEXT_BYTES_MAX {
            let message = format!("this file has {} bytes, at most {TEXT_BYTES_MAX} are read", text.len());
            return Err(self.too_large(0, 0, "too long", message));
        }
        let mut parser = Parser::new_from_str_with_options(text, parser_options());
        let mut documents = 0;
        while let Some(next) = parser.next_event() {
            let (event, at) = next.map_err(|error| self.syntax(&error))?;
            let (start, end) = bytes(&at);
            match event {
                Event::DocumentStart(..) => {
                    documents += 1;
                    if documents > 1 {
                        let span = self.first_char(start, end);
                        let message = "a topology file holds one YAML document, this is the start of another";
                        let refused = Diagnostic::error(Code::Syntax, span, "second document", message);
                        self.diagnostics.push(refused.help("move what follows into a file of its own"));
                        return Ok(());
                    }
                }
                Event::Scalar(value, style, anchor, tag) => {
                    let kind = match tag {
                        None => self.scalar(&value, style == ScalarStyle::Plain, start, end),
                        Some(tag) if tag.is_yaml_core_schema_tag("str") => self.scalar(&value, false, start, end),
                        Some(_) => NodeKind::Tagged,
                    };
                    let node = self.push(start, end, kind)?;
                    self.finish(node, anchor, 1, 0);
                    self.last_end = end;
                }
                Event::MappingStart(_, anchor, tag) | Event::SequenceStart(_, anchor, tag) if tag.is_some() => {
                    self.begin(start, end, NodeKind::Tagged, anchor)?;
                }
                Event::MappingStart(_, anchor, _) => self.begin(start, end, NodeKind::Mapping, anchor)?,
                Event::SequenceStart(_, anchor, _) => self.begin(start, end, NodeKind::Sequence, anchor)?,
                Event::MappingEnd | Event::SequenceEnd => self.end(start, end),
                Event::Alias(id) => {
                    self.alias(id, start, end)?;
                    self.last_end = end;
                }
                Event::UnresolvedAlias(name) => {
                    let message = format!("there is no anchor `&{name}` before this");
                    let unknown = Diagnostic::error(Code::Syntax, self.span(start, end), "unknown anchor", message);
                    self.diagnostics.push(unknown.help(format!("write `&{name}` at the value that is meant, above")));
                    self.push(start, end, NodeKind::Unknown)?;
                    self.last_end = end;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn scalar(&mut self, value: &str, plain: bool, start: u32, end: u32) -> NodeKind {
        let written = self.tree.text.get(start as usize..end as usize).unwrap_or_default();
        // Nothing at all is reported as `~`.
        if plain && (written == value || written.is_empty()) {
            return NodeKind::Plain;
        }
        let index = self.tree.ends.len() as u32;
        self.tree.unquoted.push_str(value);
        self.tree.ends.push(self.tree.unquoted.len() as u32);
        if plain { NodeKind::PlainText(index) } else { NodeKind::Quoted(index) }
    }

    fn push(&mut self, start: u32, end: u32, kind: NodeKind) -> Result<u32, YamlError> {
        let index = self.tree.nodes.len() as u32;
        if self.tree.nodes.len() == NODES_MAX {
            let message = format!("this file has more than {NODES_MAX} keys and values");
            return Err(self.too_large(start, end, "this is one too many", message));
        }
        self.counted += 1;
        self.tree.nodes.push(Node { start, end, next: index + 1, kind });
        Ok(index)
    }

    fn begin(&mut self, start: u32, end: u32, kind: NodeKind, anchor: usize) -> Result<(), YamlError> {
        let counted_before = self.counted;
        let node = self.push(start, end, kind)?;
        self.open.push(OpenCollection { node, anchor, counted_before, height: 1 });
        if self.open.len() as u32 > DEPTH_MAX {
            let message = format!("this is nested more than {DEPTH_MAX} levels deep");
            let Span { start, end, .. } = self.first_char(start, end);
            return Err(self.too_large(start, end, "one level too many", message));
        }
        self.last_end = end;
        Ok(())
    }

    fn end(&mut self, start: u32, end: u32) {
        let Some(open) = self.open.pop() else { return };
        // Without brackets a collection ends where its last child does.
        let end = if end > start { end } else { self.last_end };
        let next = self.tree.nodes.len() as u32;
        if let Some(node) = self.tree.nodes.get_mut(open.node as usize) {
            node.next = next;
            node.end = end.max(node.start);
        }
        self.last_end = self.last_end.max(end);
        self.finish(open.node, open.anchor, self.counted - open.counted_before, open.height);
    }

    /// Notes that a node is complete: what its anchor stands for, and how deep its parent is.
    fn finish(&mut self, node: u32, id: usize, nodes: u64, height: u32) {
        if id != 0 {
            self.anchors.insert(id, Anchor { node, nodes, height });
        }
        if let Some(parent) = self.open.last_mut() {
            parent.height = parent.height.max(height + 1);
        }
    }

    fn alias(&mut self, id: usize, start: u32, end: u32) -> Result<(), YamlError> {
        let Some(anchor) = self.anchors.get(&id).copied() else {
            let message = "this stands for a value that contains it, and so for infinitely many";
            return Err(self.too_large(start, end, "inside of its own anchor", message.into()));
        };
        self.aliases += 1;
        self.aliased = self.aliased.saturating_add(anchor.nodes);
        if self.aliases > ALIASES_MAX {
            let message = format!("this file uses anchors more than {ALIASES_MAX} times");
            return Err(self.too_large(start, end, "this is one too many", message));
        }
        if self.aliased > ALIASED_NODES_MAX {
            let message = format!("the anchors of this file stand for more than {ALIASED_NODES_MAX} keys and values");
            return Err(self.too_large(start, end, "with this one", message));
        }
        if self.open.len() as u32 + anchor.height > DEPTH_MAX {
            let message = format!("with its anchors, this is nested more than {DEPTH_MAX} levels deep");
            return Err(self.too_large(start, end, "too deep with this", message));
        }
        self.push(start, end, NodeKind::Alias(anchor.node))?;
        // The alias itself was counted as one.
        self.counted = self.counted.saturating_add(anchor.nodes.saturating_sub(1));
        if let Some(parent) = self.open.last_mut() {
            parent.height = parent.height.max(anchor.height + 1);
        }
        Ok(())
    }

    fn span(&self, start: u32, end: u32) -> Span {
        Span { source: self.tree.source, start, end }
    }

    /// A place that has at least one character of its line, for something that has no text itself.
    fn first_char(&self, start: u32, end: u32) -> Span {
        let rest = self.tree.text.get(start as usize..).unwrap_or_default();
        let width = rest.chars().next().filter(|char| *char != '\n').map_or(0, char::len_utf8) as u32;
        self.span(start, end.max(start + width))
    }

    fn too_large(&self, start: u32, end: u32, label: &str, message: String) -> YamlError {
        let refused = Diagnostic::error(Code::TooLarge, self.span(start, end), label, message);
        Box::new(refused.help("no topology needs this; split a very large one into several files with the same `name`"))
    }

    fn syntax(&self, error: &ScanError) -> YamlError {
        let start = error.marker().byte_offset().unwrap_or_default().min(self.tree.text.len()) as u32;
        let Span { end, .. } = self.first_char(start, start);
        if *error.kind() == ErrorKind::RecursionLimitExceeded {
            let message = format!("this is nested more than {DEPTH_MAX} levels deep");
            return self.too_large(start, end, "too deep", message);
        }
        let message = format!("this is not YAML: {}", error.kind());
        let refused = Diagnostic::error(Code::Syntax, self.span(start, end), "here", message);
        Box::new(refused.help(syntax_help(error.kind())))
    }
}

fn parser_options() -> Options {
    options! {
        emit_unresolved_aliases: true,
        emit_comments: false,
        flow_nesting_limit: SCANNER_DEPTH_MAX,
        block_nesting_limit: SCANNER_DEPTH_MAX,
    }
}

fn bytes(span: &YamlSpan) -> (u32, u32) {
    // The parser of a `str` always knows bytes, and `TEXT_BYTES_MAX` fits.
    let range = span.byte_range().unwrap_or_default();
    (range.start as u32, range.end as u32)
}

/// What usually is behind an error, for people who do not think in the terms of the YAML standard.
fn syntax_help(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabInPlainScalar
        | ErrorKind::TabAtBlockScalarStart => "indent with spaces, YAML has no tabs there",
        ErrorKind::MappingValueNotAllowed | ErrorKind::InvalidColonPlacement => {
            "a text with `: ` in it needs quotes; or the indentation of this line does not fit the line above"
        }
        ErrorKind::ExpectedBlockMappingKey
        | ErrorKind::InvalidIndentation
        | ErrorKind::SimpleKeyExpected
        | ErrorKind::InvalidSimpleKey
        | ErrorKind::MappingKeyNotAllowed => {
            "keys of the same mapping start in the same column, and each is followed by `: `"
        }
        ErrorKind::UnclosedQuotedScalar => "close the quote",
        ErrorKind::UnclosedFlowCollection { .. }
        | ErrorKind::MismatchedFlowCollectionEnd { .. }
        | ErrorKind::UnexpectedEofFlowMapping
        | ErrorKind::UnexpectedEofFlowSequence
        | ErrorKind::UnexpectedEofImplicitFlowMapping
        | ErrorKind::ExpectedFlowMappingSeparator
        | ErrorKind::ExpectedFlowSequenceSeparator => "close the bracket, and put commas between what is inside",
        ErrorKind::UnexpectedCharacter { .. } => "a text that starts with this character needs quotes",
        _ => "correct the text here; what is above was read without problems",
    }
}
