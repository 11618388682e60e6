//! Certificates and lists made here, before servers that check them by their own means: nginx, Envoy, docker.

use super::Site;
use crate::support::dockerd::Dockerd;
use crate::support::gateway::{NAME, gateway};
use crate::support::process::{Finished, Process};
use crate::support::registry::Registry;
use crate::support::skip;
use crate::support::upstream::pattern;
use std::fs;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// A server of somebody else's, on a unix socket: its ports could not be chosen by the kernel.
struct Peer {
    process: Process,
    socket: String,
}

impl Peer {
    /// Starts `program` in `site` and waits until it listens on the socket.
    fn start(site: &Site, name: &str, program: &str, arguments: &[&str]) -> Self {
        let socket = site.path(&format!("{name}.sock"));
        // An earlier one's.
        let _ = fs::remove_file(&socket);
        let directory = site.0.path().to_owned();
        let mut process = Process::spawn(name, program, arguments, |command| {
            command.current_dir(directory);
        });
        let end = Instant::now() + Duration::from_secs(60);
        while UnixStream::connect(&socket).is_err() {
            assert!(process.has_exited().is_none() && Instant::now() < end, "{name}:\n{}", process.tail(20));
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { process, socket: socket.display().to_string() }
    }

    /// `GET /v2/` with the certificate of a client of the PKI.
    fn ask(&self, site: &Site, client: &str) -> Finished {
        let file = |name: &str| format!("pki/clients/{client}/{name}");
        let (ca, certificate, key) = (file("ca.crt"), file("client.crt"), file("client.key"));
        let files = ["--cacert", &ca, "--cert", &certificate, "--key", &key];
        let url = format!("https://{NAME}/v2/");
        let rest = ["-sSf", "--noproxy", "*", "--max-time", "20", "--unix-socket", &self.socket, &url];
        site.run("curl", &[&files[..], &rest].concat())
    }

    #[track_caller]
    fn accepts(&self, site: &Site, client: &str) {
        let answer = self.ask(site, client);
        assert!(answer.success() && answer.text().contains("welcome"), "{}{}", answer.all(), self.process.tail(20));
    }

    /// Refuses a client, and says in its log that it is revoked.
    #[track_caller]
    fn refuses(&mut self, site: &Site, client: &str, logged: &str) {
        let answer = self.ask(site, client);
        assert!(!answer.success() && !answer.text().contains("welcome"), "{}", answer.all());
        let said = self.process.wait_for_line(Duration::from_secs(20), |line| line.contains(logged).then_some(()));
        said.unwrap_or_else(|log| panic!("{logged}: {log}"));
    }
}

/// Both kinds of PKI, with a list signed anew after the revocation of `ci-7`.
fn accepted_then_refused(start: impl Fn(&Site) -> Peer, logged: &str) {
    for options in [&[][..], &["--no-intermediate", "--key", "rsa"]] {
        let site = Site::with_pki(options);
        site.pki(&["client", "other"]).expect_success("client");
        let before = start(&site);
        before.accepts(&site, "ci-7");
        before.accepts(&site, "other");
        drop(before);
        site.pki(&["revoke", "ci-7", "--reason", "keyCompromise"]).expect_success("revoke");
        site.pki(&["crl"]).expect_success("crl");
        let mut after = start(&site);
        after.refuses(&site, "ci-7", logged);
        after.accepts(&site, "other");
    }
}

const NGINX: &str = r#"
daemon off;
master_process off;
pid nginx.pid;
error_log stderr info;
events { worker_connections 64; }
http {
  access_log off;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  server {
    listen unix:DIRECTORY/nginx.sock ssl;
    ssl_certificate pki/servers/NAME/server.crt;
    ssl_certificate_key pki/servers/NAME/server.key;
    ssl_client_certificate pki/client-ca.pem;
    ssl_verify_client on;
    ssl_verify_depth 3;
    ssl_crl pki/ca.crl;
    location / { return 200 "welcome $ssl_client_s_dn\n"; }
  }
}
"#;

#[test]
fn nginx_accepts_certificates_and_refuses_by_the_list() {
    if !skip::have(&["nginx", "curl"]) {
        return;
    }
    let program = skip::find("nginx").expect("found before").display().to_string();
    let start = |site: &Site| {
        let directory = site.0.path().display().to_string();
        let text = NGINX.replace("DIRECTORY", &directory).replace("NAME", NAME);
        fs::write(site.path("nginx.conf"), text).expect("written");
        let prefix = format!("{directory}/");
        Peer::start(site, "nginx", &program, &["-p", &prefix, "-c", "nginx.conf", "-e", "stderr"])
    };
    accepted_then_refused(start, "(23:certificate revoked)");
}

const ENVOY: &str = r#"
node: { id: test, cluster: test }
static_resources:
  listeners:
  - name: edge
    address: { pipe: { path: DIRECTORY/envoy.sock } }
    filter_chains:
    - transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: true
          common_tls_context:
            tls_certificates:
            - certificate_chain: { filename: pki/servers/NAME/server.crt }
              private_key: { filename: pki/servers/NAME/server.key }
            validation_context:
              trusted_ca: { filename: pki/client-ca.pem }
              crl: { filename: pki/ca.crl }
      filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: edge
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: { prefix: / }
                direct_response: { status: 200, body: { inline_string: "welcome\n" } }
          http_filters:
          - name: envoy.filters.http.router
            typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }
