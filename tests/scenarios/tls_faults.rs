//! Every fault of a client certificate: the alert that an independent client reads, and that nothing gets further.

use crate::support::gateway::{Gateway, NAME, gateway};
use crate::support::pki::{self, Ca, Identity, Key};
use crate::support::process::{self, Finished};
use crate::support::upstream::Upstream;
use std::time::{Duration, Instant};

const BAD_CERTIFICATE: u16 = 42;
const UNSUPPORTED: u16 = 43;
const REVOKED: u16 = 44;
const EXPIRED: u16 = 45;
const UNKNOWN: u16 = 46;
const ILLEGAL_PARAMETER: u16 = 47;
const UNKNOWN_CA: u16 = 48;
const DECRYPT_ERROR: u16 = 51;

/// The alerts that say "this certificate", for faults that RFC 8446 doesn't give one of their own.
const BAD: &[u16] = &[BAD_CERTIFICATE, UNSUPPORTED, UNKNOWN, UNKNOWN_CA];

/// Connects by `openssl s_client`, sends a request and returns what the command shows.
pub fn s_client(gateway: &Gateway, identity: Option<&Identity>, more: &[&str]) -> Finished {
    let address = gateway.address().to_string();
    let ca = gateway.server_ca.certificate.to_string_lossy().into_owned();
    let mut arguments = vec![
        "s_client",
        "-connect",
        &address,
        "-servername",
        NAME,
        "-CAfile",
        &ca,
        "-ign_eof",
        "-cipher",
        // The client itself must not refuse the weak certificates it is to present.
        "DEFAULT@SECLEVEL=0",
    ];
    let paths = identity.map(|i| [&i.certificate, &i.key].map(|path| path.to_string_lossy().into_owned()));
    let above = identity.and_then(|i| i.intermediates.as_ref()).map(|path| path.to_string_lossy().into_owned());
    if let Some([certificate, key]) = &paths {
        arguments.extend(["-cert", certificate, "-key", key]);
    }
    if let Some(above) = &above {
        arguments.extend(["-cert_chain", above]);
    }
    arguments.extend(more);
    let request = b"GET /v2/a/manifests/v1 HTTP/1.1\r\nHost: gw.test\r\nConnection: close\r\n\r\n";
    process::run("openssl", &arguments, request, Duration::from_secs(10))
}

/// The number of the alert that s_client shows.
pub fn alert(finished: &Finished) -> Option<u16> {
    let text = finished.all();
    let (_, after) = text.split_once("SSL alert number ")?;
    after.split_whitespace().next()?.parse().ok()
}

#[track_caller]
fn assert_refused(
    upstream: &Upstream,
    gateway: &Gateway,
    what: &str,
    identity: Option<&Identity>,
    alerts: &[u16],
    result: &str,
) {
    for version in ["-tls1_3", "-tls1_2"] {
        let count = |result: &str| gateway.metric("portcullis_handshakes_total", &[("result", result)]).unwrap_or(0.0);
        let counted = || result.split('|').map(count).sum::<f64>();
        let before = counted();
        let shown = s_client(gateway, identity, &[version]);
        let text = shown.all();
        assert!(!text.contains("HTTP/1.1"), "{what} {version} was answered: {text}");
        let alert = alert(&shown);
        assert!(alert.is_some_and(|a| alerts.contains(&a)), "{what} {version}: {alert:?}, not {alerts:?}: {text}");
        let end = Instant::now() + Duration::from_secs(5);
        while counted() <= before {
            assert!(Instant::now() < end, "{what} {version} is not counted as {result}: {}", gateway.metrics());
            std::thread::sleep(Duration::from_millis(10));
        }
        upstream.assert_untouched(what);
    }
}

/// A gateway, its upstream, and an identity made by `make` from the trusted CA.
fn refused(what: &str, alerts: &[u16], result: &str, make: impl FnOnce(&Ca) -> Identity) {
    let upstream = Upstream::start();
    let builder = gateway().upstream(upstream.url());
    let identity = make(&builder.client_ca);
    let gateway = builder.start();
    assert_refused(&upstream, &gateway, what, Some(&identity), alerts, result);
    assert_eq!(gateway.h1().get("/v2/").status, 200, "others are served");
}

#[test]
fn a_good_certificate_is_served() {
    let (upstream, gateway) = crate::open_gateway();
    for version in ["-tls1_3", "-tls1_2"] {
        let shown = s_client(&gateway, Some(gateway.identity()), &[version]);
        assert!(shown.text().contains("HTTP/1.1 200"), "{}", shown.all());
    }
    assert_eq!(upstream.take().len(), 2);
}

#[test]
fn no_certificate() {
    let (upstream, gateway) = crate::open_gateway();
    assert_refused(&upstream, &gateway, "no certificate", None, &[116, 40], "no_certificate");
}

