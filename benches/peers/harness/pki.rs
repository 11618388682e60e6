//! A certificate authority for one run, and its revocation lists, made by the `openssl` command.

use super::Outcome;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Keys are ECDSA P-256 everywhere: what private authorities issue today, and the cheapest for all contestants.
const PROFILES: &str = "\
[req]
prompt=no
distinguished_name=dn
[dn]
[authority]
basicConstraints=critical,CA:TRUE
keyUsage=critical,keyCertSign,cRLSign
subjectKeyIdentifier=hash
[server]
basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=serverAuth
subjectAltName=DNS:registry.test,DNS:localhost,IP:127.0.0.1
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
[client]
basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=clientAuth
subjectAltName=URI:spiffe://bench/client
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
[ca]
default_ca=lists
[lists]
database=revoked
crlnumber=number
default_md=sha256
unique_subject=no
crl_extensions=list
[list]
authorityKeyIdentifier=keyid:always
";

/// The files of the authority, its server and its client.
#[derive(Debug)]
pub struct Pki {
    directory: PathBuf,
}

impl Pki {
    /// # Errors
    /// When the directory can't be written, or `openssl` fails.
    pub fn create(directory: &Path) -> Outcome<Self> {
        fs::create_dir_all(directory)?;
        fs::write(directory.join("profiles"), PROFILES)?;
        let pki = Self { directory: directory.to_owned() };
        pki.issue("authority", "/O=bench/CN=bench CA", &[])?;
        let signed = ["-CA", "authority.pem", "-CAkey", "authority.key"];
        pki.issue("server", "/O=bench/CN=registry.test", &signed)?;
        pki.issue("client", "/O=bench/CN=client", &signed)?;
        Ok(pki)
    }

    /// Where `authority.pem`, `server.key` and the like are.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// A list with this many entries, serial numbers of 16 bytes, in PEM.
    ///
    /// # Errors
    /// As [`Pki::create`].
    pub fn list(&self, entries: u32) -> Outcome<PathBuf> {
        let name = format!("list-{entries}.pem");
        if self.file(&name).try_exists()? {
            return Ok(self.file(&name));
        }
        let mut database = String::new();
        let mut random = fastrand::Rng::with_seed(u64::from(entries));
        for _ in 0..entries {
            let serial = random.u128(1 << 120..1 << 126);
            writeln!(database, "R\t491231000000Z\t260101000000Z\t{serial:032X}\tunknown\t/CN=revoked")?;
        }
        fs::write(self.file("revoked"), database)?;
        fs::write(self.file("number"), "01")?;
        let authority = ["-cert", "authority.pem", "-keyfile", "authority.key", "-crldays", "10"];
        self.openssl(&[&["ca", "-gencrl", "-config", "profiles"], &authority[..], &["-out", &name]].concat())?;
        Ok(self.file(&name))
    }

    fn issue(&self, name: &str, subject: &str, more: &[&str]) -> Outcome<()> {
        let (key, out) = (format!("{name}.key"), format!("{name}.pem"));
        let request = ["req", "-x509", "-config", "profiles", "-extensions", name, "-subj", subject, "-days", "30"];
        let fresh = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", &key, "-out", &out];
        self.openssl(&[&request[..], &fresh[..], more].concat())
    }

    fn openssl(&self, arguments: &[&str]) -> Outcome<()> {
        let output = Command::new("openssl").args(arguments).current_dir(&self.directory).output();
        let output = output.map_err(|e| format!("cannot run openssl: {e}"))?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr)).into())
    }
}
