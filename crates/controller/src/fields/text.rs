//! Small languages inside strings.

use std::time::Duration;

/// A duration as the Gateway API writes it (GEP-2257): one to four of `5h`, `1m`, `30s`, `500ms`,
/// each number without a point and of at most five digits.
pub(crate) fn gateway_duration(text: &str) -> Option<Duration> {
    const PARTS_MAX: usize = 4;
    const DIGITS_MAX: usize = 5;
    let mut rest = text;
    let mut total = Duration::ZERO;
    let mut parts = 0;
    while !rest.is_empty() && parts < PARTS_MAX {
        let (digits, behind) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let unit_end = behind.find(|c: char| c.is_ascii_digit()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(unit_end);
        let number: u64 = digits.parse().ok().filter(|_| digits.len() <= DIGITS_MAX)?;
        total += Duration::from_millis(match unit {
            "h" => number * 3_600_000,
            "m" => number * 60_000,
            "s" => number * 1_000,
            "ms" => number,
            _ => return None,
        });
        rest = behind;
        parts += 1;
    }
    (parts > 0 && rest.is_empty()).then_some(total)
}

/// Bytes as a quantity of Kubernetes: `1048576`, `256Mi`, `1.5G`, `1e9`. Part of a byte counts as
/// one.
pub(crate) fn bytes(text: &str) -> Option<u64> {
    let number_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(number_end);
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits: u128 = format!("{whole}{part}").parse().ok()?;
    let scale = 10_u128.checked_pow(part.len().try_into().ok()?)?;
    let unit = match suffix {
        "" => 1,
        "k" => 10_u128.pow(3),
        "M" => 10_u128.pow(6),
        "G" => 10_u128.pow(9),
        "T" => 10_u128.pow(12),
        "P" => 10_u128.pow(15),
        "E" => 10_u128.pow(18),
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "Pi" => 1 << 50,
        "Ei" => 1 << 60,
        _ => 10_u128.checked_pow(suffix.strip_prefix(['e', 'E'])?.parse().ok()?)?,
    };
    digits.checked_mul(unit)?.div_ceil(scale).try_into().ok()
}

/// A duration as Istio writes it: `5s`, `1.5s`, `300ms`, `1h30m`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match &rest[..unit_end] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        rest = &rest[unit_end..];
        seconds += number * unit;
    }
    if text.is_empty() { None } else { Duration::try_from_secs_f64(seconds).ok() }
}