#[test]
fn a_foreign_ca() {
    refused("a foreign CA", &[UNKNOWN_CA], "unknown_ca", |ca| {
        let directory = ca.certificate.parent().expect("files have a directory");
        Ca::root(directory, "Foreign CA").issue(&pki::client("ci-7"))
    });
}

#[test]
fn a_foreign_ca_of_the_same_name() {
    let upstream = Upstream::start();
    let gateway = gateway().upstream(upstream.url()).start();
    let directory = gateway.path().join("pki");
    let posing = Ca::root(&directory, "Test Client CA").issue(&pki::client("ci-7"));
    for version in ["-tls1_3", "-tls1_2"] {
        let shown = s_client(&gateway, Some(&posing), &[version]);
        let alert = alert(&shown);
        let alerts = [UNKNOWN_CA, DECRYPT_ERROR, BAD_CERTIFICATE];
        assert!(alert.is_some_and(|a| alerts.contains(&a)), "{alert:?}: {}", shown.all());
    }
    upstream.assert_untouched("a CA of the same name with another key");
}

#[test]
fn a_self_signed_certificate() {
    refused("self-signed", &[UNKNOWN_CA], "unknown_ca", |ca| {
        let directory = ca.certificate.parent().expect("files have a directory");
        let own = Ca::root_with(directory, &pki::client("ci-7"));
        Identity { chain: own.certificate.clone(), certificate: own.certificate, intermediates: None, key: own.key }
    });
}

#[test]
fn an_expired_certificate() {
    refused("expired", &[EXPIRED], "expired", |ca| ca.issue(&pki::client("ci-7").expired()));
}

#[test]
fn a_certificate_not_yet_valid() {
    refused("not yet valid", &[BAD_CERTIFICATE, EXPIRED], "not_yet_valid", |ca| {
        ca.issue(&pki::client("ci-7").not_yet_valid())
    });
}

#[test]
fn an_expired_intermediate() {
    refused("an expired intermediate", &[EXPIRED], "expired", |ca| {
        let profile = pki::Profile::new("Old")
            .extension("basicConstraints=critical,CA:TRUE")
            .extension("keyUsage=critical,keyCertSign")
            .expired();
        ca.intermediate_with(&profile).issue(&pki::client("ci-7"))
    });
}

#[test]
fn a_server_certificate() {
    refused("a server's certificate", BAD, "wrong_usage", |ca| {
        ca.issue(&pki::client("ci-7").extension("extendedKeyUsage=serverAuth"))
    });
}

#[test]
fn a_key_usage_that_cannot_sign() {
    refused("key usage", &[BAD_CERTIFICATE, UNSUPPORTED, UNKNOWN, ILLEGAL_PARAMETER], "wrong_usage", |ca| {
        ca.issue(&pki::client("ci-7").extension("keyUsage=critical,keyEncipherment"))
    });
}

#[test]
fn a_ca_certificate_as_the_clients_own() {
    refused("a CA as leaf", BAD, "ca_as_leaf", |ca| {
        let profile = pki::client("ci-7")
            .extension("basicConstraints=critical,CA:TRUE")
            .extension("keyUsage=critical,digitalSignature,keyCertSign");
        ca.issue(&profile)
    });
}

#[test]
fn a_path_longer_than_its_constraint() {
    refused("path length", BAD, "bad_path|unknown_ca", |ca| {
        ca.intermediate("Last", &["basicConstraints=critical,CA:TRUE,pathlen:0"])
            .intermediate("One too many", &[])
            .issue(&pki::client("ci-7"))
    });
}

#[test]
fn an_issuer_that_is_no_ca() {
    refused("an issuer without CA:TRUE", BAD, "bad_path|unknown_ca", |ca| {
        ca.intermediate_with(&pki::client("leaf")).issue(&pki::client("ci-7"))
    });
}

#[test]
fn a_path_deeper_than_configured() {
    let upstream = Upstream::start();
    let builder = gateway().upstream(upstream.url()).configure(|c| c["listeners"][0]["tls"]["verify_depth"] = 1.into());
    let one = builder.client_ca.intermediate("One", &[]);
    let good = one.issue(&pki::client("ci-7"));
    let deep = one.intermediate("Two", &[]).issue(&pki::client("ci-7"));
    let gateway = builder.start();
    assert_eq!(gateway.h1_as(&good).get("/v2/").status, 200);
    upstream.take();
    assert_refused(&upstream, &gateway, "too deep", Some(&deep), BAD, "bad_path|unknown_ca");
}

#[test]
fn a_name_outside_the_issuers_constraints() {
    refused("name constraints", BAD, "name_constraints", |ca| {
        ca.intermediate("Constrained", &["nameConstraints=critical,permitted;DNS:team-a.example"])
            .issue(&pki::bare_client("ci-7").san("DNS:admin.example"))
    });
}

#[test]
fn a_sha1_signature() {
    refused("SHA-1", BAD, "weak_signature", |ca| ca.issue(&pki::client("ci-7").sha1()));
}

