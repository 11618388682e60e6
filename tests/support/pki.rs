//! A certificate authority for tests, made by the `openssl` command: an independent writer of everything we parse.
//!
//! Keys are EC unless a test asks otherwise, so that a root, a server and a client take some 40 ms together.

use super::crl::Crl;
use super::process;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

static FILES: AtomicUsize = AtomicUsize::new(0);

/// A CA with its key, able to sign certificates and CRLs.
#[derive(Clone, Debug)]
pub struct Ca {
    pub(super) directory: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// PEM of the intermediates from this CA up to, not including, the root.
    above: String,
}

/// A leaf with its key; `chain` holds the leaf and its intermediates, `intermediates` only these, if there are any.
#[derive(Clone, Debug)]
pub struct Identity {
    pub certificate: PathBuf,
    pub chain: PathBuf,
    pub intermediates: Option<PathBuf>,
    pub key: PathBuf,
}

/// What a certificate shall look like. Every fault is a deviation from [`client`] or [`server`].
#[derive(Clone, Debug)]
pub struct Profile {
    subject: Vec<(String, String)>,
    extensions: Vec<String>,
    san: Vec<String>,
    key: Key,
    digest: &'static str,
    dates: Option<(String, String)>,
    serial: Option<String>,
    version1: bool,
}

#[derive(Clone, Debug)]
pub enum Key {
    Ec(&'static str),
    Rsa(u32),
}

/// A client with CN `name` and the SPIFFE ID `spiffe://corp.example/ns/test/sa/<name>`.
pub fn client(name: &str) -> Profile {
    bare_client(name).san(&format!("URI:spiffe://corp.example/ns/test/sa/{name}"))
}

/// A client with CN `name` and no SAN.
pub fn bare_client(name: &str) -> Profile {
    Profile::new(name)
        .extension("basicConstraints=critical,CA:FALSE")
        .extension("keyUsage=critical,digitalSignature")
        .extension("extendedKeyUsage=clientAuth")
}

/// A server for `names`; the first one is its CN.
pub fn server(names: &[&str]) -> Profile {
    let profile =
        Profile::new(names[0]).extension("basicConstraints=critical,CA:FALSE").extension("extendedKeyUsage=serverAuth");
    names.iter().fold(profile, |p, name| {
        let kind = if name.parse::<std::net::IpAddr>().is_ok() { "IP" } else { "DNS" };
        p.san(&format!("{kind}:{name}"))
    })
}

impl Profile {
    /// A certificate with CN `name` and no extension at all.
    pub fn new(name: &str) -> Self {
        Self {
            subject: vec![("CN".into(), name.into())],
            extensions: Vec::new(),
            san: Vec::new(),
            key: Key::Ec("P-256"),
            digest: "-sha256",
            dates: None,
            serial: None,
            version1: false,
        }
    }

    /// Adds an attribute to the subject; a second CN is possible.
    pub fn attribute(mut self, name: &str, value: &str) -> Self {
        self.subject.push((name.into(), value.into()));
        self
    }

    /// A line of OpenSSL's v3 configuration; one of the same name is replaced.
    pub fn extension(mut self, line: &str) -> Self {
        let name = line.split('=').next().unwrap_or(line).to_owned() + "=";
        self.extensions.retain(|l| !l.starts_with(&name));
        self.extensions.push(line.into());
        self
    }

    /// Leaves an extension out.
    pub fn without(mut self, name: &str) -> Self {
        self.extensions.retain(|l| !l.starts_with(name));
        self
    }

    pub fn san(mut self, value: &str) -> Self {
        self.san.push(value.into());
        self
    }

    pub fn key(mut self, key: Key) -> Self {
        self.key = key;
        self
    }

    pub fn sha1(mut self) -> Self {
        self.digest = "-sha1";
        self
    }

    /// Validity as `YYYYMMDDHHMMSSZ`.
    pub fn valid(mut self, from: &str, to: &str) -> Self {
        self.dates = Some((from.into(), to.into()));
        self
    }

    pub fn expired(self) -> Self {
        self.valid("20200101000000Z", "20210101000000Z")
    }

    pub fn not_yet_valid(self) -> Self {
        self.valid("20900101000000Z", "20910101000000Z")
    }

