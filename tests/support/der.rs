//! A certificate that no tool makes, and as much DER as it takes to make it.

use super::pki::{Ca, Identity, Profile, openssl, text};
use std::fs;

impl Ca {
    /// A certificate that holds one extension twice, which no tool makes: two private ones are made equal in the DER,
    /// and the result is signed again.
    pub fn with_repeated_extension(&self, profile: &Profile) -> Identity {
        let profile =
            profile.clone().extension("1.3.6.1.4.1.55555.1=DER:0500").extension("1.3.6.1.4.1.55555.2=DER:0500");
        let identity = self.issue(&profile);
        let der = identity.certificate.with_extension("der");
        openssl(&["x509", "-in", &text(&identity.certificate), "-outform", "DER", "-out", &text(&der)]);
        let mut certificate = fs::read(&der).expect("openssl wrote the certificate");
        // 55555 in base 128, then the arc that differs.
        let wanted = [0x83, 0xb2, 0x03, 2];
        let at = certificate.windows(4).position(|w| w == wanted).expect("the extension is there");
        certificate[at + 3] = 1;
        let signed = split(content(&certificate)).0;
        let (tbs, signature) = (der.with_extension("tbs"), der.with_extension("sig"));
        fs::write(&tbs, signed).expect("the test directory is writable");
        openssl(&["dgst", "-sha256", "-sign", &text(&self.key), "-out", &text(&signature), &text(&tbs)]);
        let algorithm = split(&content(&certificate)[signed.len()..]).0;
        let mut bits = vec![0];
        bits.extend(fs::read(&signature).expect("openssl wrote the signature"));
        let all = [signed, algorithm, &element(3, &bits)].concat();
        fs::write(&der, element(0x30, &all)).expect("the test directory is writable");
        openssl(&["x509", "-in", &text(&der), "-inform", "DER", "-out", &text(&identity.certificate)]);
        fs::copy(&identity.certificate, &identity.chain).expect("the test directory is writable");
        identity
    }
}

/// The content of the first element.
fn content(bytes: &[u8]) -> &[u8] {
    let (header, length) = header(bytes);
    &bytes[header..header + length]
}

/// The first element, with its header, and the rest.
fn split(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (header, length) = header(bytes);
    bytes.split_at(header + length)
}

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("test certificates are small").to_be_bytes();
    let header: &[u8] = match length {
        [0, short @ 0..=0x7f] => &[tag, short],
        [0, long] => &[tag, 0x81, long],
        [high, low] => &[tag, 0x82, high, low],
    };
    [header, content].concat()
}

fn header(bytes: &[u8]) -> (usize, usize) {
    match bytes[1] {
        short @ 0..=0x7f => (2, usize::from(short)),
        0x81 => (3, usize::from(bytes[2])),
        _ => (4, usize::from(u16::from_be_bytes([bytes[2], bytes[3]]))),
    }
}
