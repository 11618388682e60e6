//! Times as policies write them: RFC 3339, times of the day, zones.

use std::time::UNIX_EPOCH;

/// Unix seconds of a time with its zone (RFC 3339 §5.6). Fractions are cut off.
///
/// # Errors
/// What is wrong, as a fragment of a sentence.
pub fn instant(text: &str) -> Result<u64, String> {
    let wrong = || format!("\"{text}\" is no time: date, time of the day and zone, such as 2026-01-31T08:00:00Z");
    let split = text.char_indices().skip("2026-01-31T".len()).find(|(_, c)| matches!(c, 'Z' | 'z' | '+' | '-'));
    let (at, _) = split.filter(|_| text.is_ascii()).ok_or_else(wrong)?;
    let (local, zone) = text.split_at(at);
    let has_both = local.as_bytes().get(10).is_some_and(|byte| matches!(byte, b'T' | b't'));
    let ahead = match zone {
        "Z" | "z" => 0,
        zone => offset(zone).ok_or_else(wrong)?,
    };
    let local = format!("{}Z", local.to_ascii_uppercase());
    let local = humantime::parse_rfc3339(&local).ok().filter(|_| has_both).ok_or_else(wrong)?;
    let local = local.duration_since(UNIX_EPOCH).map_err(|_| wrong())?.as_secs();
    local.checked_add_signed(-ahead).ok_or_else(wrong)
}

/// Seconds of the day of `08:30`; `24:00` is the end of it.
pub(super) fn of_day(text: &str) -> Result<i64, String> {
    let parsed = hours_and_minutes(text).filter(|(hours, minutes)| *hours < 24 || (*hours == 24 && *minutes == 0));
    let (hours, minutes) =
        parsed.ok_or_else(|| format!("\"{text}\" is no time of the day: hours and minutes, such as 08:30"))?;
    Ok((hours * 60 + minutes) * 60)
}

/// By how many seconds the clocks of a zone are ahead of UTC.
pub(super) fn zone(text: &str) -> Result<i64, String> {
    if text.eq_ignore_ascii_case("UTC") {
        return Ok(0);
    }
    offset(text).ok_or_else(|| {
        format!("\"{text}\" is no zone: UTC, or a fixed distance from it such as +01:00 (names of places aren't known)")
    })
}

fn offset(text: &str) -> Option<i64> {
    let (sign, time) = match text.split_at_checked(1)? {
        ("+", time) => (1, time),
        ("-", time) => (-1, time),
        _ => return None,
    };
    let (hours, minutes) = hours_and_minutes(time).filter(|(hours, _)| *hours < 24)?;
    Some(sign * (hours * 60 + minutes) * 60)
}

fn hours_and_minutes(text: &str) -> Option<(i64, i64)> {
    let two = |digits: &str| {
        let plain = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse::<i64>().ok().filter(|_| plain)
    };
    let (hours, minutes) = text.split_once(':')?;
    Some((two(hours)?, two(minutes).filter(|minutes| *minutes < 60)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_have_a_zone() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2026-01-31T08:00:00Z", 1_769_846_400),
            ("2026-01-31t08:00:00.999z", 1_769_846_400),
            ("2026-01-31T10:00:00+02:00", 1_769_846_400),
            ("2026-01-31T02:30:00-05:30", 1_769_846_400),
            ("2024-02-29T23:59:59Z", 1_709_251_199),
        ] {
            assert_eq!(instant(text), Ok(expected), "{text}");
        }
        for text in [
            "",
            "2026-01-31",
            "2026-01-31T08:00:00",
            "2026-01-31 08:00:00Z",
            "2026-02-30T08:00:00Z",
            "2026-01-31T25:00:00Z",
            "2026-01-31T08:00:00+2:00",
            "2026-01-31T08:00:00+24:00",
            "2026-01-31T08:00:00 Europe/Berlin",
            "1960-01-01T00:00:00Z",
            "1970-01-01T00:00:00+01:00",
            "2026-01-31T08:00:00é",
            "tomorrow",
        ] {
            assert!(instant(text).is_err_and(|message| message.contains("is no time")), "{text}");
        }
    }

    #[test]
    fn times_of_the_day_and_zones() {
        assert_eq!((of_day("00:00"), of_day("08:30"), of_day("24:00")), (Ok(0), Ok(30_600), Ok(86_400)));
        for text in ["8:30", "08:60", "24:01", "25:00", "08:30:00", "-1:00", "+8:30", "noon", ""] {
            assert!(of_day(text).is_err(), "{text}");
        }
        assert_eq!((zone("UTC"), zone("utc"), zone("+01:00"), zone("-05:30")), (Ok(0), Ok(0), Ok(3600), Ok(-19_800)));
        for text in ["CET", "Europe/Berlin", "1", "+1", "+24:00", "+01:60", ""] {
            assert!(zone(text).is_err(), "{text}");
        }
    }
}
