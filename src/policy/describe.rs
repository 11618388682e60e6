//! Clients by description: to ask what a policy says to somebody whose certificate isn't at hand.

use crate::config::Fault;
use crate::config::policy::cases::{ClientFile, Texts};
use crate::identity::{Attribute, Description, PeerIdentity, SpiffeId};

use super::selector::{ATTRIBUTES, parse_sha256};
use super::suggest::did_you_mean;
use super::times;

/// The identity that a description stands for, or what is wrong with it in `faults`, each with its key below `path`.
///
/// `read_certificate` makes an identity of a certificate file's name.
pub fn describe(
    file: &ClientFile,
    path: &str,
    read_certificate: &dyn Fn(&str) -> Result<PeerIdentity, String>,
    faults: &mut Vec<Fault>,
) -> Option<PeerIdentity> {
    let key = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    let before = faults.len();
    if let Some(certificate) = &file.certificate {
        if *file != (ClientFile { certificate: Some(certificate.clone()), ..ClientFile::default() }) {
            faults.push(Fault::new(key("certificate"), "says all there is to say: remove the other properties"));
        }
        let read =
            read_certificate(certificate).map_err(|message| faults.push(Fault::new(key("certificate"), message)));
        return read.ok().filter(|_| faults.len() == before);
    }
    let mut description = Description {
        subject: each(&file.subject, &key("subject"), faults, attribute),
        issuer: each(&file.issuer, &key("issuer"), faults, attribute),
        dns: each(&file.dns, &key("dns"), faults, |name| Ok(name.to_ascii_lowercase())),
        uris: each(&file.uri, &key("uri"), faults, uri),
        emails: each(&file.email, &key("email"), faults, email),
        ips: each(&file.ip, &key("ip"), faults, |ip| ip.parse().map_err(|_| format!("\"{ip}\" is no IP address"))),
        ..Description::default()
    };
    for (name, text, hash) in
        [("fingerprint", &file.fingerprint, &mut description.fingerprint), ("spki", &file.spki, &mut description.spki)]
    {
        match text.as_deref().map(parse_sha256) {
            Some(Ok(value)) => *hash = value,
            Some(Err(message)) => faults.push(Fault::new(key(name), message)),
            None => {}
        }
    }
    if let Some(text) = &file.not_after {
        match times::instant(text) {
            Ok(end) => description.not_after = i64::try_from(end).ok(),
            Err(message) => faults.push(Fault::new(key("not_after"), message)),
        }
    }
    if is_nameless(&description) && faults.len() == before {
        let message = "a client needs a name, as a certificate does: certificate, subject, dns, uri, email or ip";
        faults.push(Fault::new(path, message));
    }
    (faults.len() == before).then(|| PeerIdentity::described(description))
}

fn is_nameless(description: &Description) -> bool {
    let Description { subject, dns, uris, emails, ips, .. } = description;
    subject.is_empty() && dns.is_empty() && uris.is_empty() && emails.is_empty() && ips.is_empty()
}

/// Reads each of several texts.
fn each<T>(texts: &Texts, path: &str, faults: &mut Vec<Fault>, read: fn(&str) -> Result<T, String>) -> Vec<T> {
    let mut values = Vec::with_capacity(texts.len());
    for (at, text) in texts.with_paths(path) {
        let printable = !text.is_empty() && !text.contains(char::is_control);
        match if printable { read(text) } else { Err("must be printable text".to_owned()) } {
            Ok(value) => values.push(value),
            Err(message) => faults.push(Fault::new(at, message)),
        }
    }
    values
}

fn attribute(text: &str) -> Result<Attribute, String> {
    let (short, value) = text
        .split_once('=')
        .filter(|(_, value)| !value.is_empty())
        .ok_or_else(|| format!("\"{text}\" must be an attribute and its value, such as CN=ci-7"))?;
    let known = ATTRIBUTES.into_iter().find(|attribute| *attribute == short).ok_or_else(|| {
        let hint = did_you_mean(short, ATTRIBUTES);
        format!("unknown attribute \"{short}\"{hint}; known are {}", ATTRIBUTES.join(", "))
    })?;
    Ok(Attribute { name: known.into(), value: value.to_owned() })
}

fn uri(text: &str) -> Result<String, String> {
    if !text.contains(':') || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("\"{text}\" is no URI: it needs a scheme, such as spiffe://"));
    }
    if text.starts_with("spiffe:") && SpiffeId::parse(text).is_none() {
        return Err(format!("\"{text}\" is no SPIFFE ID, so no certificate with it is let in"));
    }
    Ok(text.to_owned())
}

fn email(text: &str) -> Result<String, String> {
    let (local, domain) = text.rsplit_once('@').ok_or_else(|| format!("\"{text}\" is no email address"))?;
    Ok(format!("{local}@{}", domain.to_ascii_lowercase()))
}
