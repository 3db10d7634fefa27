//! The section `limits` of the settings file: how much the data plane takes, holds and waits.

use std::{ops::RangeInclusive, time::Duration};

use proxy::Limits;
use serde::{Deserialize, Serialize};

use super::{Reader, Written};

/// Shortest time a limit can be.
const TIME_MIN: Duration = Duration::from_millis(1);
/// What a connection may buffer of a head, in bytes and lines, bounds what can be set.
const HEADER_BYTES: RangeInclusive<usize> = 1024..=256 * 1024;
const HEADERS: RangeInclusive<usize> = 1..=400;
const CONNECTIONS: RangeInclusive<usize> = 1..=1_000_000;
const BODY_BYTES: RangeInclusive<usize> = 64 * 1024..=1 << 40;
const STREAMS: RangeInclusive<usize> = 1..=65_536;

/// The section as it is written; all optional.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawLimits {
    connections: Option<Written>,
    connection_idle_timeout: Option<Written>,
    connection_age: Option<Written>,
    http2_streams: Option<Written>,
    headers: Option<Written>,
    header_bytes: Option<Written>,
    header_timeout: Option<Written>,
    body_timeout: Option<Written>,
    body_bytes_total: Option<Written>,
    write_timeout: Option<Written>,
    connect_timeout: Option<Written>,
    endpoint_idle_timeout: Option<Written>,
    endpoint_idle_connections: Option<Written>,
}

impl RawLimits {
    pub(super) fn read(&self, reader: &mut Reader, base: Limits) -> Limits {
        let mut number = |name, key: &Option<Written>, base, range: RangeInclusive<usize>| {
            reader.read(name, None, key.as_ref(), base, |text| {
                let number = text.parse().ok().filter(|number| range.contains(number));
                let (least, most) = (range.start(), range.end());
                number.ok_or_else(|| format!("expected a whole number from {least} to {most}"))
            })
        };
        let streams = usize::try_from(base.http2_streams_max).unwrap_or(usize::MAX);
        let streams = number("limits.http2-streams", &self.http2_streams, streams, STREAMS);
        let connections = &self.connections;
        let idle = &self.endpoint_idle_connections;
        let total = &self.body_bytes_total;
        let counts = Limits {
            connections_max: number(
                "limits.connections",
                connections,
                base.connections_max,
                CONNECTIONS,
            ),
            headers_max: number("limits.headers", &self.headers, base.headers_max, HEADERS),
            header_bytes_max: number(
                "limits.header-bytes",
                &self.header_bytes,
                base.header_bytes_max,
                HEADER_BYTES,
            ),
            bodies_bytes_max: number(
                "limits.body-bytes-total",
                total,
                base.bodies_bytes_max,
                BODY_BYTES,
            ),
            upstream_idle_max: number(
                "limits.endpoint-idle-connections",
                idle,
                base.upstream_idle_max,
                CONNECTIONS,
            ),
            http2_streams_max: u32::try_from(streams).unwrap_or(u32::MAX),
            ..base
        };
        self.read_times(reader, counts)
    }

    fn read_times(&self, reader: &mut Reader, base: Limits) -> Limits {
        let mut time = |name, key: &Option<Written>, base| {
            reader.time(name, None, key.as_ref(), base, TIME_MIN)
        };
        Limits {
            header_read_timeout: time(
                "limits.header-timeout",
                &self.header_timeout,
                base.header_read_timeout,
            ),
            connection_idle_timeout: time(
                "limits.connection-idle-timeout",
                &self.connection_idle_timeout,
                base.connection_idle_timeout,
            ),
            connection_age_max: time(
                "limits.connection-age",
                &self.connection_age,
                base.connection_age_max,
            ),
            write_timeout: time("limits.write-timeout", &self.write_timeout, base.write_timeout),
            body_read_timeout: time(
                "limits.body-timeout",
                &self.body_timeout,
                base.body_read_timeout,
            ),
            connect_timeout: time(
                "limits.connect-timeout",
                &self.connect_timeout,
                base.connect_timeout,
            ),
            upstream_idle_timeout: time(
                "limits.endpoint-idle-timeout",
                &self.endpoint_idle_timeout,
                base.upstream_idle_timeout,
            ),
            ..base
        }
    }
}

/// As the admin port shows them.
pub(super) fn shown(limits: &Limits) -> impl Serialize + use<> {
    let time = |time: Duration| format!("{time:?}");
    serde_json::json!({
        "connections": limits.connections_max,
        "connection-idle-timeout": time(limits.connection_idle_timeout),
        "connection-age": time(limits.connection_age_max),
        "http2-streams": limits.http2_streams_max,
        "headers": limits.headers_max,
        "header-bytes": limits.header_bytes_max,
        "header-timeout": time(limits.header_read_timeout),
        "body-timeout": time(limits.body_read_timeout),
        "body-bytes-total": limits.bodies_bytes_max,
        "write-timeout": time(limits.write_timeout),
        "connect-timeout": time(limits.connect_timeout),
        "endpoint-idle-timeout": time(limits.upstream_idle_timeout),
        "endpoint-idle-connections": limits.upstream_idle_max,
    })
}
