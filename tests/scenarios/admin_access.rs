//! Who may use the admin listener: loopback as ever, a token, a certificate; and what `portcullis upgrade` does then.

use crate::support::gateway::{Builder, Gateway, gateway, plain_http};
use crate::support::heir::Heir;
use crate::support::pki::{self, Ca, Identity};
use crate::support::process::{self, Finished};
use crate::support::tls::PATIENCE;
use crate::support::upstream::Upstream;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// With a token in a file that others can't read.
fn with_token(builder: Builder) -> Builder {
    let builder = builder.file("admin-token", &format!("{TOKEN}\n"));
    let path = builder.path().join("admin-token");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("the file is ours");
    builder.configure(|c| c["admin"]["token_file"] = "admin-token".into())
}

/// With a certificate of its own.
fn with_tls(builder: Builder) -> Builder {
    let own = builder.server_ca.issue(&pki::server(&["admin.test", "127.0.0.1"]));
    let text = |path: &Path| fs::read_to_string(path).expect("PEM");
    builder
        .file("admin.crt", &text(&own.chain))
        .file("admin.key", &text(&own.key))
        .configure(|c| c["admin"]["tls"] = json!({ "certificate": "admin.crt", "key": "admin.key" }))
}

/// With a CA for administrators, and the administrator `alice`.
fn with_administrators(builder: Builder) -> (Builder, Ca, Identity) {
    let ca = Ca::root(&builder.pki(), "Test Admin CA");
    let alice = ca.issue(&pki::bare_client("alice"));
    let builder = with_tls(builder).file("admin-ca.pem", &ca.pem());
    (builder.configure(|c| c["admin"]["tls"]["client_ca"] = "admin-ca.pem".into()), ca, alice)
}

/// What curl gets from the admin listener: the status, and the body.
fn curl(gateway: &Gateway, target: &str, identity: Option<&Identity>, more: &[&str]) -> (u16, String) {
    let url = format!("https://{}{target}", gateway.admin());
    let ca = gateway.server_ca.certificate.to_string_lossy().into_owned();
    let mut arguments = vec!["-sS", "--noproxy", "*", "--max-time", "20", "--cacert", &ca, "-w", "\n%{http_code}"];
    let files = identity.map(|one| [&one.chain, &one.key].map(|path| path.to_string_lossy().into_owned()));
    if let Some([certificate, key]) = &files {
        arguments.extend(["--cert", certificate.as_str(), "--key", key.as_str()]);
    }
    arguments.extend(more);
    arguments.push(&url);
    let finished = process::run("curl", &arguments, b"", PATIENCE * 2);
    let text = finished.text();
    let (body, status) = text.rsplit_once('\n').unwrap_or(("", &text));
    (status.trim().parse().unwrap_or(0), format!("{body}{}", finished.stderr))
}

fn started(builder: Builder) -> (Upstream, Gateway) {
    let upstream = Upstream::start();
    let gateway = builder.upstream(upstream.url()).start();
    (upstream, gateway)
}

/// The records of the audit log about the admin listener.
fn access_records(gateway: &Gateway) -> Vec<Value> {
    let text = fs::read_to_string(gateway.path().join("audit.log")).unwrap_or_default();
    let records = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    records.filter(|record| record["action"] == "access").collect()
}

fn audited(builder: Builder) -> Builder {
    builder.configure(|c| c["audit_log"] = json!({ "path": "audit.log" }))
}

fn portcullis_upgrade(gateway: &Gateway, more: &[&str]) -> Finished {
    // The port was 0 in the file: the command needs the one that was assigned.
    let text = fs::read_to_string(gateway.path().join("portcullis.yaml")).expect("the configuration");
    let mut config: Value = serde_yaml::from_str(&text).expect("YAML");
    config["admin"]["address"] = gateway.admin().to_string().into();
    let file = gateway.path().join("for-upgrade.yaml");
    fs::write(&file, serde_yaml::to_string(&config).expect("YAML")).expect("the directory is writable");
    let mut arguments = vec!["upgrade", "--config", file.to_str().expect("UTF-8")];
    arguments.extend(more);
    process::run(env!("CARGO_BIN_EXE_portcullis"), &arguments, b"", PATIENCE * 2)
}

