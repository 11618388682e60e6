//! `portcullis upgrade`

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use x509_parser::pem::Pem;

use super::{exit, own};
use crate::config::{self, Admin, AdminAddress, ByteSize, Secret};
use crate::tls::issue::PrivateKey;
use crate::tls::probe::{ClientSide, probe, refusal};

/// How long a gateway may take to start its successor, and then some.
const PATIENCE: Duration = Duration::from_secs(90);

/// How long the listener may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// The largest file with certificates or a key that is read.
const MAX_FILE: ByteSize = ByteSize::from_mib(1);

/// What is spoken, in the wire format of ALPN.
const HTTP1: &[u8] = b"\x08http/1.1";

/// What `portcullis upgrade` takes from the command line.
#[derive(Debug, Clone, clap::Args)]
#[command(after_long_help = HELP)]
pub(super) struct Options {
    /// The configuration file of the running gateway, for the address of its admin listener
    #[arg(short, long, default_value_os_t = super::configuration())]
    config: PathBuf,
    /// A client certificate with its chain (PEM), where the admin listener asks for one
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

const HELP: &str = "\
The running gateway starts the program that is now in its place on disk, with the same arguments, and passes its
listening sockets on. The successor reads the configuration anew and serves; then the old process drains. No connection
is refused and no transfer cut within drain.grace. If the successor can't start, everything stays as it was.

Examples:
  install -m 755 portcullis-new /usr/local/bin/portcullis && portcullis upgrade
  portcullis upgrade --config /etc/portcullis/other.yaml
  portcullis upgrade --cert alice.crt --key alice.key   # admin.tls.client_ca asks for a certificate
A token (admin.token_file) is read from its file.
Without an admin listener, or from a unit file, the signal does the same, and the log tells how it went:
  systemctl kill --signal=QUIT --kill-who=main portcullis

Exit codes:
  0  the successor serves; both process ids are printed
  1  the configuration can't be read
  3  no gateway could be asked
  4  the gateway goes on as it was; the reason is printed";

/// Asks the running gateway to hand over.
pub(super) fn run(options: &Options) -> ExitCode {
    let settings = match config::load(&options.config) {
        Ok(document) => document.value,
        Err(findings) => {
            eprintln!("{findings}");
            return exit::CONFIGURATION.into();
        }
    };
    let Some(admin) = settings.admin else {
        eprintln!(
            "{}: admin.address is not set, so there is nobody to ask; send SIGQUIT to the gateway and read its log \
             (systemctl kill --signal=QUIT --kill-who=main portcullis)",
            options.config.display()
        );
        return exit::HOST.into();
    };
    let outcome = Caller::new(options, &admin).and_then(|caller| caller.ask());
    match outcome {
        Ok((200, said)) => {
            println!("{}", said.trim_end());
            ExitCode::SUCCESS
        }
        Ok((401, _)) => {
            eprintln!(
                "{} refuses the token of this configuration: has it changed, and not been reloaded?",
                shown(&admin)
            );
            exit::HOST.into()
        }
        Ok((_, why)) => {
            eprintln!("no hand-over, the gateway goes on: {}", why.trim_end());
            exit::REFUSED.into()
        }
        Err(why) => {
            eprintln!("{}", why.replace("{listener}", &shown(&admin)));
            exit::HOST.into()
        }
    }
}

/// The listener in a sentence.
fn shown(admin: &Admin) -> String {
    match &admin.address {
        AdminAddress::Tcp(address) => format!("the admin listener at {address}"),
        AdminAddress::Unix(path) => format!("the admin listener at unix:{}", path.display()),
    }
}

/// Says that nobody answers.
fn silent(error: &dyn std::fmt::Display) -> String {
    format!("{{listener}} doesn't answer: {error} (does the gateway run, with this configuration?)")
}

/// Who asks, and by what means.
struct Caller<'a> {
    admin: &'a Admin,
    identity: Option<(Vec<Vec<u8>>, PrivateKey)>,
}

impl<'a> Caller<'a> {
    fn new(options: &Options, admin: &'a Admin) -> Result<Self, String> {
        let identity = match (&options.cert, &options.key) {
            (Some(certificate), Some(key)) => Some((certificates(certificate)?, private_key(key)?)),
            _ => None,
        };
        let wanted = admin.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        if wanted && identity.is_none() {
            return Err(
                "{listener} asks for a client certificate: name one with --cert and --key, or send SIGQUIT to the \
                        gateway and read its log (systemctl kill --signal=QUIT --kill-who=main portcullis)"
                    .to_owned(),
            );
        }
        Ok(Self { admin, identity })
    }

