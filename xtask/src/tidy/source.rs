//! Module docs, sizes of files and functions, re-exports of other rooms.

use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

use super::{File, Finding};

pub(super) const FILE_LINES_MAX: usize = 600;
pub(super) const FUNCTION_LINES_MAX: usize = 70;

pub(super) fn module_docs(file: &File) -> Option<Finding> {
    let text = file.text().unwrap_or_default();
    (!text.starts_with("//!")).then(|| {
        Finding::new(&file.path, 1, "begin with `//!` and a sentence: what is this module for?")
    })
}

pub(super) fn file_size(file: &File) -> Option<Finding> {
    let lines = file.text().unwrap_or_default().lines().count();
    (lines > FILE_LINES_MAX).then(|| {
        let advice = format!("{lines} lines, at most {FILE_LINES_MAX}; split it by what it does");
        Finding::new(&file.path, FILE_LINES_MAX + 1, advice)
    })
}

/// Parses a file, or says why not: a file that does not parse would pass every rule.
pub(super) fn parsed(file: &File) -> Result<syn::File, Finding> {
    syn::parse_file(file.text().unwrap_or_default()).map_err(|error| {
        let line = error.span().start().line;
        Finding::new(&file.path, line, format!("cannot be parsed: {error}"))
    })
}

pub(super) fn function_sizes(file: &File) -> Vec<Finding> {
    let syntax = match parsed(file) {
        Ok(syntax) => syntax,
        Err(finding) => return vec![finding],
    };
    let lines = file.text().unwrap_or_default().lines().collect();
    let mut visitor = Functions { file, lines, findings: Vec::new() };
    visitor.visit_file(&syntax);
    visitor.findings
}

struct Functions<'a> {
    file: &'a File,
    lines: Vec<&'a str>,
    findings: Vec<Finding>,
}

impl Functions<'_> {
    /// Counts as clippy's `too_many_lines` does: neither blank lines nor comments.
    fn check(&mut self, signature: &syn::Signature, body: &syn::Block) {
        let (open, close) = (body.span().start().line, body.span().end().line);
        let inside = self.lines.get(open..close.saturating_sub(1)).unwrap_or_default();
        let is_code = |line: &&&str| {
            let line = line.trim();
            !line.is_empty() && !line.starts_with("//")
        };
        let count = inside.iter().filter(is_code).count();
        if count > FUNCTION_LINES_MAX {
            let advice = format!(
                "`{}` has {count} lines, at most {FUNCTION_LINES_MAX}; give a part of it a name",
                signature.ident
            );
            self.findings.push(Finding::new(&self.file.path, open, advice));
        }
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.check(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.check(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(body) = &function.default {
            self.check(&function.sig, body);
        }
        visit::visit_trait_item_fn(self, function);
    }
}

/// `pub use other_room::…` would let a room be known through another.
pub(super) fn reexports(file: &File, rooms: &[String]) -> Vec<Finding> {
    let syntax = match parsed(file) {
        Ok(syntax) => syntax,
        Err(finding) => return vec![finding],
    };
    let mut visitor = Reexports { file, rooms, findings: Vec::new() };
    visitor.visit_file(&syntax);
    visitor.findings
}

struct Reexports<'a> {
    file: &'a File,
    rooms: &'a [String],
    findings: Vec<Finding>,
}

impl<'ast> Visit<'ast> for Reexports<'_> {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if matches!(item.vis, syn::Visibility::Public(_)) {
            for name in first_names(&item.tree) {
                let own = self.file.room().is_some_and(|room| name == *room);
                if !own && self.rooms.contains(&name) {
                    let advice = format!("do not re-export `{name}`; its users name it themselves");
                    let line = item.span().start().line;
                    self.findings.push(Finding::new(&self.file.path, line, advice));
                }
            }
        }
        visit::visit_item_use(self, item);
    }
}

fn first_names(tree: &syn::UseTree) -> Vec<String> {
    match tree {
        syn::UseTree::Path(path) => vec![path.ident.to_string()],
        syn::UseTree::Name(name) => vec![name.ident.to_string()],
        syn::UseTree::Rename(rename) => vec![rename.ident.to_string()],
        syn::UseTree::Group(group) => group.items.iter().flat_map(first_names).collect(),
        syn::UseTree::Glob(_) => Vec::new(),
    }
}
