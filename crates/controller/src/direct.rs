//! A gateway in front of some servers, without any objects.

use std::{collections::BTreeSet, fmt, net::Ipv6Addr, sync::Arc};

use picker::{
    AppProtocol, Desired, EndpointSpec, HostPattern, ListenerSpec, PoolKey, PoolKind, PoolSpec,
    RouteRule, RouteSpec, WeightedPool,
};
use scheduling::Policy;

use crate::fold::endpoint_id;

/// Where a vLLM server listens.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct EndpointUrl {
    /// IP address, without brackets, or DNS name.
    pub host: String,
    pub port: u16,
}

impl fmt::Display for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", endpoint_id(&self.host, self.port))
    }
}

/// Reads `http://host:port`, port 80 if there is none. The error says what to write.
pub fn parse_endpoint_url(text: &str) -> Result<EndpointUrl, String> {
    let wrong = |what: &str| Err(format!("{text:?}: {what}; write e.g. http://10.0.0.1:8000"));
    if text.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("https://")) {
        return wrong("https endpoints are not supported yet");
    }
    let rest = match text.get(..7) {
        Some(start) if start.eq_ignore_ascii_case("http://") => &text[7..],
        _ => return wrong("expected a URL that begins with http://"),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains(['/', '?', '#']) {
        return wrong("a path has no use here, requests keep their own");
    }
    if rest.contains('@') {
        return wrong("user and password have no use here");
    }
    let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, port)) => match port.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None => return wrong("expected a port after the address"),
        },
        None => match rest.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (rest, None),
        },
    };
    let is_ipv6 = host.parse::<Ipv6Addr>().is_ok();
    if is_ipv6 != rest.starts_with('[') || !(is_ipv6 || crate::resource::is_dns_name(host)) {
        return wrong("expected a host name or an IP address, an IPv6 one in brackets");
    }
    let digits = port.is_none_or(|port| port.chars().all(|c| c.is_ascii_digit()));
    match port.map_or(Ok(80), str::parse) {
        Ok(port) if port > 0 && digits => Ok(EndpointUrl { host: host.to_ascii_lowercase(), port }),
        _ => wrong("expected a port number 1-65535"),
    }
}

/// All requests to `port`, whatever their host, to one pool of these endpoints.
pub fn endpoints_config(urls: &[EndpointUrl], port: u16, policy: Policy) -> Desired {
    let key = PoolKey {
        kind: PoolKind::InferencePool,
        namespace: "default".into(),
        name: "endpoints".into(),
        port: 0,
    };
    let unique: BTreeSet<&EndpointUrl> = urls.iter().collect();
    let endpoint = |url: &EndpointUrl| {
        let id = endpoint_id(&url.host, url.port);
        EndpointSpec {
            workload: Arc::from(id.as_str()),
            id,
            host: url.host.as_str().into(),
            port: url.port,
            protocol: AppProtocol::Http1,
        }
    };
    let mut endpoints: Vec<EndpointSpec> = unique.into_iter().map(endpoint).collect();
    endpoints.sort_by(|a, b| a.id.cmp(&b.id));
    Desired {
        listeners: vec![ListenerSpec { port, gateways: vec!["--endpoint".to_owned()] }],
        pools: vec![PoolSpec { endpoints, ..PoolSpec::new(key.clone(), policy) }],
        routes: vec![RouteSpec {
            name: "default/endpoints".into(),
            port,
            hosts: vec![HostPattern::Any],
            rules: vec![RouteRule {
                name: None,
                matches: Vec::new(),
                pools: vec![WeightedPool { pool: key, weight: 1 }],
                timeout: None,
            }],
        }],
    }
}

#[cfg(test)]
mod tests;
