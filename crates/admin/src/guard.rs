//! What the admin port refuses for browsers' sake.
//!
//! A page from anywhere can make a browser on this machine or network send requests here. Two things
//! stop it: a name that an attacker can own is not accepted as `Host` (else, once the name points
//! here, the page may read the answers), and what changes something, or lasts, is refused when another
//! site's page sends it.

use std::net::{IpAddr, Ipv6Addr};

use http::{HeaderMap, Method, header, request::Parts};

use crate::ports::EVENTS;

const HOST: &str = "the admin port is reached by IP address, as localhost, or by a name inside the \
                    cluster, not by this Host";
const SITE: &str =
    "another site's page may not change or follow anything here; use a command such as curl";

/// Says why a request is refused.
pub(crate) fn check(request: &Parts) -> Result<(), &'static str> {
    let named = request.headers.get_all(header::HOST).iter();
    let hosts = named.map(|host| host.to_str().unwrap_or_default());
    let hosts = hosts.chain(request.uri.authority().map(http::uri::Authority::as_str));
    // A request without any is no browser's.
    if !hosts.into_iter().all(is_ours) {
        return Err(HOST);
    }
    let changes = !request.method.is_safe() && request.method != Method::OPTIONS;
    if (changes || request.uri.path() == EVENTS) && is_foreign(&request.headers) {
        return Err(SITE);
    }
    Ok(())
}

/// Whether no stranger can own this host: an address, a name of this machine or of the cluster.
fn is_ours(authority: &str) -> bool {
    if let Some((address, port)) = authority.strip_prefix('[').and_then(|rest| rest.split_once(']'))
    {
        return is_port(port) && address.parse::<Ipv6Addr>().is_ok();
    }
    let colon = authority.find(':').unwrap_or(authority.len());
    let (host, port) = authority.split_at(colon);
    if !is_port(port) {
        return false;
    }
    if host.parse::<IpAddr>().is_ok() {
        return true;
    }
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let letters = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let inside = [".localhost", ".svc", ".svc.cluster.local"];
    !host.is_empty()
        && host.bytes().all(letters)
        && (!host.contains('.') || inside.iter().any(|suffix| host.ends_with(suffix)))
}

fn is_port(text: &str) -> bool {
    text.is_empty() || text.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok())
}

/// Whether a page of another origin sent this. Browsers say so themselves; commands say nothing.
fn is_foreign(headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get("sec-fetch-site") {
        // `none`: typed by the user. `same-site` is another port of this machine, maybe of anyone.
        return site != "same-origin" && site != "none";
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    origin.map(|(_, authority)| authority) != host
}

#[cfg(test)]
mod tests;