#[test]
fn a_short_rsa_key() {
    refused("RSA-1024", BAD, "weak_key", |ca| ca.issue(&pki::client("ci-7").key(Key::Rsa(1024))));
}

#[test]
fn a_version_1_certificate_unless_allowed() {
    refused("version 1", BAD, "version_1", |ca| ca.issue(&pki::Profile::new("ci-7").version1()));
    let upstream = Upstream::start();
    let gateway =
        gateway().upstream(upstream.url()).configure(|c| c["listeners"][0]["tls"]["allow_v1"] = true.into()).start();
    let old = gateway.client_ca.issue(&pki::Profile::new("ci-7").version1());
    assert_eq!(gateway.h1_as(&old).get("/v2/").status, 200);
}

#[test]
fn an_extension_twice() {
    refused("duplicate extension", BAD, "duplicate_extension", |ca| ca.with_repeated_extension(&pki::client("ci-7")));
}

#[test]
fn a_certificate_without_any_name() {
    refused("no usable name", BAD, "no_usable_name", |ca| ca.issue(&pki::bare_client("a").attribute("CN", "b")));
}

#[test]
fn an_absent_usage_is_accepted_unless_required() {
    for (required, served) in [(false, true), (true, false)] {
        let upstream = Upstream::start();
        let gateway = gateway()
            .upstream(upstream.url())
            .configure(|c| c["listeners"][0]["tls"]["require_eku"] = required.into())
            .start();
        let identity = gateway.client_ca.issue(&pki::client("ci-7").without("extendedKeyUsage"));
        if served {
            assert_eq!(gateway.h1_as(&identity).get("/v2/").status, 200);
        } else {
            assert_refused(&upstream, &gateway, "no EKU", Some(&identity), BAD, "wrong_usage");
        }
    }
}

#[test]
fn a_revoked_certificate() {
    let upstream = Upstream::start();
    let builder = gateway().upstream(upstream.url());
    let identity = builder.client_ca.issue(&pki::client("ci-8"));
    let list = builder.client_ca.crl().revoke(&identity.certificate).pem();
    let gateway = builder.crl(&list).start();
    assert_refused(&upstream, &gateway, "revoked", Some(&identity), &[REVOKED], "revoked");
    assert_eq!(gateway.h1().get("/v2/").status, 200, "others are served");
}

#[test]
fn a_chain_bomb_is_bounded() {
    let upstream = Upstream::start();
    let gateway = gateway().upstream(upstream.url()).start();
    // Names that fill more than the 32 KiB a client may send.
    let many = (0..1_500).fold(pki::client("ci-7"), |p, i| p.san(&format!("DNS:host-{i:04}.some.long.name.example")));
    let bomb = gateway.client_ca.issue(&many);
    for version in ["-tls1_3", "-tls1_2"] {
        let shown = s_client(&gateway, Some(&bomb), &[version]);
        assert!(!shown.text().contains("HTTP/1.1"), "{}", shown.all());
    }
    upstream.assert_untouched("a certificate larger than allowed");
    assert_eq!(gateway.h1().get("/v2/").status, 200, "others are served");
}

#[test]
fn curl_shows_the_reason() {
    let upstream = Upstream::start();
    let builder = gateway().upstream(upstream.url());
    let revoked = builder.client_ca.issue(&pki::client("ci-8"));
    let list = builder.client_ca.crl().revoke(&revoked.certificate).pem();
    let gateway = builder.crl(&list).start();
    let expired = gateway.client_ca.issue(&pki::client("ci-9").expired());
    let url = format!("https://{NAME}:{}/v2/", gateway.address().port());
    let resolve = format!("{NAME}:{}:127.0.0.1", gateway.address().port());
    let ca = gateway.server_ca.certificate.to_string_lossy().into_owned();
    let curl = |identity: Option<&Identity>, version: &str| {
        let mut arguments = vec!["-sS", "--noproxy", "*", version, "--resolve", &resolve, "--cacert", &ca, &url];
        let paths = identity.map(|i| [&i.chain, &i.key].map(|p| p.to_string_lossy().into_owned()));
        if let Some([chain, key]) = &paths {
            arguments.extend(["--cert", chain, "--key", key]);
        }
        process::run("curl", &arguments, b"", Duration::from_secs(15))
    };
    for version in ["--http1.1", "--http2"] {
        // Three times, since an alert can be lost to a race.
        for _ in 0..3 {
            let text = curl(Some(&revoked), version).all();
            assert!(text.contains("certificate revoked"), "{text}");
            let text = curl(Some(&expired), version).all();
            assert!(text.contains("certificate expired"), "{text}");
            let text = curl(None, version).all();
            assert!(text.contains("certificate required"), "{text}");
        }
        curl(Some(gateway.identity()), version).expect_success("curl");
    }
}