    /// Hex digits, an even number of them.
    pub fn serial(mut self, hex: &str) -> Self {
        self.serial = Some(hex.into());
        self
    }

    /// What `openssl x509 -req` makes without `-extfile`.
    pub fn version1(mut self) -> Self {
        self.version1 = true;
        self
    }

    fn configuration(&self) -> String {
        let mut text = "[req]\nprompt=no\nstring_mask=utf8only\nutf8=yes\ndistinguished_name=dn\n[dn]\n".to_owned();
        for (index, (name, value)) in self.subject.iter().enumerate() {
            let _ = writeln!(text, "{index}.{name}={value}");
        }
        text.push_str("[ext]\n");
        for line in &self.extensions {
            let _ = writeln!(text, "{line}");
        }
        if !self.san.is_empty() {
            let _ = writeln!(text, "subjectAltName=@san\n[san]");
            for (index, value) in self.san.iter().enumerate() {
                let (kind, value) = value.split_once(':').expect("a SAN is written KIND:value");
                let _ = writeln!(text, "{kind}.{index}={value}");
            }
        }
        text
    }

    fn key_arguments(&self) -> [String; 4] {
        let (algorithm, option) = match &self.key {
            Key::Ec(curve) => ("ec", format!("ec_paramgen_curve:{curve}")),
            Key::Rsa(bits) => ("rsa", format!("rsa_keygen_bits:{bits}")),
        };
        ["-newkey".into(), algorithm.into(), "-pkeyopt".into(), option]
    }
}

impl Ca {
    /// A self-signed root in `directory`.
    pub fn root(directory: &Path, name: &str) -> Self {
        let profile = Profile::new(name)
            .extension("basicConstraints=critical,CA:TRUE")
            .extension("keyUsage=critical,keyCertSign,cRLSign")
            .extension("subjectKeyIdentifier=hash");
        Self::root_with(directory, &profile)
    }

    /// A self-signed root that looks as `profile` says.
    pub fn root_with(directory: &Path, profile: &Profile) -> Self {
        let base = fresh(directory, "root");
        let (certificate, key) = (base.with_extension("pem"), base.with_extension("key"));
        request(profile, &base, None);
        Self { directory: directory.into(), certificate, key, above: String::new() }
    }

    /// An intermediate; `constraints` replaces `basicConstraints`, `more` holds further extension lines.
    pub fn intermediate(&self, name: &str, more: &[&str]) -> Self {
        let profile = more.iter().fold(
            Profile::new(name)
                .extension("basicConstraints=critical,CA:TRUE")
                .extension("keyUsage=critical,keyCertSign,cRLSign"),
            |profile, line| profile.extension(line),
        );
        self.intermediate_with(&profile)
    }

    /// An intermediate that looks as `profile` says.
    pub fn intermediate_with(&self, profile: &Profile) -> Self {
        let identity = self.issue(profile);
        let above = fs::read_to_string(&identity.chain).expect("written just now");
        Self { directory: self.directory.clone(), certificate: identity.certificate, key: identity.key, above }
    }

    /// Signs a certificate for a fresh key.
    pub fn issue(&self, profile: &Profile) -> Identity {
        let base = fresh(&self.directory, "leaf");
        if profile.version1 || profile.dates.is_some() {
            self.sign_request(profile, &base);
        } else {
            request(profile, &base, Some(self));
        }
        let certificate = base.with_extension("pem");
        let chain = base.with_extension("chain.pem");
        let leaf = fs::read_to_string(&certificate).expect("openssl wrote the certificate");
        fs::write(&chain, leaf + &self.above).expect("the test directory is writable");
        let intermediates = (!self.above.is_empty()).then(|| base.with_extension("above.pem"));
        if let Some(file) = &intermediates {
            fs::write(file, &self.above).expect("the test directory is writable");
        }
        Identity { certificate, chain, intermediates, key: base.with_extension("key") }
    }

