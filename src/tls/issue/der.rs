//! Writing DER (X.690), for what the libraries' bindings can't make: CRLs and well-protected keys.

use super::IssueError;

pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const ENUMERATED: u8 = 0x0a;
pub(super) const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// An INTEGER that isn't negative: no leading zeros but the one that keeps the sign bit clear (X.690 §8.3.2).
pub(super) fn unsigned(big_endian: &[u8]) -> Vec<u8> {
    let start = big_endian.iter().position(|byte| *byte != 0).unwrap_or(big_endian.len());
    let digits = big_endian.get(start..).unwrap_or_default();
    let padding: &[u8] = if digits.first().is_none_or(|byte| byte & 0x80 != 0) { &[0] } else { &[] };
    element(INTEGER, &[padding, digits].concat())
}

/// RFC 5280 §5.1.2.4: `UTCTime` up to the year 2049, `GeneralizedTime` from then on.
pub(super) fn time(unix: i64) -> Result<Vec<u8>, IssueError> {
    let (days, second) = (unix.div_euclid(86_400), unix.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    if !(1970..=9999).contains(&year) {
        return Err(IssueError::new("write a date", format!("the year {year} is out of range")));
    }
    let rest = format!("{month:02}{day:02}{:02}{:02}{:02}Z", second / 3600, second / 60 % 60, second % 60);
    Ok(if year < 2050 {
        element(UTC_TIME, format!("{:02}{rest}", year % 100).as_bytes())
    } else {
        element(GENERALIZED_TIME, format!("{year}{rest}").as_bytes())
    })
}

/// Year, month and day of a day counted from 1970-01-01, in the proleptic Gregorian calendar.
///
/// Years are counted from March, so that the leap day is the last of its year.
fn civil(days: i64) -> (i64, i64, i64) {
    const DAYS_OF_400_YEARS: i64 = 146_097;
    // 1970-01-01 is day 719,468 after 0000-03-01.
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(DAYS_OF_400_YEARS), days.rem_euclid(DAYS_OF_400_YEARS));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let year = year + era * 400;
    if month < 10 { (year, month + 3, day) } else { (year + 1, month - 9, day) }
}

pub(super) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    element(SEQUENCE, &parts.concat())
}

/// One DER element: tag, length in as few octets as possible (X.690 §10.1), content.
pub(super) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    if let Ok(short @ 0..=127) = u8::try_from(content.len()) {
        out.push(short);
    } else {
        let length = content.len().to_be_bytes();
        let octets: Vec<u8> = length.into_iter().skip_while(|byte| *byte == 0).collect();
        // A usize has at most eight octets, so the count fits beside the flag.
        out.push(0x80 | octets.len().to_le_bytes()[0]);
        out.extend(octets);
    }
    out.extend_from_slice(content);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_rfc_5280_wants_them() {
        let text = |unix| {
            let der = time(unix).unwrap();
            (der[0], String::from_utf8(der[2..].to_vec()).unwrap())
        };
        assert_eq!(text(0), (UTC_TIME, "700101000000Z".to_owned()));
        assert_eq!(text(951_782_399), (UTC_TIME, "000228235959Z".to_owned()));
        assert_eq!(text(951_782_400), (UTC_TIME, "000229000000Z".to_owned()));
        assert_eq!(text(951_868_800), (UTC_TIME, "000301000000Z".to_owned()));
        assert_eq!(text(2_524_607_999), (UTC_TIME, "491231235959Z".to_owned()));
        assert_eq!(text(2_524_608_000), (GENERALIZED_TIME, "20500101000000Z".to_owned()));
        assert!(time(-1).is_err());
        assert!(time(i64::MAX / 100).is_err());
    }

    #[test]
    fn integers_are_minimal_and_never_negative() {
        assert_eq!(unsigned(&[]), [INTEGER, 1, 0]);
        assert_eq!(unsigned(&[0, 0]), [INTEGER, 1, 0]);
        assert_eq!(unsigned(&[0, 0x7f]), [INTEGER, 1, 0x7f]);
        assert_eq!(unsigned(&[0x80]), [INTEGER, 2, 0, 0x80]);
    }

    #[test]
    fn lengths_take_as_few_octets_as_possible() {
        assert_eq!(element(4, &[0; 127])[..2], [4, 127]);
        assert_eq!(element(4, &[0; 128])[..3], [4, 0x81, 128]);
        assert_eq!(element(4, &[0; 256])[..4], [4, 0x82, 1, 0]);
    }
}
