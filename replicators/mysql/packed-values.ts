/**
 * MySQL's packed numbers and times, as text. Source: strings/decimal.cc (bin2decimal) and sql-common/my_time.cc
 * (my_*_packed_from_binary, TIME_from_longlong_*_packed) of MySQL 8.0.
 */
const BYTES_OF_DIGITS = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];

/** A DECIMAL(precision, scale) at `at`; `size` is its length in bytes. */
export function decimalText(
  b: Buffer,
  at: number,
  precision: number,
  scale: number,
): { text: string; size: number } {
  const integral = precision - scale;
  const whole = Math.floor(integral / 9);
  const wholeRest = integral % 9;
  const fraction = Math.floor(scale / 9);
  const fractionRest = scale % 9;
  const size = BYTES_OF_DIGITS[wholeRest]! + whole * 4 + fraction * 4 + BYTES_OF_DIGITS[fractionRest]!;
  const negative = (b[at]! & 0x80) === 0;
  let position = at;
  let first = true;
  const group = (bytes: number): number => {
    let value = 0;
    for (let i = 0; i < bytes; i++) {
      let byte = b[position++]!;
      if (first) byte ^= 0x80;
      first = false;
      value = value * 256 + (negative ? byte ^ 0xff : byte);
    }
    return value;
  };
  let digits = '';
  if (wholeRest > 0) digits += String(group(BYTES_OF_DIGITS[wholeRest]!));
  for (let i = 0; i < whole; i++) digits += String(group(4)).padStart(9, '0');
  digits = digits.replace(/^0+(?=\d)/, '') || '0';
  let decimals = '';
  for (let i = 0; i < fraction; i++) decimals += String(group(4)).padStart(9, '0');
  if (fractionRest > 0) decimals += String(group(BYTES_OF_DIGITS[fractionRest]!)).padStart(fractionRest, '0');
  return { text: `${negative ? '-' : ''}${digits}${scale > 0 ? `.${decimals}` : ''}`, size };
}

const two = (n: number): string => (n < 10 ? `0${n}` : String(n));

/** `micros` as `.` and `decimals` digits; empty for none. */
export function fractionText(micros: number, decimals: number): string {
  return decimals === 0 ? '' : `.${String(micros).padStart(6, '0').slice(0, decimals)}`;
}

export function timeText(negative: boolean, hms: number, micros: number, decimals: number): string {
  return `${negative ? '-' : ''}${two((hms >> 12) % 1024)}:${two((hms >> 6) % 64)}:${two(hms % 64)}${fractionText(micros, decimals)}`;
}

export function dateText(year: number, month: number, day: number): string {
  return `${String(year).padStart(4, '0')}-${two(month)}-${two(day)}`;
}

/** Year-month-day and hour-minute-second parts of a DATETIME2 without its fraction. */
export function datetimeText(ymd: number, hms: number, micros: number, decimals: number): string {
  const ym = Math.floor(ymd / 32);
  return `${dateText(Math.floor(ym / 13), ym % 13, ymd % 32)} ${two((hms >> 12) % 32)}:${two((hms >> 6) % 64)}:${two(hms % 64)}${fractionText(micros, decimals)}`;
}

/** The 64-bit form inside JSON: 24 bits of microseconds below 40 bits of date and time. */
export function packedDatetimeText(packed: bigint): string {
  const micros = Number(packed & 0xffffffn);
  const whole = packed >> 24n;
  return datetimeText(Number(whole >> 17n), Number(whole & 0x1ffffn), micros, 6);
}

export function packedTimeText(packed: bigint): string {
  const absolute = packed < 0n ? -packed : packed;
  return timeText(packed < 0n, Number(absolute >> 24n), Number(absolute & 0xffffffn), 6);
}
