//! Quantities of bytes, as Kubernetes writes them.

/// The factors of the suffixes.
const SUFFIXES: [(&str, u128); 12] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("Pi", 1 << 50),
    ("Ei", 1 << 60),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("P", 1_000_000_000_000_000),
    ("E", 1_000_000_000_000_000_000),
];

/// The bytes that a quantity such as `50Mi`, `1.5G`, `1e6` or `1000` stands for, rounded up; none if it
/// is no quantity of bytes. `m`, thousandths, is taken too, because the API server may write it.
pub fn bytes(text: &str) -> Option<u64> {
    if let Some(number) = text.strip_suffix('m') {
        return scaled(number, 1).map(|n| n.div_ceil(1000)).and_then(|n| u64::try_from(n).ok());
    }
    for (suffix, factor) in SUFFIXES {
        if let Some(number) = text.strip_suffix(suffix) {
            return scaled(number, factor).and_then(|n| u64::try_from(n).ok());
        }
    }
    if let Some((number, power)) = text.split_once(['e', 'E']) {
        let power: u32 = power.strip_prefix('+').unwrap_or(power).parse().ok()?;
        return scaled(number, 10u128.checked_pow(power)?).and_then(|n| u64::try_from(n).ok());
    }
    scaled(text, 1).and_then(|n| u64::try_from(n).ok())
}

/// A decimal number times `factor`, rounded up.
fn scaled(number: &str, factor: u128) -> Option<u128> {
    let number = number.strip_prefix('+').unwrap_or(number);
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() && part.is_empty() || !digits(whole) || !digits(part) || part.len() > 18 {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let unit = 10u128.checked_pow(u32::try_from(part.len()).ok()?)?;
    let part: u128 = if part.is_empty() { 0 } else { part.parse().ok()? };
    whole.checked_mul(factor)?.checked_add(part.checked_mul(factor)?.div_ceil(unit))
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn as_kubernetes_reads_them() {
        for (text, wanted) in [
            ("0", 0),
            ("1000", 1000),
            ("50Mi", 50 << 20),
            ("1.5Gi", 3 << 29),
            (".5k", 500),
            ("2M", 2_000_000),
            ("1e3", 1000),
            ("1E6", 1_000_000),
            ("1500m", 2),
            ("15Ei", 15 << 60),
            ("+1k", 1000),
        ] {
            assert_eq!(bytes(text), Some(wanted), "{text}");
        }
        for bad in
            ["", "Mi", ".", "-1", "1.5.5", "1 M", "x", "1e-3", "16Ei", "1e99", "99999999999999999999999"]
        {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }
}