/// The successor, which ends with the value.
#[track_caller]
fn heir(finished: &Finished) -> Heir {
    Heir::named_in(&finished.text()).unwrap_or_else(|| panic!("no process is named: {}", finished.all()))
}

#[test]
fn loopback_is_served_without_a_token_as_before() {
    let (_upstream, gateway) = started(gateway());
    for target in ["/", "/config", "/revocation"] {
        assert_eq!(plain_http(gateway.admin(), "GET", target).status, 200, "{target}");
    }
}

#[test]
fn a_token_is_asked_for_wrong_ones_are_counted_and_audited_and_none_is_logged() {
    let (_upstream, mut gateway) = started(audited(with_token(gateway())));
    let reply = plain_http(gateway.admin(), "GET", "/");
    assert_eq!(reply.status, 401, "{}", reply.text());
    assert!(reply.header("www-authenticate").is_some());
    let url = format!("http://{}/", gateway.admin());
    let ask = |more: &[&str]| {
        let mut arguments = vec!["-sS", "--noproxy", "*", "-o", "/dev/null", "-w", "%{http_code}"];
        arguments.extend(more);
        arguments.push(&url);
        process::run("curl", &arguments, b"", PATIENCE * 2).text()
    };
    let bearer = |token: &str| format!("Authorization: Bearer {token}");
    let wrong = TOKEN.replace('0', "1");
    assert_eq!(ask(&["-H", &bearer(&wrong)]), "401");
    assert_eq!(ask(&["-u", &format!("me:{wrong}")]), "401");
    assert_eq!(ask(&["-H", &bearer(TOKEN)]), "200");
    assert_eq!(ask(&["-u", &format!("me:{TOKEN}")]), "200", "as a browser sends it");
    let count = |reason| gateway.metric("portcullis_admin_refusals_total", &[("reason", reason)]);
    assert_eq!((count("no_token"), count("wrong_token")), (Some(1.0), Some(2.0)));
    let said = gateway.wait_for_log("turned away (wrong_token)");
    assert!(said.contains("127.0.0.1"), "{said}");
    // A new token is in force with the next reload.
    gateway.write("admin-token", &wrong);
    let order = ["-X", "POST", "-H", &bearer(TOKEN)];
    let reloaded = process::run("curl", &[&order[..], &["-sS", &format!("{url}-/reload")]].concat(), b"", PATIENCE);
    assert!(reloaded.text().contains("generation 2"), "{}", reloaded.all());
    assert_eq!((ask(&["-H", &bearer(TOKEN)]), ask(&["-H", &bearer(&wrong)])), ("401".to_owned(), "200".to_owned()));
    let records = access_records(&gateway);
    assert!(records.len() >= 2 && records.iter().all(|record| record["ok"] == false), "{records:#?}");
    let everything = format!("{:?}{records:?}", gateway.log());
    assert!(!everything.contains(TOKEN) && !everything.contains(&wrong), "{everything}");
}

#[test]
fn a_listener_that_the_files_switch_off_answers_nobody_though_it_stays_bound() {
    let (_upstream, mut gateway) = started(with_token(gateway()));
    gateway.change_config(|c| c["admin"] = json!({ "address": null }));
    gateway.process().signal("HUP");
    gateway.wait_for_metric("portcullis_config_generation", &[], |n| n > 1.0);
    let url = format!("http://{}/config", gateway.admin());
    let finished = process::run("curl", &["-sS", "--noproxy", "*", "--max-time", "20", &url], b"", PATIENCE * 2);
    assert!(!finished.success() && finished.text().is_empty(), "{}", finished.all());
    gateway.wait_for_metric("portcullis_admin_refusals_total", &[("reason", "unguarded")], |n| n >= 1.0);
}

#[test]
fn a_token_over_tls_lets_in_whoever_has_it() {
    let (_upstream, gateway) = started(with_tls(with_token(gateway())));
    let bearer = format!("Authorization: Bearer {TOKEN}");
    assert_eq!(curl(&gateway, "/", None, &[]).0, 401);
    let (status, body) = curl(&gateway, "/", None, &["-H", &bearer]);
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("a token, from this machine"), "{body}");
    // By a name, too: what TLS proves needs no look at Host.
    let port = gateway.admin().port();
    let host = format!("Host: admin.test:{port}");
    assert_eq!(curl(&gateway, "/config", None, &["-H", &bearer, "-H", &host]).0, 200);
    assert_eq!(curl(&gateway, "/config", None, &["-H", &bearer, "-H", "Origin: https://evil.example"]).0, 403);
    let kinds = [("kind", "admin"), ("name", "admin")];
    assert!(gateway.metric("portcullis_certificate_expiry_timestamp_seconds", &kinds).is_some());
}

