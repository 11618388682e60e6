//! Times of revocation lists.

use super::CrlFault;
use crate::identity::der::{self, DerFault, Reader};

/// Reads a `UTCTime` or `GeneralizedTime` as RFC 5280 §5.1.2.4 restricts them: with seconds, in UTC, without fractions.
pub(super) fn read_time(reader: &mut Reader<'_>) -> Result<i64, CrlFault> {
    let (tag, content, _) = reader.any()?;
    let (century_digits, rest) = match (tag, content.len()) {
        (der::UTC_TIME, 13) => (None, content),
        (der::GENERALIZED_TIME, 15) => {
            let (century, rest) = content.split_at_checked(2).ok_or(CrlFault::MalformedTime)?;
            (Some(century), rest)
        }
        (der::UTC_TIME | der::GENERALIZED_TIME, _) => return Err(CrlFault::MalformedTime),
        (found, _) => return Err(DerFault::Tag { expected: der::UTC_TIME, found }.into()),
    };
    unix_time(century_digits, rest).ok_or(CrlFault::MalformedTime)
}

/// Unix seconds of `YYMMDDHHMMSSZ` in a century given by two digits, or in the one that `UTCTime` implies.
fn unix_time(century: Option<&[u8]>, text: &[u8]) -> Option<i64> {
    let (pairs, zone) = text.as_chunks::<2>();
    if zone != b"Z" {
        return None;
    }
    let two_digits = |pair: &[u8]| match pair {
        &[tens @ b'0'..=b'9', units @ b'0'..=b'9'] => Some(i64::from(tens - b'0') * 10 + i64::from(units - b'0')),
        _ => None,
    };
    let mut fields = [0; 6];
    for (field, pair) in fields.iter_mut().zip(pairs) {
        *field = two_digits(pair)?;
    }
    let [short_year, month, day, hour, minute, second] = fields;
    let year = match century {
        Some(century) => two_digits(century)? * 100 + short_year,
        None if short_year >= 50 => 1900 + short_year,
        None => 2000 + short_year,
    };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_in_month = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=days_in_month).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    // Days since 1970-01-01, counting years from March so that the leap day comes last.
    let (shifted_year, shifted_month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = shifted_year.div_euclid(4) - shifted_year.div_euclid(100) + shifted_year.div_euclid(400);
    let days = shifted_year * 365 + leap_days + (153 * shifted_month + 2) / 5 + day - 1 - 719_468;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(tag: u8, text: &str) -> Option<i64> {
        let mut bytes = vec![tag, u8::try_from(text.len()).unwrap()];
        bytes.extend(text.as_bytes());
        read_time(&mut Reader::new(&bytes)).ok()
    }

    #[test]
    fn both_forms_are_read() {
        for (tag, text, seconds) in [
            (der::UTC_TIME, "700101000000Z", 0),
            (der::UTC_TIME, "691231235959Z", -1),
            (der::UTC_TIME, "500101000000Z", -631_152_000),
            (der::UTC_TIME, "491231235959Z", 2_524_607_999),
            (der::UTC_TIME, "240229120000Z", 1_709_208_000),
            (der::GENERALIZED_TIME, "20500101000000Z", 2_524_608_000),
            (der::GENERALIZED_TIME, "20000229000000Z", 951_782_400),
            (der::GENERALIZED_TIME, "99991231235959Z", 253_402_300_799),
        ] {
            assert_eq!(read(tag, text), Some(seconds), "{text}");
        }
    }

    #[test]
    fn other_forms_and_impossible_dates_are_refused() {
        for text in [
            "2401010000Z",
            "240101000000+0000",
            "240101000000z",
            "24010100000aZ",
            "240230000000Z",
            "230229000000Z",
            "241301000000Z",
            "240100000000Z",
            "240101240000Z",
            "240101006000Z",
            "240101000060Z",
            "",
        ] {
            assert_eq!(read(der::UTC_TIME, text), None, "{text}");
        }
        for text in ["20240101000000.5Z", "21000229000000Z", "240101000000Z", "20240101000000"] {
            assert_eq!(read(der::GENERALIZED_TIME, text), None, "{text}");
        }
        assert_eq!(read(der::OCTET_STRING, "240101000000Z"), None);
    }
}
