//! Words that have a better one in this repository, as parts of declared names.
//!
//! Only what we declare is looked at (types, traits, functions, fields, variants, constants,
//! modules and files): what others call theirs is theirs.

use syn::visit::{self, Visit};

use super::source::parsed;
use super::{File, Finding};

/// A refused word, in the singular, and what to write instead.
const REFUSED: &[(&str, &str)] = &[
    ("worker", "an `Endpoint` serves requests; a thread is a thread"),
    ("backend", "the field's term is `Endpoint`, for a set of them `InferencePool`"),
    ("replica", "the field's term is `Endpoint`"),
    ("upstream", "only `proxy` has upstreams: connections; the thing itself is an `Endpoint`"),
];

/// Refused as names of modules and files: they say what a thing is not.
const REFUSED_MODULES: &[&str] =
    &["utils", "util", "common", "types", "misc", "helpers", "helper", "shared"];

/// Where a refused word is right: the beginning of a path, the word, and why.
const ALLOWED: &[(&str, &str, &str)] = &[
    ("crates/controller/", "backend", "Kubernetes' `backendRefs`"),
    ("crates/sim/", "replica", "the simulator starts replicas of one server"),
    ("crates/proxy/", "upstream", "its connections to endpoints"),
    ("crates/tokenweir/src/", "replica", "the flag `sim --replicas`"),
];

/// Single names that users see and that others fixed: the beginning of a path, the name.
const ALLOWED_NAMES: &[(&str, &str)] = &[
    // Istio's access log keys.
    ("crates/", "upstream_host"),
    ("crates/", "upstream_cluster"),
    ("crates/", "upstream_local_address"),
    ("crates/", "upstream_service_time"),
    ("crates/", "upstream_transport_failure_reason"),
];

pub(super) fn refused_names(file: &File) -> Vec<Finding> {
    let mut declared = Declared::default();
    let stem = file.path.rsplit('/').next().and_then(|name| name.strip_suffix(".rs"));
    for part in stem.into_iter().chain(file.path.split('/').rev().skip(1)) {
        declared.modules.push((part.to_owned(), 1));
    }
    match parsed(file) {
        Ok(syntax) => declared.visit_file(&syntax),
        Err(finding) => return vec![finding],
    }
    let mut findings = Vec::new();
    for (name, line) in &declared.modules {
        if REFUSED_MODULES.contains(&name.as_str()) {
            let advice = format!("module `{name}`: name it after what it does");
            findings.push(Finding::new(&file.path, *line, advice));
        }
    }
    for (name, line) in declared.modules.iter().chain(&declared.names) {
        for (word, instead) in refused_words(&file.path, name) {
            let advice = format!("`{name}`: {instead} (`{word}` is refused here)");
            findings.push(Finding::new(&file.path, *line, advice));
        }
    }
    findings
}

fn refused_words(path: &str, name: &str) -> Vec<(&'static str, &'static str)> {
    if ALLOWED_NAMES.iter().any(|(place, allowed)| path.starts_with(place) && name == *allowed) {
        return Vec::new();
    }
    let words = words(name);
    let is_here = |(word, _): &&(&str, &str)| {
        let allowed =
            ALLOWED.iter().any(|(place, right, _)| path.starts_with(place) && word == right);
        !allowed && words.iter().any(|w| w == word || w.strip_suffix('s') == Some(*word))
    };
    REFUSED.iter().filter(is_here).copied().collect()
}

/// `HTTPBackendRef` and `http_backend_ref` are `http`, `backend`, `ref`.
pub(super) fn words(name: &str) -> Vec<String> {
    let letters: Vec<char> = name.chars().collect();
    let mut words = vec![String::new()];
    for (i, letter) in letters.iter().enumerate() {
        let before = i.checked_sub(1).map(|before| letters[before]);
        let after_small = before.is_some_and(|before| !before.is_uppercase());
        let small_follows = letters.get(i + 1).is_some_and(|next| next.is_lowercase());
        let starts = letter.is_uppercase() && (after_small || small_follows);
        if starts || !letter.is_alphanumeric() {
            words.push(String::new());
        }
        if letter.is_alphanumeric()
            && let Some(word) = words.last_mut()
        {
            word.extend(letter.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[derive(Default)]
struct Declared {
    modules: Vec<(String, usize)>,
    names: Vec<(String, usize)>,
}

impl Declared {
    fn add(&mut self, ident: &syn::Ident) {
        self.names.push((ident.to_string(), ident.span().start().line));
    }
}

impl<'ast> Visit<'ast> for Declared {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        match item {
            syn::Item::Const(item) => self.add(&item.ident),
            syn::Item::Enum(item) => self.add(&item.ident),
            syn::Item::Static(item) => self.add(&item.ident),
            syn::Item::Struct(item) => self.add(&item.ident),
            syn::Item::Trait(item) => self.add(&item.ident),
            syn::Item::Type(item) => self.add(&item.ident),
            syn::Item::Union(item) => self.add(&item.ident),
            syn::Item::Mod(item) => {
                self.modules.push((item.ident.to_string(), item.ident.span().start().line));
            }
            _ => {}
        }
        visit::visit_item(self, item);
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        self.add(&signature.ident);
        visit::visit_signature(self, signature);
    }

    fn visit_field(&mut self, field: &'ast syn::Field) {
        if let Some(ident) = &field.ident {
            self.add(ident);
        }
        visit::visit_field(self, field);
    }

    fn visit_variant(&mut self, variant: &'ast syn::Variant) {
        self.add(&variant.ident);
        visit::visit_variant(self, variant);
    }
}
