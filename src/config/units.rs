//! Sizes and times as people write them. Units of size count by 1024, as Coda's always did.

use std::time::Duration;

/// Reads a size in bytes: `100MB`, `1.5G`, `512 KiB`, `4096B`. A bare number counts kilobytes, as in
/// every venus.conf since 1990.
pub fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text)?;
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "b" => 1,
        "" | "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return Err(format!("{unit:?} is no unit of size (B, KB, MB, GB, TB)")),
    };
    scaled(number, factor).ok_or_else(|| format!("{text:?} is too big"))
}

/// Writes a size so that [`size`] reads it again.
pub fn size_text(bytes: u64) -> String {
    [(40, "TB"), (30, "GB"), (20, "MB"), (10, "KB")]
        .into_iter()
        .find(|(shift, _)| bytes != 0 && bytes.is_multiple_of(1 << shift))
        .map_or_else(|| format!("{bytes}B"), |(shift, unit)| format!("{}{unit}", bytes >> shift))
}

/// A size for people, who need no more than its first digits.
pub fn people(bytes: u64) -> String {
    let unit =
        [(40, "TB"), (30, "GB"), (20, "MB"), (10, "KB")].into_iter().find(|(shift, _)| bytes >> shift > 0);
    match unit {
        Some((shift, unit)) => format!("{:.1} {unit}", bytes as f64 / (1u64 << shift) as f64),
        None => format!("{bytes} bytes"),
    }
}

/// Reads a time: `15`, `15s`, `250ms`, `2min`, `1h`. A bare number counts seconds.
pub fn time(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text)?;
    let milliseconds: u64 = match unit.to_ascii_lowercase().as_str() {
        "ms" => 1,
        "" | "s" | "sec" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(format!("{unit:?} is no unit of time (ms, s, min, h, d)")),
    };
    scaled(number, milliseconds).map(Duration::from_millis).ok_or_else(|| format!("{text:?} is too long"))
}

/// Writes a time so that [`time`] reads it again.
pub fn time_text(time: Duration) -> String {
    match time.subsec_millis() {
        0 => time.as_secs().to_string(),
        _ => format!("{}ms", time.as_millis()),
    }
}

fn split(text: &str) -> Result<(f64, &str), String> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number = text[..end].parse::<f64>().map_err(|_| format!("{text:?} is not a number"))?;
    Ok((number, text[end..].trim()))
}

fn scaled(number: f64, factor: u64) -> Option<u64> {
    let product = number * factor as f64;
    // Above 2^53 a float no longer counts bytes one by one.
    (product <= (1u64 << 53) as f64).then_some(product.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_and_a_bare_number_counts_kilobytes() {
        for (text, bytes) in [
            ("100", 100 << 10),
            ("100KB", 100 << 10),
            ("64m", 64 << 20),
            ("1.5G", 3 << 29),
            ("2 TiB", 2 << 40),
            ("4096B", 4096),
            ("0", 0),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "MB", "ten", "-1", "10 parsec", "1e9", "99999999TB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_have_units_and_a_bare_number_counts_seconds() {
        for (text, ms) in
            [("15", 15_000), ("250ms", 250), ("2min", 120_000), ("0.5s", 500), ("1h", 3_600_000)]
        {
            assert_eq!(time(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        assert!(time("soon").is_err());
        assert!(time("5 apples").is_err());
    }

    #[test]
    fn what_is_written_is_read_again() {
        for bytes in [0, 1, 1024, 1500, 3 << 20, 5 << 30, (1 << 40) + 1] {
            assert_eq!(size(&size_text(bytes)), Ok(bytes));
        }
        for ms in [0, 1, 999, 1000, 1500, 150_000] {
            let period = Duration::from_millis(ms);
            assert_eq!(time(&time_text(period)), Ok(period));
        }
    }
}
