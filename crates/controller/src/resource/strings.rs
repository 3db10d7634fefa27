//! Hosts, header conditions and other strings with a meaning of their own.

use std::{net::IpAddr, sync::Arc};

use picker::{AppProtocol, HostPattern, StringMatch};

use super::{BackendTarget, Path};
use crate::fields::Item;

/// A host as Istio writes it: `*`, `*.example.com`, `example.com`.
pub(super) fn host(item: &Item<'_>, text: &str) -> Option<HostPattern> {
    let wrong = |what: &str, hint: &str| {
        item.error(format_args!("expected a host, found {text:?}{what}"), hint);
        None
    };
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix('.').unwrap_or(&lower);
    if lower == "*" {
        return Some(HostPattern::Any);
    }
    if lower.parse::<IpAddr>().is_ok() {
        return Some(HostPattern::Exact(lower.to_owned()));
    }
    if lower.contains("://") || lower.contains('/') {
        return wrong("", "write the name alone, without http:// or a path");
    }
    if lower.contains(':') {
        return wrong(" with a port", "write it without; the port is the Gateway's");
    }
    let name = lower.strip_prefix("*.").unwrap_or(lower);
    if name.contains('*') {
        return wrong("", "a * may only stand alone or for the first label, as in *.example.com");
    }
    if !is_dns_name(name) {
        return wrong("", "write e.g. example.com, *.example.com or *");
    }
    Some(match lower.strip_prefix('*') {
        Some(suffix) => HostPattern::Suffix(suffix.to_owned()),
        None => HostPattern::Exact(lower.to_owned()),
    })
}

/// Labels of letters, digits, hyphens and underscores between dots.
pub(crate) fn is_dns_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// Istio's `StringMatch`; an empty one asks only that there is a value.
pub(super) fn string_match(item: &Item<'_>) -> Option<StringMatch> {
    if let Some(text) = item.as_text() {
        item.expected("exact, prefix or regex", &format!("write {{exact: {text:?}}}"));
        return None;
    }
    item.fields(|fields| {
        let exact = fields.get("exact");
        let prefix = fields.get("prefix");
        let regex = fields.get("regex");
        let given = [&exact, &prefix, &regex].into_iter().flatten().count();
        if given > 1 {
            fields.item.error(
                "expected one of exact, prefix and regex, found several",
                "write one match for each",
            );
        } else if given == 0 && !fields.is_empty() {
            // Ignoring an unknown condition would let everything through.
            fields.item.error("expected exact, prefix or regex, found none of them", "");
        }
        if let Some(item) = exact {
            return item.text().map(StringMatch::Exact);
        }
        if let Some(item) = prefix {
            return item.text().map(StringMatch::Prefix);
        }
        regex_match(&regex?)
    })?
}

pub(super) fn regex_match(item: &Item<'_>) -> Option<StringMatch> {
    let pattern = item.text()?;
    match StringMatch::regex(&pattern) {
        Ok(regex) => Some(regex),
        Err(error) => {
            item.error(
                format_args!("expected a regular expression, found {pattern:?}: {error}"),
                "it has to match the whole value; write e.g. beta-.*",
            );
            None
        }
    }
}

/// Conditions on headers: name to `StringMatch`.
pub(super) fn headers(item: &Item<'_>) -> Vec<(String, Option<StringMatch>)> {
    let entries = item.entries().into_iter();
    entries.map(|(name, item)| (name.to_ascii_lowercase(), string_match(&item))).collect()
}

/// A destination as Istio names it; a short name is in the namespace of the object.
pub(super) fn destination(host: &str, port: Option<u16>, namespace: &Arc<str>) -> BackendTarget {
    let host = host.strip_suffix('.').unwrap_or(host);
    let short = host.strip_suffix(".svc.cluster.local").or_else(|| host.strip_suffix(".svc"));
    let path = match (short, host.split_once('.')) {
        (Some(short), _) => match short.split_once('.') {
            Some((name, namespace)) if !namespace.contains('.') => Path::new(namespace, name),
            _ => return BackendTarget::Outside(host.to_owned()),
        },
        (None, None) => Path::new(Arc::clone(namespace), host),
        (None, Some((name, namespace))) if !namespace.contains('.') => Path::new(namespace, name),
        (None, Some(_)) => return BackendTarget::Outside(host.to_owned()),
    };
    BackendTarget::Service(path, port)
}

/// Kubernetes's names for what a port speaks.
pub(super) fn app_protocol(item: &Item<'_>) -> AppProtocol {
    match item.one_of(&["http", "kubernetes.io/h2c"]) {
        Some("kubernetes.io/h2c") => AppProtocol::H2c,
        _ => AppProtocol::Http1,
    }
}
