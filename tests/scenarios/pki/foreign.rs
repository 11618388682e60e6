//! CAs of other tools: what they issue is accepted, and they can be taken over with all that they revoked.

use super::{Site, curl};
use crate::support::gateway::{NAME, gateway};
use crate::support::pki;
use crate::support::skip;
use crate::support::upstream::Upstream;
use std::fs;
use std::path::Path;

#[test]
fn a_ca_of_openssl_goes_on_where_it_was() {
    if !skip::have(&["curl"]) {
        return;
    }
    let site = Site::new();
    let ca = pki::Ca::root(site.0.path(), "Old CA");
    let copy = |from: &Path, to: &str| fs::copy(from, site.path(to)).expect("copied");
    copy(&ca.certificate, "ca.crt");
    copy(&ca.key, "ca.key");
    // v3 extension files, as tutorials have them: without key usage, without extended key usage, with both.
    let profiles = [
        pki::Profile::new("none").extension("basicConstraints=CA:FALSE"),
        pki::Profile::new("eku").extension("extendedKeyUsage=clientAuth,serverAuth"),
        pki::client("both"),
    ];
    let clients: Vec<_> = profiles.iter().map(|profile| ca.issue(profile)).collect();
    let gone = ca.issue(&pki::client("gone"));
    fs::write(site.path("old.crl"), ca.crl().revoke(&gone.certificate).number(77).pem()).expect("written");

    let import = ["import", "--certificate", "ca.crt", "--key", "ca.key"];
    let forgetful = site.pki(&import);
    assert!(forgetful.code == Some(1) && forgetful.stderr.contains("--nothing-revoked"), "{}", forgetful.all());
    site.pki(&[&import[..], &["--crl", "old.crl"]].concat()).expect_success("import");
    site.pki(&["server", NAME]).expect_success("server");
    site.pki(&["client", "new"]).expect_success("client");
    site.verify("pki/clients/new/client.crt").expect_success("openssl verify of the new client");

    let upstream = Upstream::start();
    let gateway = site.gateway(&upstream.url());
    let root = site.path("ca.crt").display().to_string();
    let served = |identity: &pki::Identity| {
        curl(&gateway, &root, &identity.chain.to_string_lossy(), &identity.key.to_string_lossy())
    };
    site.curl(&gateway, "pki/clients/new").expect_success("a client made here");
    for client in &clients {
        served(client).expect_success("a client made by openssl");
    }
    assert!(served(&gone).stderr.contains("revoked"), "the old revocation holds");
    // One that nobody wrote down can be revoked by its certificate.
    let file = clients[2].certificate.display().to_string();
    site.pki(&["revoke", "--certificate", &file]).expect_success("revoke --certificate");
    gateway.write("ca.crl", site.text("pki/ca.crl"));
    gateway.reload_ok();
    assert!(served(&clients[2]).stderr.contains("revoked"));
    assert!(site.pki(&["list", "--all"]).text().contains("CN=both"));
    let foreign = pki::Ca::root(site.0.path(), "Old CA").issue(&pki::client("x"));
    let refused = site.pki(&["revoke", "--certificate", &foreign.certificate.to_string_lossy()]);
    assert!(refused.code == Some(1) && refused.stderr.contains("not signed by this PKI"), "{}", refused.all());
}

/// Runs easy-rsa in `site`, where it keeps its PKI in `easy`.
fn easyrsa(site: &Site, program: &str, arguments: &[&str]) {
    let directory = site.path("easy").display().to_string();
    let quiet = ["--batch", &format!("--pki-dir={directory}")].map(str::to_owned);
    let all: Vec<&str> = quiet.iter().map(String::as_str).chain(arguments.iter().copied()).collect();
    site.run(program, &all).expect_success(&format!("easyrsa {arguments:?}"));
}

#[test]
fn certificates_of_easy_rsa_are_accepted_and_its_ca_can_be_taken_over() {
    let program = "/usr/share/easy-rsa/easyrsa";
    if !Path::new(program).try_exists().is_ok_and(|there| there) {
        skip::skipped("easy-rsa is not installed");
        return;
    }
    let site = Site::new();
    easyrsa(&site, program, &["init-pki"]);
    easyrsa(&site, program, &["--req-cn=Easy CA", "build-ca", "nopass"]);
    easyrsa(&site, program, &[&format!("--subject-alt-name=DNS:{NAME}"), "build-server-full", "server", "nopass"]);
    for client in ["kept", "gone"] {
        easyrsa(&site, program, &["build-client-full", client, "nopass"]);
    }
    easyrsa(&site, program, &["gen-crl"]);
    // easy-rsa takes away what it revokes.
    for client in ["kept", "gone"] {
        for (from, to) in [("issued", "crt"), ("private", "key")] {
            let from = site.path("easy").join(from).join(format!("{client}.{to}"));
            fs::copy(from, site.path(&format!("{client}.{to}"))).expect("copied");
        }
    }
    let upstream = Upstream::start();
    let gateway = gateway()
        .upstream(upstream.url())
        .file("server.crt", &site.text("easy/issued/server.crt"))
        .file("server.key", &site.text("easy/private/server.key"))
        .file("client-ca.pem", &site.text("easy/ca.crt"))
        .crl(&site.text("easy/crl.pem"))
        .start();
    let file = |name: &str| site.path("easy").join(name).display().to_string();
    let served = |name: &str| {
        let own = |kind: &str| site.path(&format!("{name}.{kind}")).display().to_string();
        curl(&gateway, &file("ca.crt"), &own("crt"), &own("key"))
    };
    served("kept").expect_success("a client of easy-rsa");
    served("gone").expect_success("a client of easy-rsa");
    let publish = |list: &str| {
        gateway.write("ca.crl", site.text(list));
        gateway.reload_ok();
    };
    easyrsa(&site, program, &["revoke", "gone"]);
    easyrsa(&site, program, &["gen-crl"]);
    publish("easy/crl.pem");
    assert!(served("gone").stderr.contains("revoked"));

    let (certificate, key) = (file("ca.crt"), file("private/ca.key"));
    let import = ["import", "--certificate", &certificate, "--key", &key, "--index", &file("index.txt")];
    site.pki(&import).expect_success("import");
    publish("pki/ca.crl");
    assert!(served("gone").stderr.contains("revoked"), "the revocation came along");
    served("kept").expect_success("the other client");
    site.pki(&["revoke", "kept"]).expect_success("revoke by the name in easy-rsa's database");
    publish("pki/ca.crl");
    assert!(served("kept").stderr.contains("revoked"));
}