#[test]
fn a_certificate_of_the_right_authority_and_name_lets_in_and_no_other() {
    let (builder, ca, alice) = with_administrators(audited(gateway()));
    let (bob, revoked) = (ca.issue(&pki::bare_client("bob")), ca.issue(&pki::bare_client("alice").serial("0666")));
    let lists = ca.crl().serial("0666").pem() + &builder.client_ca.crl().pem();
    let client = builder.client_ca.issue(&pki::bare_client("alice"));
    let builder = builder.crl(&lists).configure(|c| {
        c["admin"]["tls"]["client_names"] = json!(["CN=alice"]);
    });
    let (_upstream, gateway) = started(builder);
    let (status, page) = curl(&gateway, "/", Some(&alice), &[]);
    assert_eq!(status, 200, "{page}");
    assert!(page.contains("Test Admin CA") && page.contains("admin ca"), "{page}");
    for (identity, why) in [
        (None, "nothing shown"),
        (Some(&bob), "another name"),
        (Some(&revoked), "revoked"),
        (Some(&client), "a client of the registry of the same name"),
    ] {
        let (status, said) = curl(&gateway, "/config", identity, &[]);
        assert_eq!(status, 0, "{why}: {said}");
        assert!(!said.contains("listeners"), "{why}: {said}");
    }
    gateway.wait_for_metric("portcullis_admin_refusals_total", &[("reason", "name")], |n| (n - 1.0).abs() < 0.1);
    gateway.wait_for_metric("portcullis_admin_refusals_total", &[("reason", "handshake")], |n| n >= 3.0);
    let told =
        |part: &str| access_records(&gateway).iter().any(|r| r["result"].as_str().is_some_and(|t| t.contains(part)));
    for part in
        ["CN=bob is not in admin.tls.client_names", "handshake: revoked", "handshake: no_certificate", "unknown_ca"]
    {
        assert!(told(part), "{part}\nnot in\n{:#?}", access_records(&gateway));
    }
    // Revoked from now on.
    let lists =
        ca.crl().number(9).serial("0666").serial(&serial(&alice)).pem() + &gateway.client_ca.crl().number(9).pem();
    gateway.write("ca.crl", lists);
    let order = curl(&gateway, "/-/reload", Some(&alice), &["-X", "POST"]);
    assert_eq!(order.0, 200, "{}", order.1);
    assert_eq!(curl(&gateway, "/", Some(&alice), &[]).0, 0, "she is out");
}

/// The serial number of a certificate, in hexadecimal.
fn serial(identity: &Identity) -> String {
    let path = identity.certificate.to_string_lossy().into_owned();
    let said = pki::openssl(&["x509", "-in", &path, "-noout", "-serial"]);
    said.trim().trim_start_matches("serial=").to_owned()
}

#[test]
fn plain_http_gets_nothing_where_tls_is_spoken() {
    let (_upstream, gateway) = started(with_tls(with_token(gateway())));
    let url = format!("http://{}/config", gateway.admin());
    let finished = process::run("curl", &["-sS", "--noproxy", "*", "--max-time", "20", &url], b"", PATIENCE * 2);
    assert!(!finished.success() && !finished.text().contains("listeners"), "{}", finished.all());
    gateway.wait_for_metric("portcullis_admin_refusals_total", &[("reason", "handshake")], |n| n >= 1.0);
}