    /// The status and the text of the answer.
    fn ask(&self) -> Result<(u16, String), String> {
        match (&self.admin.address, &self.admin.tls) {
            (AdminAddress::Tcp(address), Some(tls)) => self.ask_by_tls(near(*address), &tls.pair.certificate),
            (AdminAddress::Tcp(address), None) => {
                let connected = TcpStream::connect_timeout(&near(*address), CONNECT);
                connected
                    .and_then(|tcp| tcp.set_read_timeout(Some(PATIENCE)).map(|()| tcp))
                    .and_then(|tcp| own::ask(tcp, &self.request()))
            }
            .map_err(|e| silent(&e)),
            (AdminAddress::Unix(path), _) => {
                let connected = UnixStream::connect(path);
                connected
                    .and_then(|unix| unix.set_read_timeout(Some(PATIENCE)).map(|()| unix))
                    .and_then(|unix| own::ask(unix, &self.request()))
            }
            .map_err(|e| silent(&e)),
        }
    }

    /// The listener is this machine's own, and its certificate in a file here: that very one must be shown, whatever names
    /// it has.
    fn ask_by_tls(&self, address: SocketAddr, certificate: &Path) -> Result<(u16, String), String> {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

        let own = certificates(certificate)?;
        let side = ClientSide {
            server_name: None,
            roots: &own,
            identity: self.identity.as_ref().map(|(chain, key)| (chain.as_slice(), key)),
            alpn: HTTP1,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| format!("no runtime: {e}"))?;
        let talk = async {
            let tcp = tokio::net::TcpStream::connect(address).await.map_err(|e| silent(&e))?;
            let (seen, stream) = Box::pin(probe(&side, tcp)).await?;
            let mut stream = stream.map_err(|broken| silent(&broken.text))?;
            if seen.path.first() != own.first() {
                return Err(
                    "{listener} shows another certificate than that of this configuration: has it been renewed, and \
                            not been reloaded? Nothing was sent"
                        .to_owned(),
                );
            }
            stream.write_all(self.request().expose().as_bytes()).await.map_err(|e| refused(&e))?;
            let mut answer = Vec::new();
            let read = stream.take(own::LONGEST).read_to_end(&mut answer).await;
            // What was said before the connection broke counts.
            read.map(|_| ()).or_else(|e| if answer.is_empty() { Err(refused(&e)) } else { Ok(()) })?;
            own::answer(&String::from_utf8_lossy(&answer)).map_err(|e| silent(&e))
        };
        runtime.block_on(async {
            tokio::time::timeout(PATIENCE, talk).await.unwrap_or_else(|_| Err(silent(&"it takes too long")))
        })
    }

    /// What is said.
    fn request(&self) -> Secret<String> {
        own::request("POST /-/upgrade", self.admin.token.as_ref().map(|token| &token.secret))
    }
}

/// A server of TLS 1.3 refuses a client's certificate only after the handshake.
fn refused(error: &io::Error) -> String {
    format!(
        "{{listener}} refuses the connection: {} (is the certificate one that may administer?)",
        refusal(error).text
    )
}

/// An address of this machine at which a listener on this one is reached.
fn near(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::from((Ipv4Addr::LOCALHOST, address.port())),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::from((Ipv6Addr::LOCALHOST, address.port())),
        _ => address,
    }
}

/// The certificates of a PEM file, each in DER.
fn certificates(path: &Path) -> Result<Vec<Vec<u8>>, String> {
    let bytes = read(path)?;
    let blocks = Pem::iter_from_buffer(&bytes).filter_map(Result::ok).filter(|block| block.label == "CERTIFICATE");
    let found: Vec<_> = blocks.map(|block| block.contents).collect();
    if found.is_empty() { Err(format!("\"{}\" holds no certificate in PEM form", path.display())) } else { Ok(found) }
}

fn private_key(path: &Path) -> Result<PrivateKey, String> {
    PrivateKey::from_pem(&read(path)?, None)
        .map_err(|_| format!("\"{}\" holds no private key that can be used without a passphrase", path.display()))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    config::read_bounded(path, MAX_FILE).map_err(|e| format!("\"{}\": {e}", path.display()))
}
