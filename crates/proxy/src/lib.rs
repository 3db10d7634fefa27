//! Carries: listeners, the request's way to an endpoint, its answer's way back, the access log.
//!
//! [`Proxy::serve`] is the whole story of a request. Bytes pass as they came, but for the spliced
//! model name, the injected usage option and the hop-by-hop headers.
//!
//! Deliberately absent: choosing an endpoint (`picker`, `scheduling`), understanding bodies
//! (`openai`), configuration files.

mod access_log;
mod alarm;
mod carriers;
mod client;
mod connections;
mod downstream;
mod explain;
mod head;
mod limits;
mod listener;
mod load;
mod relay;
mod reply;
mod serve;
mod upstream;

pub use access_log::{AccessLog, LogFormat};
pub use carriers::Carriers;
pub use limits::Limits;
pub use listener::{BindError, Listeners, OpenPorts};
pub use serve::{Proxy, ProxyOptions};
