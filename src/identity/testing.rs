//! Certificates for tests, written octet by octet: what is wrong with them is often more than a tool would write.

use super::der;

/// Validity of test certificates: 2024-01-01 to 2034-01-01.
pub(crate) const NOT_BEFORE: i64 = 1_704_067_200;
pub(crate) const NOT_AFTER: i64 = 2_019_686_400;

pub(crate) const CN: &[u8] = &[0x55, 0x04, 0x03];
pub(crate) const O: &[u8] = &[0x55, 0x04, 0x0a];
pub(crate) const OU: &[u8] = &[0x55, 0x04, 0x0b];

pub(crate) const SHA256_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b];
pub(crate) const SHA1_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x05];

/// Tags of `GeneralName`.
pub(crate) const SAN_EMAIL: u8 = 0x81;
pub(crate) const SAN_DNS: u8 = 0x82;
pub(crate) const SAN_URI: u8 = 0x86;
pub(crate) const SAN_IP: u8 = 0x87;

/// One DER value.
pub(crate) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    match u32::try_from(content.len()).unwrap() {
        short @ 0..0x80 => bytes.push(u8::try_from(short).unwrap()),
        length => {
            let octets: Vec<_> = length.to_be_bytes().into_iter().skip_while(|octet| *octet == 0).collect();
            bytes.push(0x80 | u8::try_from(octets.len()).unwrap());
            bytes.extend(octets);
        }
    }
    bytes.extend(content);
    bytes
}

/// A SEQUENCE of these values.
pub(crate) fn sequence<V: AsRef<[u8]>>(values: &[V]) -> Vec<u8> {
    tlv(der::SEQUENCE, &values.iter().flat_map(|value| value.as_ref().to_vec()).collect::<Vec<_>>())
}

/// An `AlgorithmIdentifier` with parameters NULL.
pub(crate) fn algorithm(oid: &[u8]) -> Vec<u8> {
    sequence(&[tlv(der::OID, oid), vec![0x05, 0x00]])
}

/// A name of one attribute per set; tag 0x0c is `UTF8String`.
pub(crate) fn name(attributes: &[(&[u8], u8, &[u8])]) -> Vec<u8> {
    let sets =
        attributes.iter().map(|(oid, tag, value)| tlv(der::SET, &sequence(&[tlv(der::OID, oid), tlv(*tag, value)])));
    sequence(&sets.collect::<Vec<_>>())
}

/// A name with this common name.
pub(crate) fn common_name(value: &str) -> Vec<u8> {
    name(&[(CN, 0x0c, value.as_bytes())])
}

/// An RSA `SubjectPublicKeyInfo` of that many bits, told from others by `tell`. Nobody knows the private key.
pub(crate) fn rsa_spki(bits: usize, tell: u8) -> Vec<u8> {
    let mut modulus = vec![tell; bits / 8];
    modulus[0] = 0x80;
    modulus.insert(0, 0);
    let key = sequence(&[tlv(der::INTEGER, &modulus), tlv(der::INTEGER, &[1, 0, 1])]);
    spki(&algorithm(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01]), &key)
}

/// An elliptic curve's `SubjectPublicKeyInfo`.
pub(crate) fn ec_spki(curve: &[u8]) -> Vec<u8> {
    let id = sequence(&[tlv(der::OID, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01]), tlv(der::OID, curve)]);
    spki(&id, &[4; 65])
}

fn spki(algorithm: &[u8], key: &[u8]) -> Vec<u8> {
    sequence(&[algorithm.to_vec(), bit_string(key)])
}

/// A BIT STRING of whole octets.
pub(crate) fn bit_string(octets: &[u8]) -> Vec<u8> {
    tlv(der::BIT_STRING, &[&[0], octets].concat())
}

/// An Extension around the DER of its value.
pub(crate) fn extension(oid: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if critical { &[0x01, 0x01, 0xff] } else { &[] };
    sequence(&[&tlv(der::OID, oid), critical, &tlv(der::OCTET_STRING, value)])
}