"#;

#[test]
fn envoy_accepts_certificates_and_refuses_by_the_list() {
    let Some(program) = skip::extra("envoy") else { return };
    if !skip::have(&["curl"]) {
        return;
    }
    let program = program.display().to_string();
    let start = |site: &Site| {
        let text = ENVOY.replace("DIRECTORY", &site.0.path().display().to_string()).replace("NAME", NAME);
        fs::write(site.path("envoy.yaml"), text).expect("written");
        let quiet = ["--concurrency", "1", "--disable-hot-restart", "-l", "warning"];
        let loud = ["--component-log-level", "connection:debug"];
        Peer::start(site, "envoy", &program, &[&["-c", "envoy.yaml"], &quiet[..], &loud].concat())
    };
    accepted_then_refused(start, "certificate revoked");
}

#[test]
fn dockerd_reads_what_was_written_for_docker() {
    if !skip::have(&["docker-registry", "dockerd", "docker"]) {
        return;
    }
    let site = Site::with_pki(&[]);
    let registry = Registry::start();
    let gateway = site.server_side(gateway().upstream(registry.url()).bound_uploads());
    let gateway = gateway.crl(&site.text("pki/ca.crl")).start();
    let daemon = Dockerd::start_with(gateway.address(), |certs, registry| {
        let docker = certs.display().to_string();
        site.pki(&["client", "node", "--registry", registry, "--docker", &docker]).expect_success("client --docker");
    });
    let daemon = match daemon {
        Ok(daemon) => daemon,
        Err(reason) => {
            skip::skipped(&format!("no docker daemon: {reason}"));
            return;
        }
    };
    let name = format!("{}/team/app:v1", daemon.registry);
    daemon.import(&name, &pattern(0, 100_000));
    daemon.docker(&["push", &name]).expect_success("docker push");
    let record = gateway.wait_for_record(|record| record["method"] == "PUT" && record["route"] == "manifest");
    assert_eq!(record["identity"], "CN=node", "{record}");
    daemon.docker(&["rmi", &name]).expect_success("docker rmi");
    daemon.docker(&["pull", &name]).expect_success("docker pull");

    site.pki(&["revoke", "node"]).expect_success("revoke");
    site.pki(&["crl"]).expect_success("crl");
    gateway.write("ca.crl", site.text("pki/ca.crl"));
    gateway.reload_ok();
    daemon.docker(&["rmi", &name]).expect_success("docker rmi");
    let refused = daemon.docker(&["pull", &name]);
    assert!(!refused.success() && refused.all().contains("revoked"), "{}", refused.all());
}
