//! Uploads that are under way.

use data_encoding::{BASE64_NOPAD, HEXLOWER_PERMISSIVE};

use super::Resolver;
use crate::config::model;
use crate::config::secret::Secret;
use crate::config::settings::UploadBinding;

/// Shortest key, in bytes: the strength of the hash it is used with.
const MIN_KEY: usize = 32;

impl Resolver<'_> {
    pub(super) fn uploads(&mut self, model: &model::Uploads) -> UploadBinding {
        const AT: &str = "uploads.key_file";
        let Some(file) = &model.key_file else {
            return if model.bind { UploadBinding::OwnKey } else { UploadBinding::Off };
        };
        if !model.bind {
            self.error(AT, "this is not used; set bind: true, or remove it");
            return UploadBinding::Off;
        }
        let file = self.path(AT, file);
        let key = (self.secrets)(&file).and_then(|read| {
            let key = decode(read.secret.expose())?;
            Ok((Secret::new(key), read.exposed))
        });
        match key {
            Ok((key, exposed)) => {
                if exposed {
                    self.warning(AT, "every user of this machine can read the key; make the file's mode 0600");
                }
                UploadBinding::SharedKey { key, file }
            }
            Err(message) => {
                self.error(AT, format!("\"{}\": {message}", file.display()));
                UploadBinding::Off
            }
        }
    }
}

/// The bytes of a key. What can be read as hexadecimal is; as base64 it would be read differently, but is as secret.
fn decode(text: &str) -> Result<Vec<u8>, String> {
    let text = text.trim();
    let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).or_else(|_| {
        let standard = text.trim_end_matches('=').replace('-', "+").replace('_', "/");
        BASE64_NOPAD.decode(standard.as_bytes())
    });
    match bytes {
        Ok(bytes) if bytes.len() >= MIN_KEY => Ok(bytes),
        Ok(bytes) => Err(format!(
            "the key has {} bytes, and at least {MIN_KEY} are needed; make one with \"openssl rand -base64 {MIN_KEY}\"",
            bytes.len()
        )),
        Err(_) => Err("this is neither base64 nor hexadecimal; make a key with \"openssl rand -base64 32\"".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_in_base64_and_hexadecimal() {
        let bytes: Vec<u8> = (200..232).collect();
        let hex = data_encoding::HEXUPPER.encode(&bytes);
        let texts = [
            data_encoding::BASE64.encode(&bytes),
            data_encoding::BASE64URL_NOPAD.encode(&bytes),
            hex.to_lowercase(),
            format!(" {hex}"),
        ];
        for text in texts {
            assert_eq!(decode(&text), Ok(bytes.clone()), "{text}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_repeated() {
        let short = data_encoding::BASE64.encode(&[1; 31]);
        assert!(decode(&short).is_err_and(|message| message.contains("31 bytes") && !message.contains(&short)));
        for text in ["correct horse battery staple", "", "é", "!"] {
            let Err(message) = decode(text) else { panic!("{text}") };
            assert!(text.is_empty() || !message.contains(text), "{message}");
        }
    }
}