/// Subject alternative names, each a tag and its content.
pub(crate) fn alternative_names(names: &[(u8, &[u8])]) -> Vec<u8> {
    let names: Vec<_> = names.iter().map(|(tag, value)| tlv(*tag, value)).collect();
    extension(&[0x55, 0x1d, 0x11], false, &sequence(&names))
}

pub(crate) fn basic_constraints_ca() -> Vec<u8> {
    extension(&[0x55, 0x1d, 0x13], true, &sequence(&[[0x01, 0x01, 0xff]]))
}

/// Key usage from the first two octets of its bits: 0x80 digitalSignature, 0x08 keyAgreement, 0x04 keyCertSign,
/// 0x02 cRLSign.
pub(crate) fn key_usage(bits: u8) -> Vec<u8> {
    let unused = u8::try_from(bits.trailing_zeros()).unwrap();
    extension(&[0x55, 0x1d, 0x0f], true, &tlv(der::BIT_STRING, &[unused, bits]))
}

/// Extended key usage of these key purposes: 1 serverAuth, 2 clientAuth, 0 anyExtendedKeyUsage.
pub(crate) fn extended_key_usage(purposes: &[u8]) -> Vec<u8> {
    let purposes = purposes.iter().map(|purpose| match purpose {
        0 => tlv(der::OID, &[0x55, 0x1d, 0x25, 0x00]),
        number => tlv(der::OID, &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, *number]),
    });
    extension(&[0x55, 0x1d, 0x25], false, &sequence(&purposes.collect::<Vec<_>>()))
}

/// What a test certificate holds. The signature is nonsense: verifying it is the TLS library's part.
pub(crate) struct TestCertificate {
    pub(crate) version: u8,
    pub(crate) serial: Vec<u8>,
    pub(crate) algorithm: Vec<u8>,
    pub(crate) issuer: Vec<u8>,
    pub(crate) subject: Vec<u8>,
    pub(crate) not_after: &'static str,
    pub(crate) spki: Vec<u8>,
    pub(crate) extensions: Vec<Vec<u8>>,
}

impl TestCertificate {
    /// A client `CN=ci-7` of the authority `CN=Test CA`.
    pub(crate) fn client() -> Self {
        Self {
            version: 3,
            serial: vec![0x07],
            algorithm: algorithm(SHA256_RSA),
            issuer: common_name("Test CA"),
            subject: common_name("ci-7"),
            not_after: "340101000000Z",
            spki: rsa_spki(2048, 7),
            extensions: vec![key_usage(0x80), extended_key_usage(&[2])],
        }
    }

    /// The authority `CN=Test CA`.
    pub(crate) fn authority() -> Self {
        Self {
            serial: vec![0x01],
            subject: common_name("Test CA"),
            spki: rsa_spki(2048, 1),
            extensions: vec![basic_constraints_ca(), key_usage(0x06)],
            ..Self::client()
        }
    }

    pub(crate) fn der(&self) -> Vec<u8> {
        let mut tbs = Vec::new();
        if self.version > 1 {
            tbs.push(tlv(0xa0, &tlv(der::INTEGER, &[self.version - 1])));
        }
        tbs.push(tlv(der::INTEGER, &self.serial));
        tbs.push(self.algorithm.clone());
        tbs.push(self.issuer.clone());
        tbs.push(sequence(&[tlv(der::UTC_TIME, b"240101000000Z"), tlv(der::UTC_TIME, self.not_after.as_bytes())]));
        tbs.push(self.subject.clone());
        tbs.push(self.spki.clone());
        if !self.extensions.is_empty() {
            tbs.push(tlv(0xa3, &sequence(&self.extensions)));
        }
        sequence(&[sequence(&tbs), self.algorithm.clone(), bit_string(&[0; 64])])
    }
}