#[test]
fn what_other_machines_reach_is_refused_without_a_guard_with_file_line_and_key() {
    let check = |builder: &Builder| {
        let file = builder.write_config();
        let arguments = ["check", "--config", file.to_str().expect("UTF-8")];
        process::run(env!("CARGO_BIN_EXE_portcullis"), &arguments, b"", PATIENCE)
    };
    let upstream = Upstream::start();
    let open = |builder: Builder| {
        builder.upstream(upstream.url()).configure(|c| c["admin"]["address"] = "0.0.0.0:9091".into())
    };
    let (administered, ..) = with_administrators(gateway());
    for (builder, lack) in [
        (open(gateway()), Some("set admin.tls (docs/status-page.md)")),
        (open(with_token(gateway())), Some("set admin.tls (docs/status-page.md)")),
        (open(with_tls(gateway())), Some("set token_file or tls.client_ca")),
        (open(with_tls(with_token(gateway()))), None),
        (open(administered), None),
    ] {
        let finished = check(&builder);
        let said = finished.all();
        assert_eq!(finished.success(), lack.is_none(), "{said}");
        if let Some(lack) = lack {
            let at = said.lines().find(|line| line.contains("admin.address")).unwrap_or_else(|| panic!("{said}"));
            assert!(at.contains("portcullis.yaml:") && at.contains("other machines could reach this"), "{at}");
            assert!(at.contains(lack), "{at}");
        }
    }
}

#[test]
fn the_configurations_of_the_guide_can_be_used() {
    let guide = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/status-page.md")).expect("the guide");
    let examples: Vec<&str> = guide.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(examples.len(), 2, "{guide}");
    let upstream = Upstream::start();
    for example in examples {
        let section: Value = serde_yaml::from_str(example).expect("YAML");
        let (builder, ..) = with_administrators(with_token(gateway()));
        let builder = builder.upstream(upstream.url()).configure(|c| c["admin"] = section["admin"].clone());
        let file = builder.write_config();
        let arguments = ["check", "--config", file.to_str().expect("UTF-8")];
        let finished = process::run(env!("CARGO_BIN_EXE_portcullis"), &arguments, b"", PATIENCE);
        assert!(finished.success(), "{example}\n{}", finished.all());
    }
}

#[test]
fn clients_of_the_registry_are_no_administrators_by_accident() {
    let builder = with_tls(gateway()).upstream("http://127.0.0.1:1");
    let builder = builder.configure(|c| c["admin"]["tls"]["client_ca"] = "client-ca.pem".into());
    let said = builder.try_start().err().expect("it must not start");
    assert!(said.contains("every client of the registry could administer the gateway"), "{said}");
    assert!(said.contains("admin.tls.client_ca"), "{said}");
}

#[test]
fn upgrade_shows_the_token_and_knows_the_listener_by_its_certificate() {
    let (_upstream, gateway) = started(with_tls(with_token(gateway())));
    let finished = portcullis_upgrade(&gateway, &[]);
    let _heir = heir(&finished);
    // Somebody else's listener gets no token.
    let (_upstream, other) = started(with_tls(with_token(crate::support::gateway::gateway())));
    fs::copy(gateway.path().join("admin.crt"), other.path().join("admin.crt")).expect("copies");
    fs::copy(gateway.path().join("admin.key"), other.path().join("admin.key")).expect("copies");
    let finished = portcullis_upgrade(&other, &[]);
    assert_eq!(finished.code, Some(3), "{}", finished.all());
    assert!(
        finished.stderr.contains("another certificate") && finished.stderr.contains("Nothing was sent"),
        "{}",
        finished.all()
    );
}

#[test]
fn upgrade_with_a_client_certificate_or_a_word_on_what_to_do() {
    let (builder, ca, alice) = with_administrators(gateway());
    let (_upstream, gateway) = started(builder);
    let finished = portcullis_upgrade(&gateway, &[]);
    assert_eq!(finished.code, Some(3), "{}", finished.all());
    assert!(finished.stderr.contains("--cert and --key") && finished.stderr.contains("SIGQUIT"), "{}", finished.all());
    let as_one = |identity: &Identity| {
        let paths = [&identity.chain, &identity.key].map(|path| path.to_string_lossy().into_owned());
        portcullis_upgrade(&gateway, &["--cert", &paths[0], "--key", &paths[1]])
    };
    let expired = as_one(&ca.issue(&pki::bare_client("alice").expired()));
    assert_eq!(expired.code, Some(3), "{}", expired.all());
    assert!(expired.stderr.contains("refuses the connection"), "{}", expired.all());
    let finished = as_one(&alice);
    let _heir = heir(&finished);
}
