//! `portcullis upgrade`

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::exit;
use crate::config::{self, AdminAddress};

/// How long a gateway may take to start its successor, and then some.
const PATIENCE: Duration = Duration::from_secs(90);

/// The longest answer read: a report on a broken configuration.
const LONGEST: u64 = 64 * 1024;

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
            exchange(stream)
        }
        AdminAddress::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            exchange(stream)
        }
    }
}

fn exchange(mut stream: impl Read + Write) -> io::Result<(u16, String)> {
    stream
        .write_all(b"POST /-/upgrade HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(LONGEST).read_to_string(&mut answer)?;
    let parts = answer.split_once("\r\n\r\n").and_then(|(head, body)| {
        let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
        Some((status, body.to_owned()))
    });
    parts.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "that is no answer of a gateway"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written, and what is to be read.
    struct Wire(Vec<u8>, &'static [u8]);

    impl Read for Wire {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.1.read(into)
        }
    }

    impl Write for Wire {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_answer_has_a_status_and_a_text() {
        let ask = |answer: &'static str| exchange(Wire(Vec::new(), answer.as_bytes()));
        let (status, text) = ask("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ndone\n").expect("an answer");
        assert_eq!((status, text.as_str()), (200, "done\n"));
        assert_eq!(ask("HTTP/1.1 500 Internal Server Error\r\n\r\nwhy").expect("an answer"), (500, "why".to_owned()));
        for garbage in ["", "SSH-2.0-OpenSSH_9.2\r\n", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 2\r\n\r\n"] {
            ask(garbage).expect_err(garbage);
        }
    }
}
