// Numbers as people read them.

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

export function count(value) {
  return whole.format(value);
}

export function plural(value, noun) {
  return `${count(value)} ${noun}${value === 1 ? "" : "s"}`;
}

// 950, 12.3k, 4.1M: for columns; the whole number is in the title.
export function short(value) {
  if (value < 1000) return String(Math.round(value));
  const [scaled, unit] = value < 999_500 ? [value / 1000, "k"] : [value / 1e6, "M"];
  return `${scaled >= 99.5 ? scaled.toFixed(0) : scaled.toFixed(1)}${unit}`;
}

export function seconds(value) {
  if (value >= 3600) return `${Math.floor(value / 3600)} h ${Math.round((value % 3600) / 60)} min`;
  if (value >= 100)
    return value % 60 < 0.5
      ? `${Math.round(value / 60)} min`
      : `${Math.floor(value / 60)} min ${Math.round(value % 60)} s`;
  if (value >= 10) return `${value.toFixed(0)} s`;
  return value >= 0.1 || value === 0
    ? `${value.toFixed(value >= 1 ? 1 : 2)} s`
    : `${Math.max(1, Math.round(value * 1000))} ms`;
}

export function percent(share) {
  const value = 100 * share;
  return `${value > 0 && value < 10 ? value.toFixed(1) : value.toFixed(0)} %`;
}

export function score(value) {
  return value === null || value === undefined ? "–" : String(Math.round(value * 1000) / 1000);
}

export function fixed(value, digits) {
  return value === null || value === undefined ? "–" : value.toFixed(digits);
}

export function signed(value, digits = 3) {
  return `${value > 0 ? "+" : value < 0 ? "−" : "±"}${Math.abs(value).toFixed(digits)}`;
}

export function money(value) {
  return `$${value < 1 ? value.toFixed(4) : value.toFixed(2)}`;
}

export function moment(text) {
  const date = new Date(text);
  return Number.isNaN(date.getTime()) ? text : date.toISOString().replace("T", " ").slice(0, 16) + " UTC";
}
