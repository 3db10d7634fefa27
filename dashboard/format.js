// Numbers as people read them: three digits, and a unit that fits.

const UNKNOWN = "–";

/** Up to three digits: 0.04, 1.27, 38.1, 412, 12,300. */
function digits(value) {
  const size = Math.abs(value);
  if (size >= 99.95 || Number.isInteger(value)) return Math.round(value).toLocaleString("en");
  return value.toFixed(size >= 9.995 ? 1 : 2);
}

const known = (value) => value !== null && value !== undefined && Number.isFinite(value);

/** A count, or a rate: 950, 12.3k, 4.56M. */
export function count(value) {
  if (!known(value)) return UNKNOWN;
  const size = Math.abs(value);
  if (size >= 1e9) return `${digits(value / 1e9)}G`;
  if (size >= 1e6) return `${digits(value / 1e6)}M`;
  if (size >= 1e4) return `${digits(value / 1e3)}k`;
  return digits(value);
}

/** A rate per second; what is too small to matter is nothing. */
export function rate(value) {
  return known(value) && value > 0 && value < 0.005 ? "<0.01" : count(value);
}

/** The marks of a scale need no digits that are zero. */
export function short(shown) {
  return shown.replace(/\.(\d*?)0+(?=\D|$)/, (_, rest) => (rest ? `.${rest}` : ""));
}

/** A time: 0.42 ms, 38.1 ms, 1.27 s, 12 min. */
export function time(seconds) {
  if (!known(seconds)) return UNKNOWN;
  const size = Math.abs(seconds);
  if (size === 0) return "0";
  if (size >= 600) return `${digits(Math.round(seconds / 60))} min`;
  if (size >= 1) return `${digits(seconds)} s`;
  if (size >= 1e-3) return `${digits(seconds * 1e3)} ms`;
  return size < 1e-6 ? "<1 µs" : `${digits(seconds * 1e6)} µs`;
}

/** A share of one in per cent. */
export function percent(share) {
  if (!known(share)) return UNKNOWN;
  return `${(share * 100).toFixed(share > 0 && share < 0.0995 ? 1 : 0)} %`;
}

/** A length of time for people: 42 s, 3 min, 2 h 5 min, 4 d 3 h. */
export function span(seconds) {
  const whole = Math.floor(seconds);
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** The time of day, to the second. */
export function clock(milliseconds) {
  return new Date(milliseconds).toLocaleTimeString("en-GB");
}

/** How a pool is called in metrics. */
export function poolLabel(pool) {
  const name = pool.namespace === "default" ? pool.name : `${pool.namespace}/${pool.name}`;
  return pool.kind === "Service" ? `${name}:${pool.port}` : name;
}
