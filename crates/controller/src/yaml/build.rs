//! Parser events to trees.

use std::collections::{BTreeMap, BTreeSet};

use super::{DEPTH_MAX, Entry, Event, Fault, NODES_MAX, Node, Tag, Value, scalar};

/// Builds the trees of one chunk of text.
pub(super) struct Builder<'n> {
    open: Vec<Frame>,
    anchors: BTreeMap<usize, Anchor>,
    /// None once more was asked for than there was.
    nodes_left: &'n mut Option<usize>,
    pub(super) roots: Vec<Node>,
    /// Faults one can read on after.
    pub(super) faults: Vec<Fault>,
}

/// A list or map whose end has not come yet.
struct Frame {
    line: u32,
    anchor: usize,
    inside: Inside,
}

enum Inside {
    List(Vec<Node>),
    Map(Pairs),
}

#[derive(Default)]
struct Pairs {
    entries: Vec<Entry>,
    /// Every key so far and its line.
    seen: BTreeMap<String, u32>,
    /// The key whose value is awaited.
    key: Option<(String, u32)>,
}

struct Anchor {
    node: Node,
    nodes: usize,
    depth: usize,
}

impl<'n> Builder<'n> {
    pub(super) fn new(nodes_left: &'n mut Option<usize>) -> Self {
        Self {
            open: Vec::new(),
            anchors: BTreeMap::new(),
            nodes_left,
            roots: Vec::new(),
            faults: Vec::new(),
        }
    }

    /// An error is a fault that makes the rest of the chunk unreadable.
    pub(super) fn take(&mut self, event: Event<'_>, line: u32) -> Result<(), Fault> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.spend(1, line)?;
                self.check_tag(tag.as_deref(), line);
                if let Some(Frame { inside: Inside::Map(pairs), .. }) = self.open.last_mut()
                    && pairs.key.is_none()
                {
                    pairs.key = Some((text.into_owned(), line));
                    return Ok(());
                }
                let value = scalar(&text, style, tag.as_deref());
                self.finish(Node { line, value }, anchor)?;
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.check_tag(tag.as_deref(), line);
                self.begin(Inside::List(Vec::new()), anchor, line)?;
            }
            Event::MappingStart(_, anchor, tag) => {
                self.check_tag(tag.as_deref(), line);
                self.begin(Inside::Map(Pairs::default()), anchor, line)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.end()?,
            Event::Alias(anchor) => self.alias(anchor, line)?,
            Event::DocumentStart(..) => self.anchors.clear(),
            _ => {}
        }
        Ok(())
    }

    fn begin(&mut self, inside: Inside, anchor: usize, line: u32) -> Result<(), Fault> {
        self.spend(1, line)?;
        if self.open.len() >= DEPTH_MAX {
            return Err(too_deep(line));
        }
        self.open.push(Frame { line, anchor, inside });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Fault> {
        let Some(frame) = self.open.pop() else { return Ok(()) };
        let value = match frame.inside {
            Inside::List(items) => Value::List(items),
            Inside::Map(pairs) => Value::Map(merge(pairs.entries)),
        };
        self.finish(Node { line: frame.line, value }, frame.anchor)
    }

    fn alias(&mut self, anchor: usize, line: u32) -> Result<(), Fault> {
        let Some(found) = self.anchors.get(&anchor) else {
            return Err(Fault {
                line,
                message: "an alias inside what it stands for".into(),
                hint: "write the value out",
            });
        };
        if self.open.len() + found.depth > DEPTH_MAX {
            return Err(too_deep(line));
        }
        let nodes = found.nodes;
        self.spend(nodes, line)?;
        // Lines stay those of the anchor, where the value can be corrected.
        let node = self.anchors[&anchor].node.clone();
        self.finish(node, 0)
    }

    /// Puts a complete value where it belongs.
    fn finish(&mut self, node: Node, anchor: usize) -> Result<(), Fault> {
        if anchor != 0 {
            let (nodes, depth) = measure(&node);
            self.spend(nodes, node.line)?;
            self.anchors.insert(anchor, Anchor { node: node.clone(), nodes, depth });
        }
        match self.open.last_mut() {
            None => self.roots.push(node),
            Some(Frame { inside: Inside::List(items), .. }) => items.push(node),
            Some(Frame { inside: Inside::Map(pairs), .. }) => {
                self.faults.extend(pairs.add(node));
            }
        }
        Ok(())
    }

    fn spend(&mut self, nodes: usize, line: u32) -> Result<(), Fault> {
        *self.nodes_left = self.nodes_left.and_then(|left| left.checked_sub(nodes));
        self.nodes_left.map(drop).ok_or_else(|| Fault {
            line,
            message: format!("more than {NODES_MAX} values, aliases written out"),
            hint: "split the file, use fewer aliases",
        })
    }

    fn check_tag(&mut self, tag: Option<&Tag>, line: u32) {
        if let Some(tag) = tag
            && tag.core_suffix().is_none()
            && tag.original() != "!"
        {
            self.faults.push(Fault {
                line,
                message: format!("tag {} means nothing here", tag.original()),
                hint: "remove it",
            });
        }
    }
}

impl Pairs {
    /// Takes a key that is no scalar, or the value of the key before.
    fn add(&mut self, node: Node) -> Option<Fault> {
        let Some((key, line)) = self.key.take() else {
            let (line, found) = (node.line, node.describe());
            self.key = Some((found.clone(), line));
            return Some(Fault {
                line,
                message: format!("expected a string as key, found {found}"),
                hint: "quote it if it contains braces, brackets or an asterisk",
            });
        };
        if key != "<<"
            && let Some(earlier) = self.seen.insert(key.clone(), line)
        {
            return Some(Fault {
                line,
                message: format!("key {key:?} given twice, first on line {earlier}"),
                hint: "keep one of them",
            });
        }
        self.entries.push(Entry { key, line, node });
        None
    }
}

pub(super) fn too_deep(line: u32) -> Fault {
    Fault {
        line,
        message: format!("nested more than {DEPTH_MAX} deep"),
        hint: "no object needs that; check the brackets and aliases",
    }
}

/// Number of nodes and depth of a tree.
fn measure(node: &Node) -> (usize, usize) {
    let children: Vec<(usize, usize)> = match &node.value {
        Value::List(items) => items.iter().map(measure).collect(),
        Value::Map(entries) => entries.iter().map(|entry| measure(&entry.node)).collect(),
        _ => return (1, 0),
    };
    let nodes = 1 + children.iter().map(|(nodes, _)| nodes).sum::<usize>();
    (nodes, 1 + children.iter().map(|(_, depth)| *depth).max().unwrap_or(0))
}

/// Applies `<<: *other`: the other map's entries, where there is none of that key yet.
fn merge(entries: Vec<Entry>) -> Vec<Entry> {
    if !entries.iter().any(|entry| entry.key == "<<") {
        return entries;
    }
    let (merges, mut entries): (Vec<_>, Vec<_>) =
        entries.into_iter().partition(|entry| entry.key == "<<");
    let mut keys: BTreeSet<String> = entries.iter().map(|entry| entry.key.clone()).collect();
    for merge in merges {
        let sources = match merge.node.value {
            Value::List(sources) => sources,
            _ => vec![merge.node],
        };
        for source in sources {
            let Value::Map(more) = source.value else { continue };
            entries.extend(more.into_iter().filter(|entry| keys.insert(entry.key.clone())));
        }
    }
    entries
}
