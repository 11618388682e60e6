//! Rules under circumstances, and captures, as clients meet them.

use crate::support::client::H1;
use crate::support::gateway::{Gateway, gateway};
use crate::support::pki;
use crate::support::upstream::Upstream;

fn pulls_when(when: &str) -> String {
    format!(
        "rules:\n  - {{ name: r, subjects: [any], repositories: ['**'], actions: [pull], effect: allow, when: {when} }}\n"
    )
}

fn status(gateway: &Gateway, policy: &str) -> u16 {
    gateway.write("policy.yaml", policy);
    gateway.reload_ok();
    let [h1, h2] = gateway.both().map(|mut client| client.get("/v2/app/tags/list").status);
    assert_eq!(h1, h2, "{policy}");
    h1
}

#[test]
fn rules_apply_where_and_when_they_say() {
    let upstream = Upstream::start();
    // Test certificates are good for thirty days.
    let gateway = gateway().upstream(upstream.url()).start();
    for (when, expected) in [
        ("{ client: [127.0.0.0/8] }", 200),
        ("{ client: [10.0.0.0/8, '::1'] }", 403),
        ("{ until: '2020-01-01T00:00:00Z' }", 403),
        ("{ from: '2020-01-01T00:00:00Z' }", 200),
        ("{ from: '2020-01-01T00:00:00Z', until: '9999-01-01T00:00:00+02:00' }", 200),
        ("{ hours: [{ from: '00:00' }] }", 200),
        ("{ hours: [{ days: [mon, tue, wed, thu, fri, sat, sun] }], client: [192.0.2.0/24] }", 403),
        ("{ certificate_lifetime: { at_least: 1d } }", 200),
        ("{ certificate_lifetime: { at_least: 60d } }", 403),
        ("{ certificate_lifetime: { at_most: 60d } }", 200),
        ("{ min_tls_version: '1.3' }", 200),
    ] {
        upstream.take();
        assert_eq!(status(&gateway, &pulls_when(when)), expected, "{when}");
        assert_eq!(upstream.take().len(), if expected == 200 { 2 } else { 0 }, "{when}");
    }
    let older = |newest: &str| {
        gateway.write("policy.yaml", pulls_when(&format!("{{ min_tls_version: '{newest}' }}")));
        gateway.reload_ok();
        let mut client = H1::connect(&gateway.tls().tls12()).expect("TLS 1.2 is accepted");
        client.get("/v2/app/tags/list").status
    };
    assert_eq!((older("1.2"), older("1.3")), (200, 403));
    let record = gateway.wait_for_record(|r| r["tls_version"] == "TLSv1.2" && r["status"] == 403);
    assert_eq!(record["decision"], "deny");
}

#[test]
fn mistakes_in_circumstances_and_captures_have_their_line() {
    let gateway = gateway().upstream("http://127.0.0.1:9").start();
    let policy = "groups:
  teams: [{ uri: 'spiffe://corp.example/team/{team}/*' }, { dns: '*.ci.example' }]
  broken: [{ uri: 'spiffe://corp.example/**/{team}' }]
rules:
  - name: a
    subjects: [teams]
    repositories: ['${team}/**', '${taem}/**']
    actions: [pull]
    effect: allow
    when:
      client: [10.0.0.1/8]
      until: tomorrow
      hours: [{ zone: Europe/Berlin, days: [mon] }]
";
    gateway.write("policy.yaml", policy);
    let told = gateway.reload_refused();
    for expected in [
        "policy.yaml:3: groups.broken[0].uri: a capture behind a **",
        "policy.yaml:7: rules[0].repositories[0]: \\\"${team}\\\" is not captured by groups.teams[1]",
        "policy.yaml:7: rules[0].repositories[1]: unknown placeholder",
        "policy.yaml:11: rules[0].when.client[0]: ",
        "policy.yaml:12: rules[0].when.until: ",
        "policy.yaml:13: rules[0].when.hours[0].zone: ",
    ] {
        assert!(told.contains(expected) || told.contains(&expected.replace("\\\"", "\"")), "{expected}\n{told}");
    }
}

#[test]
fn captures_bind_repositories_to_what_the_group_says_of_its_members() {
    let policy = "
groups:
  teams:
    - uri: 'spiffe://corp.example/team/{team}/*'
    - dns: '*.{team}.ci.example'
rules:
  - { name: own, subjects: [teams], repositories: ['team/${team}/**'], actions: [pull], effect: allow }
";
    let upstream = Upstream::start();
    let gateway = gateway().policy(policy).upstream(upstream.url()).start();
    let issue = |names: &[&str]| {
        let profile = names.iter().fold(pki::bare_client("x"), |profile, name| profile.san(name));
        gateway.client_ca.issue(&profile)
    };
    let red = issue(&["URI:spiffe://corp.example/team/red/build"]);
    let host = issue(&["DNS:a.red.ci.example"]);
    let agreeing = issue(&["URI:spiffe://corp.example/team/red/build", "DNS:a.red.ci.example"]);
    let contradicting = issue(&["URI:spiffe://corp.example/team/red/build", "DNS:a.blue.ci.example"]);
    let two = issue(&["URI:spiffe://corp.example/team/red/build", "URI:spiffe://corp.example/team/blue/build"]);
    let deeper = issue(&["URI:spiffe://corp.example/team/red/x/build"]);
    let odd = issue(&["URI:spiffe://corp.example/team/Red/build"]);
    for (identity, red, blue) in [
        (&red, 200, 403),
        (&host, 200, 403),
        (&agreeing, 200, 403),
        (&contradicting, 403, 403),
        (&two, 403, 403),
        (&deeper, 403, 403),
        (&odd, 403, 403),
    ] {
        for mut client in gateway.both_as(identity) {
            for (team, expected) in [("red", red), ("blue", blue), ("red-evil", 403)] {
                let reply = client.get(&format!("/v2/team/{team}/app/tags/list"));
                assert_eq!(reply.status, expected, "{team}: {}", reply.text());
            }
        }
    }
}