    /// The long way, for what `openssl req -x509` refuses to make: odd dates and version 1.
    fn sign_request(&self, profile: &Profile, base: &Path) {
        let (config, csr) = (base.with_extension("cnf"), base.with_extension("csr"));
        fs::write(&config, profile.configuration()).expect("the test directory is writable");
        let key = base.with_extension("key");
        let mut arguments = vec!["req", "-new", "-nodes"];
        let key_arguments = profile.key_arguments();
        arguments.extend(key_arguments.iter().map(String::as_str));
        let (config, csr, key) = (text(&config), text(&csr), text(&key));
        arguments.extend(["-config", &config, "-keyout", &key, "-out", &csr]);
        openssl(&arguments);
        let out = text(&base.with_extension("pem"));
        let (certificate, key) = (text(&self.certificate), text(&self.key));
        let serial = profile.serial.clone().unwrap_or_else(fresh_serial);
        if profile.version1 {
            let serial = format!("0x{serial}");
            openssl(&[
                "x509",
                "-req",
                "-in",
                &csr,
                "-CA",
                &certificate,
                "-CAkey",
                &key,
                "-set_serial",
                &serial,
                "-days",
                "30",
                "-out",
                &out,
            ]);
            return;
        }
        let (from, to) = profile.dates.clone().expect("else the caller takes the short way");
        let directory = text(&self.directory);
        let database = base.with_extension("index");
        let serial_file = base.with_extension("serial");
        fs::write(&database, "").expect("the test directory is writable");
        fs::write(&serial_file, serial).expect("the test directory is writable");
        let ca = base.with_extension("ca.cnf");
        let authority = format!(
            "[ca]\ndefault_ca=c\n[c]\ndatabase={}\nserial={}\nnew_certs_dir={directory}\npolicy=p\n\
             default_md={}\nunique_subject=no\npreserve=yes\n[p]\nCN=optional\nOU=optional\nO=optional\n",
            text(&database),
            text(&serial_file),
            profile.digest.trim_start_matches('-'),
        );
        fs::write(&ca, authority).expect("the test directory is writable");
        openssl(&[
            "ca",
            "-batch",
            "-notext",
            "-config",
            &text(&ca),
            "-cert",
            &certificate,
            "-keyfile",
            &key,
            "-in",
            &csr,
            "-out",
            &out,
            "-startdate",
            &from,
            "-enddate",
            &to,
            "-extfile",
            &config,
            "-extensions",
            "ext",
        ]);
    }

    /// A CRL of this CA.
    pub fn crl(&self) -> Crl<'_> {
        Crl::new(self)
    }

    /// PEM of this CA's own certificate.
    pub fn pem(&self) -> String {
        fs::read_to_string(&self.certificate).expect("openssl wrote the certificate")
    }
}

fn request(profile: &Profile, base: &Path, issuer: Option<&Ca>) {
    let config = base.with_extension("cnf");
    fs::write(&config, profile.configuration()).expect("the test directory is writable");
    let serial = format!("0x{}", profile.serial.clone().unwrap_or_else(fresh_serial));
    let (config, key, out) = (text(&config), text(&base.with_extension("key")), text(&base.with_extension("pem")));
    let key_arguments = profile.key_arguments();
    let mut arguments = vec!["req", "-x509", "-nodes", "-days", "30", profile.digest];
    arguments.extend(key_arguments.iter().map(String::as_str));
    arguments.extend(["-config", &config, "-extensions", "ext", "-set_serial", &serial]);
    arguments.extend(["-keyout", &key, "-out", &out]);
    let signer = issuer.map(|ca| (text(&ca.certificate), text(&ca.key)));
    if let Some((certificate, key)) = &signer {
        arguments.extend(["-CA", certificate, "-CAkey", key]);
    }
    openssl(&arguments);
}

/// Runs `openssl` and returns what it printed.
#[track_caller]
pub fn openssl(arguments: &[&str]) -> String {
    process::run("openssl", arguments, b"", Duration::from_secs(30))
        .expect_success(&format!("openssl {arguments:?}"))
        .text()
}

pub(super) fn fresh(directory: &Path, kind: &str) -> PathBuf {
    let number = FILES.fetch_add(1, Ordering::Relaxed);
    directory.join(format!("{kind}-{number}"))
}

fn fresh_serial() -> String {
    format!("{:016X}", fastrand::u64(1 << 56..1 << 62))
}

pub(super) fn text(path: &Path) -> String {
    path.to_str().expect("test paths are UTF-8").to_owned()
}
