//! PEM blocks of revocation lists, decoded in place: a list of a million entries shall not need a second copy.

use super::CrlFault;

const BEGIN: &[u8] = b"-----BEGIN X509 CRL-----";
const END: &[u8] = b"-----END X509 CRL-----";
const ANY_BEGIN: &[u8] = b"-----BEGIN ";

/// Most blocks of one source.
const MAX_BLOCKS: usize = 256;

/// Gives every list of a source to `each`: DER is one list, PEM one for each block (overwritten by its own DER).
///
/// Text before, between and after blocks is passed over, for openssl writes some. A broken block ends the reading with
/// a fault, since what follows can't be told apart from it any more; the blocks before it count.
pub(super) fn for_each_list(bytes: &mut [u8], mut each: impl FnMut(Result<&[u8], CrlFault>)) {
    if bytes.is_empty() {
        return each(Err(CrlFault::Empty));
    }
    if bytes.first() == Some(&0x30) {
        return each(Ok(bytes));
    }
    let mut rest = bytes;
    for block in 0.. {
        match next_block(rest) {
            Ok(Some(Block { body, after })) if block < MAX_BLOCKS => {
                each(decode(body).map_err(CrlFault::NotPem));
                rest = after;
            }
            Ok(Some(_)) => return each(Err(CrlFault::NotPem("more than 256 blocks"))),
            Ok(None) if block == 0 => return each(Err(CrlFault::NotPem("no X509 CRL block"))),
            Ok(None) => return,
            Err(what) => return each(Err(CrlFault::NotPem(what))),
        }
    }
}

/// The base64 of a block, and what follows the block.
struct Block<'t> {
    body: &'t mut [u8],
    after: &'t mut [u8],
}

/// The first block, if there is one.
fn next_block(text: &mut [u8]) -> Result<Option<Block<'_>>, &'static str> {
    let Some(begin) = find(text, ANY_BEGIN) else { return Ok(None) };
    let (_, block) = text.split_at_mut(begin);
    if !block.starts_with(BEGIN) {
        return Err("it holds a block that is no X509 CRL");
    }
    let (_, body) = block.split_at_mut(BEGIN.len());
    let end = body.iter().position(|byte| *byte == b'-').ok_or("it ends in the middle of a block")?;
    let (body, tail) = body.split_at_mut(end);
    if !tail.starts_with(END) {
        return Err("a block has no proper end");
    }
    let (_, after) = tail.split_at_mut(END.len());
    Ok(Some(Block { body, after }))
}

fn find(text: &[u8], marker: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + text.get(from..)?.iter().position(|byte| *byte == b'-')?;
        if text.get(at..)?.starts_with(marker) {
            return Some(at);
        }
        from = at + 1;
    }
}

/// Decodes base64 (RFC 4648 §4, with line ends) over itself: three octets never need more room than their four digits.
fn decode(body: &mut [u8]) -> Result<&[u8], &'static str> {
    let mut written = 0;
    let mut group = 0_u32;
    let mut digits = 0_u32;
    let mut padding = 0_u32;
    for read in 0..body.len() {
        let value = match body.get(read).copied() {
            Some(b' ' | b'\t' | b'\r' | b'\n') => continue,
            Some(b'=') if digits >= 2 => {
                padding += 1;
                0
            }
            Some(digit) if padding == 0 => value_of(digit).ok_or("a character that is not base64")?,
            _ => return Err("misplaced base64 padding"),
        };
        group = group << 6 | u32::from(value);
        digits += 1;
        if digits == 4 {
            let [_, octets @ ..] = group.to_be_bytes();
            // `written + 3` stays at or behind `read`, for four digits were read for each three octets.
            body.get_mut(written..written + 3).ok_or("base64 out of step")?.copy_from_slice(&octets);
            written += 3;
            (group, digits) = (0, if padding > 0 { FINISHED } else { 0 });
        } else if digits > 4 {
            return Err("text after base64 padding");
        }
    }
    if digits != 0 && digits != FINISHED {
        return Err("a base64 group is cut off");
    }
    let length = written.saturating_sub(usize::try_from(padding).unwrap_or(0));
    body.get(..length).ok_or("base64 out of step")
}

/// Stands for the number of digits once padding has ended the text.
const FINISHED: u32 = 4;

fn value_of(digit: u8) -> Option<u8> {
    match digit {
        b'A'..=b'Z' => Some(digit - b'A'),
        b'a'..=b'z' => Some(digit - b'a' + 26),
        b'0'..=b'9' => Some(digit - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<Result<Vec<u8>, CrlFault>> {
        let mut lists = Vec::new();
        for_each_list(&mut text.as_bytes().to_vec(), |list| lists.push(list.map(<[u8]>::to_vec)));
        lists
    }

    fn block(body: &str) -> String {
        format!("-----BEGIN X509 CRL-----\n{body}\n-----END X509 CRL-----\n")
    }

    #[test]
    fn der_is_one_list() {
        assert_eq!(read("0rest"), [Ok(b"0rest".to_vec())]);
    }

    #[test]
    fn blocks_are_decoded_in_order_and_text_around_them_is_ignored() {
        let text = format!("Certificate Revocation List - v2\n{}between\r\n{}", block("Zm9v\r\nYmE="), block("Zg=="));
        assert_eq!(read(&text), [Ok(b"fooba".to_vec()), Ok(b"f".to_vec())]);
    }

    #[test]
    fn broken_blocks_are_faults() {
        for (text, faults) in [
            (String::new(), 1),
            ("no block at all".to_owned(), 1),
            (block("Zm9"), 1),
            (block("Zm9v="), 1),
            (block("Zg==Zg=="), 1),
            (block("Z==="), 1),
            (block("Zg=v"), 1),
            (block("Zm9*"), 1),
            ("-----BEGIN X509 CRL-----\nZm9v".to_owned(), 1),
            ("-----BEGIN X509 CRL-----\nZm9v\n-----END CERTIFICATE-----\n".to_owned(), 1),
            (block("Zm9v").replace("X509 CRL", "CERTIFICATE"), 1),
        ] {
            let lists = read(&text);
            assert_eq!(lists.len(), faults, "{text}");
            assert!(lists.iter().all(Result::is_err), "{text}");
        }
    }

    #[test]
    fn blocks_before_a_cut_count() {
        let text = block("Zm9v") + "-----BEGIN X509 CRL-----\nZm9v\nYm";
        assert!(matches!(read(&text).as_slice(), [Ok(list), Err(CrlFault::NotPem(_))] if list == b"foo"));
    }
}
