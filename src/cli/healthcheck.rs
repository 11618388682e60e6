//! `portcullis healthcheck`

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::exit;
use super::own::exchange;
use crate::config;

/// Where a configuration that says nothing else has its health listener.
const DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

/// What `portcullis healthcheck` takes from the command line.
#[derive(Debug, Clone, clap::Args)]
#[command(after_long_help = HELP)]
pub(super) struct Options {
    /// The configuration file of the running gateway, for the address of its health listener
    #[arg(short, long, default_value_os_t = super::configuration())]
    config: PathBuf,
    /// Ask here, and read no file
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "config", value_parser = host_and_port)]
    address: Option<String>,
    /// Ask whether the gateway lives (/livez), not whether it takes requests (/readyz)
    #[arg(long)]
    live: bool,
    /// How long each of connecting and answering may take
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

const HELP: &str = "\
For containers without a shell: what `curl --fail http://127.0.0.1:9090/readyz` would do. A file that can't be used is no
reason to call a gateway ill which goes on with the last good one: the default address is asked then.

Examples:
  portcullis healthcheck
  portcullis healthcheck --live --address 127.0.0.1:9090

Exit codes:
  0  ready (or alive)
  1  the configuration can't be read, and nobody answers at the default address
  3  nobody answers, or health.address is off
  4  the gateway isn't ready; the reason is printed";

/// Asks the health listener.
pub(super) fn run(options: &Options) -> ExitCode {
    let (address, unanswered) = match target(options) {
        Ok(target) => target,
        Err(code) => return code,
    };
    let path = if options.live { "/livez" } else { "/readyz" };
    match ask(&address, path, options.timeout) {
        Ok((200, said)) => {
            println!("{}", said.trim_end());
            ExitCode::SUCCESS
        }
        Ok((_, why)) => {
            eprintln!("not ready: {}", why.trim_end());
            exit::REFUSED.into()
        }
        Err(e) => {
            eprintln!("nobody at {address} says how the gateway is: {e} (does it run, with this configuration?)");
            unanswered.into()
        }
    }
}

/// Whom to ask, and the exit code if there is no answer.
fn target(options: &Options) -> Result<(String, u8), ExitCode> {
    if let Some(address) = &options.address {
        return Ok((address.clone(), exit::HOST));
    }
    match config::load(&options.config) {
        Ok(document) => match document.value.health {
            Some(address) => Ok((reachable(address).to_string(), exit::HOST)),
            None => {
                eprintln!("{}: health.address is off, so there is nobody to ask", options.config.display());
                Err(exit::HOST.into())
            }
        },
        Err(findings) => {
            eprintln!("{findings}");
            Ok((DEFAULT.to_string(), exit::CONFIGURATION))
        }
    }
}

/// Who listens on every address is asked on loopback.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

fn host_and_port(text: &str) -> Result<String, &'static str> {
    let port = text.rsplit_once(':').filter(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    port.map(|_| text.to_owned()).ok_or("it takes a host and a port, such as 127.0.0.1:9090")
}

/// The status and the text of the answer.
fn ask(address: &str, path: &str, patience: Duration) -> io::Result<(u16, String)> {
    let stream = connect(address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    exchange(stream, &format!("GET {path}"))
}

/// The first of the addresses of a name that accepts.
#[expect(clippy::disallowed_methods, reason = "a command may wait for a name; nobody else does meanwhile")]
fn connect(address: &str, patience: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, patience) {
            Ok(stream) => return Ok(stream),
            Err(e) => last = e,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_everywhere_is_asked_on_loopback() {
        for (listens, asked) in [
            ("0.0.0.0:9090", "127.0.0.1:9090"),
            ("[::]:9090", "[::1]:9090"),
            ("10.0.0.5:80", "10.0.0.5:80"),
            ("127.0.0.2:1", "127.0.0.2:1"),
        ] {
            let listens: SocketAddr = listens.parse().expect("an address");
            assert_eq!(reachable(listens).to_string(), asked);
        }
    }
}
