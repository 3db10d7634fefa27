//! The server that load goes to.

use std::io;
use std::net::SocketAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};

/// A server by its URL, with what every request to it carries.
#[derive(Clone, Debug)]
pub struct Target {
    pub(super) addrs: Vec<SocketAddr>,
    /// What stands before `/v1`.
    pub(super) prefix: String,
    pub(super) headers: HeaderMap,
}

/// Why there is no target.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// Not a URL of a server.
    #[error("{0:?} is no URL of a server; expected something like http://127.0.0.1:8000")]
    Url(String),
    /// TLS.
    #[error("TLS is not supported yet: use http:// instead of {0}")]
    Tls(String),
    /// The name leads nowhere.
    #[error("cannot find {authority}: {source}")]
    Unknown {
        /// Host and port.
        authority: String,
        /// What the system said.
        source: io::Error,
    },
    /// Not a header.
    #[error("{0:?} cannot be sent as a header; expected NAME=VALUE without control characters")]
    Header(String),
}

impl Target {
    /// The server of a URL such as `http://10.0.0.1:8000`; a trailing `/v1` is understood. Dropping the future gives up
    /// the look-up of its name.
    pub async fn resolve(url: &str) -> Result<Target, TargetError> {
        let refused = || TargetError::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| refused())?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(TargetError::Tls(url.to_owned())),
            _ => return Err(refused()),
        }
        let authority = uri.authority().ok_or_else(refused)?;
        let path = uri.path().trim_end_matches('/');
        let prefix = path.strip_suffix("/v1").unwrap_or(path).to_owned();
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| refused())?;
        let port = uri.port_u16().unwrap_or(80);
        let name = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let unknown = |source| TargetError::Unknown { authority: authority.to_string(), source };
        let addrs: Vec<SocketAddr> =
            tokio::net::lookup_host((name, port)).await.map_err(unknown)?.collect();
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(Target { addrs, prefix, headers })
    }

    /// The same under another name, as gateways tell hosts apart.
    pub fn with_host(self, host: &str) -> Result<Target, TargetError> {
        self.with_header("host", host)
    }

    /// The same with a header in every request.
    pub fn with_header(mut self, name: &str, value: &str) -> Result<Target, TargetError> {
        let refused = || TargetError::Header(name.to_owned());
        let key = HeaderName::try_from(name).map_err(|_| refused())?;
        let mut value = HeaderValue::try_from(value).map_err(|_| refused())?;
        value.set_sensitive(key == header::AUTHORIZATION);
        self.headers.insert(key, value);
        Ok(self)
    }
}
