//! `portcullis upgrade`

use std::io;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::exit;
use super::own::exchange;
use crate::config::{self, AdminAddress};

/// How long a gateway may take to start its successor, and then some.
const PATIENCE: Duration = Duration::from_secs(90);

/// What `portcullis upgrade` takes from the command line.
#[derive(Debug, Clone, clap::Args)]
#[command(after_long_help = HELP)]
pub(super) struct Options {
    /// The configuration file of the running gateway, for the address of its admin listener
    #[arg(short, long, default_value = "/etc/portcullis/portcullis.yaml")]
    config: PathBuf,
}

const HELP: &str = "\
The running gateway starts the program that is now in its place on disk, with the same arguments, and passes its
listening sockets on. The successor reads the configuration anew and serves; then the old process drains. No connection
is refused and no transfer cut within drain.grace. If the successor can't start, everything stays as it was.

Examples:
  install -m 755 portcullis-new /usr/local/bin/portcullis && portcullis upgrade
  portcullis upgrade --config /etc/portcullis/other.yaml
Without an admin listener, or from a unit file, the signal does the same, and the log tells how it went:
  systemctl kill --signal=QUIT --kill-whom=main portcullis

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
    let Some(address) = settings.admin else {
        eprintln!(
            "{}: admin.address is not set, so there is nobody to ask; send SIGQUIT to the gateway and read its log \
             (systemctl kill --signal=QUIT --kill-whom=main portcullis)",
            options.config.display()
        );
        return exit::HOST.into();
    };
    match ask(&address) {
        Ok((200, said)) => {
            println!("{}", said.trim_end());
            ExitCode::SUCCESS
        }
        Ok((_, why)) => {
            eprintln!("no hand-over, the gateway goes on: {}", why.trim_end());
            exit::REFUSED.into()
        }
        Err(e) => {
            let address = match &address {
                AdminAddress::Tcp(address) => address.to_string(),
                AdminAddress::Unix(path) => format!("unix:{}", path.display()),
            };
            eprintln!(
                "the admin listener at {address} doesn't answer: {e} (does the gateway run, with this configuration?)"
            );
            exit::HOST.into()
        }
    }
}

/// The status and the text of the answer.
fn ask(address: &AdminAddress) -> io::Result<(u16, String)> {
    match address {
        AdminAddress::Tcp(address) => {
            let stream = TcpStream::connect_timeout(address, Duration::from_secs(5))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            exchange(stream, "POST /-/upgrade")
        }
        AdminAddress::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            exchange(stream, "POST /-/upgrade")
        }
    }
}
