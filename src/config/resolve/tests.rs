use super::address::{Scheme, endpoint, is_host_name};
use super::*;
use crate::config::secret::Secret;
use crate::config::settings::{AdminAddress, Authorization, Endpoint};

/// A configuration that is as short as possible, with what a case adds to its parts.
#[derive(Default)]
struct Case {
    listener: &'static str,
    tls: &'static str,
    upstream: &'static str,
    rest: &'static str,
}

impl Case {
    fn text(&self) -> String {
        format!(
            "listeners:\n- addresses: ['127.0.0.1:0']\n  tls:\n    certificates: [{{ certificate: a, key: b }}]\n    \
             client_ca: c\n    {}\n  {}\nupstreams:\n- name: r\n  {}\n  {}\npolicy: p\n{}\n",
            self.tls,
            self.listener,
            if self.upstream.contains("urls:") { "" } else { "urls: ['http://localhost:5000']" },
            self.upstream,
            self.rest
        )
    }

    fn resolved(&self) -> Resolved {
        resolved(&self.text())
    }
}

fn resolved(text: &str) -> Resolved {
    let config: Config = serde_yaml::from_str(text).expect(text);
    let secrets = |_: &Path| Ok(SecretFile { secret: Secret::new("x".to_owned()), exposed: false });
    resolve(&config, Path::new("/etc/portcullis/portcullis.yaml"), &secrets)
}

fn listener(listener: &'static str) -> Case {
    Case { listener, ..Case::default() }
}

fn tls(tls: &'static str) -> Case {
    Case { tls, ..Case::default() }
}

fn upstream(upstream: &'static str) -> Case {
    Case { upstream, ..Case::default() }
}

fn rest(rest: &'static str) -> Case {
    Case { rest, ..Case::default() }
}

fn lines(faults: &[Fault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn each_contradiction_is_named_by_its_key() {
    let cases = [
        (listener("name: a b"), "listeners[0].name: \"a b\" is no name"),
        (listener("upstream: x"), "listeners[0].upstream: there is no upstream \"x\"; add it"),
        (tls("ciphers: ' '"), "listeners[0].tls.ciphers: this is no cipher list"),
        (tls("max_client_chain: 1B"), "listeners[0].tls.max_client_chain: 1B is too small; at least 1KiB"),
        (tls("max_client_chain: 1GiB"), "listeners[0].tls.max_client_chain: 1GiB is too large; at most 1MiB"),
        (tls("ticket_key_lifetime: 1s"), "listeners[0].tls.ticket_key_lifetime: 1s is too short; at least 1m"),
        (tls("ticket_key_lifetime: 60d"), "ticket_key_lifetime: 1440h is too long; at most 168h"),
        (upstream("host: 'a/b'"), "upstreams[0].host: this is no host"),
        (upstream("hosts: ['a:443']"), "upstreams[0].hosts[0]: \"a:443\" is no host"),
        (
            upstream("hosts: [a.b, A.B]"),
            "upstreams[0].hosts[1]: the host \"a.b\" is already given at upstreams[0].hosts[0]",
        ),
        (upstream("repositories: [Team]"), "upstreams[0].repositories[0]: \"Team\" is no repository prefix"),
        (upstream("repositories: [a, a/]"), "upstreams[0].repositories[1]: the repository prefix \"a\" is already"),
        (upstream("repositories: ['a//b']"), "is no repository prefix"),
        (upstream("repositories: ['../a']"), "is no repository prefix"),
        (upstream("tls: { ca: x }"), "upstreams[0].tls.ca: this has no effect without an https URL"),
        (upstream("authorization: replace"), "upstreams[0].credentials: authorization: replace needs"),
        (upstream("credentials: { username: a, password_file: b }"), "upstreams[0].credentials: these are not used"),
        (rest("uploads: { bind: false, key_file: b }"), "uploads.key_file: this is not used"),
        (
            upstream("authorization: replace\n  credentials: { username: 'a:b', password_file: b }"),
            "upstreams[0].credentials.username: this is no user name",
        ),
        (upstream("redirect_hosts: [storage]"), "upstreams[0].redirect_hosts[0]: this is no host"),
        (
            upstream("redirect_hosts: ['https://a', 'https://A:443/']"),
            "upstreams[0].redirect_hosts[1]: this host is listed twice",
        ),
        (upstream("redirects: follow"), "upstreams[0].redirect_hosts: redirects: follow needs the hosts"),
        (
            upstream("redirects: follow\n  redirect_hosts: ['https://10.0.0.1']"),
            "upstreams[0].redirect_hosts[0]: no certificate can be asked for an IP address",
        ),
        (upstream("redirect_ca: x"), "upstreams[0].redirect_ca: this has no effect without redirects: follow"),
        (
            upstream("redirects: follow\n  redirect_ca: x\n  redirect_hosts: ['http://a']"),
            "upstreams[0].redirect_ca: this has no effect without redirects: follow and a host with https",
        ),
        (upstream("timeouts: { connect: 0s }"), "upstreams[0].timeouts.connect: 0s is too short; at least 10ms"),
        (upstream("timeouts: { idle: 300d }"), "upstreams[0].timeouts.idle: 7200h is too long; at most 24h"),
        (upstream("health_check: { path: v2 }"), "upstreams[0].health_check.path: this is no path"),
        (upstream("health_check: { path: \"/a b\" }"), "upstreams[0].health_check.path: this is no path"),
        (
            upstream("health_check: { timeout: 6s }"),
            "health_check.timeout: this must be no longer than the interval (5s)",
        ),
        (rest("admin: { address: '0.0.0.0:1' }"), "admin.address: other machines could reach this"),
        (rest("admin: { address: '[::]:1' }"), "admin.address: other machines could reach this"),
        (rest("admin: { address: localhost }"), "admin.address: \"localhost\" is no IP address with a port"),
        (rest("admin: { address: 'unix:' }"), "admin.address: an empty path"),
        (rest("health: { address: '9090' }"), "health.address: \"9090\" is no IP address with a port"),
        (rest("limits: { handshake_timeout: 0s }"), "limits.handshake_timeout: 0s is too short"),
        (rest("limits: { h2_upload_memory: 1KiB }"), "limits.h2_upload_memory: 1KiB is too small; at least 1MiB"),
        (rest("reload: { quiet: 1s }"), "reload.max_delay: this must be at least as long as quiet (1s)"),
        (rest("state_directory: ''"), "state_directory: an empty path"),
    ];
    assert_named(&cases);
}

#[test]
fn each_contradiction_of_a_source_of_lists_is_named_by_its_key() {
    let cases = [
        (rest("revocation: { crls: [{}] }"), "revocation.crls[0]: give one of file, directory and url"),
        (rest("revocation: { crls: [{ file: a, directory: b }] }"), "revocation.crls[0]: give one of"),
        (rest("revocation: { crls: [{ url: 'ftp://x/y' }] }"), "revocation.crls[0].url: this is no URL of a list"),
        (rest("revocation: { crls: [{ file: a, refresh: 1m }] }"), "revocation.crls[0].refresh: this has no effect"),
        (rest("revocation: { crls: [{ url: 'http://x/y', ca: b }] }"), "revocation.crls[0].ca: this has no effect"),
        (
            rest("revocation: { crls: [{ url: 'http://x/y', refresh: 1ms }] }"),
            "revocation.crls[0].refresh: 1ms is too short",
        ),
        (
            rest("revocation: { crls: [{ url: 'http://x/y', max_size: 1GiB }] }"),
            "revocation.crls[0].max_size: 1GiB is too large",
        ),
        (
            rest("revocation: { crls: [{ url: 'http://x/y' }, { url: 'http://x/y' }] }"),
            "revocation.crls[1]: the source",
        ),
        (rest("revocation: { crls: [{ file: a, issuer: '' }] }"), "revocation.crls[0].issuer: an empty subject"),
        (rest("revocation: { crls: [{ file: a }, { file: a }] }"), "revocation.crls[1]: the source"),
    ];
    assert_named(&cases);
}

fn assert_named(cases: &[(Case, &str)]) {
    for (case, expected) in cases {
        let resolved = case.resolved();
        let found = lines(&resolved.errors);
        assert!(found.contains(expected), "{}\n{found}", case.text());
        assert_eq!(resolved.errors.len(), 1, "{found}");
        assert!(resolved.settings.is_none());
    }
}

#[test]
fn contradictions_between_parts_come_all_at_once() {
    let pair = "certificates: [{ certificate: a, key: b, names: ['*.a', 'a.*'] }], client_ca: c";
    let text = format!(
        "listeners:\n\
         - {{ name: x, addresses: ['127.0.0.1:443', here], tls: {{ {pair} }} }}\n\
         - {{ name: x, addresses: ['127.0.0.1:443'], upstream: registrry, tls: {{ {pair} }} }}\n\
         upstreams:\n\
         - {{ name: registry, urls: ['http://a:1', 'https://a'] }}\n\
         - {{ name: registry, urls: ['https://10.0.0.1', 'https://10.0.0.1'], tls: {{ key: k }} }}\n\
         policy: p\n"
    );
    let mut found: Vec<_> = resolved(&text).errors.iter().map(|fault| fault.path.clone()).collect();
    found.sort();
    let expected = [
        "listeners[0].addresses[1]",
        "listeners[0].tls.certificates[0].names[1]",
        "listeners[0].upstream",
        "listeners[1].addresses[0]",
        "listeners[1].name",
        "listeners[1].tls.certificates[0].names[1]",
        "listeners[1].upstream",
        "upstreams[0].urls",
        "upstreams[1].name",
        "upstreams[1].tls.certificate",
        "upstreams[1].tls.server_name",
        "upstreams[1].urls[1]",
    ];
    assert_eq!(found, expected);
    let errors = lines(&resolved(&text).errors);
    assert!(errors.contains("did you mean \"registry\"?"), "{errors}");
}

#[test]
fn urls_are_read_strictly() {
    let tcp = |host: &str, port| Endpoint::Tcp { host: host.to_owned(), port };
    let good = [
        ("http://127.0.0.1:5000", Scheme::Http, tcp("127.0.0.1", 5000)),
        ("http://Registry.Example:80/", Scheme::Http, tcp("registry.example", 80)),
        ("http://my_registry:5000", Scheme::Http, tcp("my_registry", 5000)),
        ("https://registry", Scheme::Https, tcp("registry", 443)),
        ("https://[::1]:5443", Scheme::Https, tcp("::1", 5443)),
        ("unix:///run/registry.sock", Scheme::Unix, Endpoint::Unix("/run/registry.sock".into())),
    ];
    for (url, scheme, expected) in good {
        assert_eq!(endpoint(url), Ok((scheme, expected)), "{url}");
    }
    let bad = [
        "",
        "registry:5000",
        "http://",
        "http://registry",
        "http://:5000",
        "http://a:0",
        "http://a:+5",
        "http://a:005",
        "http://a:65536",
        "http://a:5000/v2/",
        "http://a:5000?x",
        "http://a:5000#x",
        "http://::1:5000",
        "http://[::1",
        "http://[a]:1",
        "http://[::1]5000",
        "ftp://a:21",
        "HTTP://a:1",
        "http://a b:1",
        "http://-a:1",
        "http://127.1:1",
        "http://a..b:1",
        "unix://run/x",
        "unix:///",
        "unix:/run/x",
        "http://a:1\r\n",
    ];
    for url in bad {
        assert!(endpoint(url).is_err(), "{url}");
    }
}

#[test]
fn a_password_in_a_url_is_refused_and_not_repeated() {
    let case = upstream("urls: ['https://user:hunter2@registry']");
    let found = lines(&case.resolved().errors);
    assert!(found.contains("upstreams[0].urls[0]: credentials don't belong in a URL"), "{found}");
    assert!(!found.contains("hunter2"), "{found}");
}

#[test]
fn addresses_print_as_they_are_written() {
    for (url, shown) in [("http://[::1]:5000", "[::1]:5000"), ("https://a", "a:443"), ("unix:///x", "unix:/x")] {
        assert_eq!(endpoint(url).map(|(_, endpoint)| endpoint.to_string()), Ok(shown.to_owned()));
    }
}

#[test]
fn the_admin_listener_may_be_on_any_loopback_or_a_socket() {
    for (text, loopback) in
        [("127.0.0.1:1", true), ("127.8.0.1:1", true), ("[::1]:1", true), ("[::ffff:127.0.0.1]:1", true)]
    {
        let yaml = format!("{}admin: {{ address: '{text}' }}\n", Case::default().text());
        let admin = resolved(&yaml).settings.and_then(|settings| settings.admin);
        assert_eq!(admin.is_some_and(|admin| admin.address.is_local()), loopback, "{text}");
    }
    let settings = rest("admin: { address: 'unix:admin.sock' }").resolved().settings.expect("valid");
    let address = settings.admin.map(|admin| admin.address);
    assert_eq!(address, Some(AdminAddress::Unix("/etc/portcullis/admin.sock".into())));
    let settings = rest("admin: { address: null }\nhealth: { address: }\naccess_log: { path: null }").resolved();
    let settings = settings.settings.expect("valid");
    assert_eq!((settings.admin, settings.health, settings.access_log), (None, None, None));
}

#[test]
fn https_has_a_name_to_verify() {
    let verified = |text| upstream(text).resolved().settings.map(|settings| settings.upstreams[0].tls.clone());
    assert!(verified("urls: ['https://10.0.0.1']").is_none(), "no name to verify");
    let tls = verified("urls: ['https://10.0.0.1']\n  tls: { server_name: A.b }").flatten().expect("valid");
    assert_eq!(tls.server_name.as_deref(), Some("a.b"));
    let tls = verified("urls: ['https://a']\n  tls: { certificate: c, key: k }").flatten().expect("valid");
    assert!(tls.client.is_some() && tls.server_name.is_none());
}

#[test]
fn secrets_in_clear_over_a_network_are_warned_of() {
    let cases = [
        ("urls: ['http://registry:5000']\n  authorization: pass", 1),
        ("urls: ['http://registry:5000']", 0),
        ("urls: ['https://registry']\n  authorization: pass", 0),
        ("urls: ['http://127.0.0.1:5000', 'http://[::1]:5000', 'http://localhost:1']\n  authorization: pass", 0),
        ("urls: ['unix:///run/registry.sock']\n  authorization: pass", 0),
    ];
    for (text, warnings) in cases {
        let resolved = upstream(text).resolved();
        assert_eq!((lines(&resolved.errors), resolved.warnings.len()), (String::new(), warnings), "{text}");
    }
}

#[test]
fn credentials_are_read_when_they_replace_the_clients() {
    let case = upstream("authorization: replace\n  credentials: { username: a, password_file: b }");
    let settings = case.resolved().settings.expect("valid");
    let Authorization::Replace(credentials) = &settings.upstreams[0].authorization else { panic!("replace") };
    assert_eq!((credentials.username.as_str(), credentials.password.expose().as_str()), ("a", "x"));
    assert_eq!(credentials.password_file, Path::new("/etc/portcullis/b"));
}

#[test]
fn host_names_are_those_that_resolvers_take_for_names() {
    for name in ["a", "registry.example.com", "a-b.c", "my_host", "1a.b1", "3com.com"] {
        assert!(is_host_name(name), "{name}");
    }
    let long = "a".repeat(64);
    for name in ["", ".", "a.", ".a", "a..b", "-a", "a-", "a b", "127.0.0.1", "127.1", "0", "ä", "a\0", "*.a", &long] {
        assert!(!is_host_name(name), "{name}");
    }
}

#[test]
fn load_balancers_are_addresses_and_networks() {
    let case = |sources: &str| {
        let text = listener("proxy_protocol: { trusted_sources: [SOURCES] }").text().replace("SOURCES", sources);
        let resolved = resolved(&text);
        (resolved.settings, lines(&resolved.errors), lines(&resolved.warnings))
    };
    let at = "listeners[0].proxy_protocol.trusted_sources";
    let (_, errors, _) = case("lb.example.com, 10.1.2.3/16");
    assert!(errors.contains(&format!("{at}[0]: \"lb.example.com\" is no address and no network")), "{errors}");
    assert!(
        errors.contains(&format!("{at}[1]: 10.1.2.3/16 lies inside a network; did you mean 10.1.0.0/16?")),
        "{errors}"
    );
    let (_, errors, warnings) = case("'::/0'");
    assert!(errors.is_empty() && warnings.contains("any client can then give itself"), "{errors}{warnings}");
    let (settings, errors, warnings) = case("10.0.0.0/24, 10.0.1.7, '2001:db8::7', '::ffff:10.0.2.1'");
    assert_eq!((errors, warnings), (String::new(), String::new()));
    let settings = settings.expect("no errors");
    let sources: Vec<String> = settings.listeners[0].proxy_sources.iter().map(ToString::to_string).collect();
    assert_eq!(sources, ["10.0.0.0/24", "10.0.1.7/32", "2001:db8::7/128", "10.0.2.1/32"]);
}

#[test]
fn the_default_order_of_names_is_that_of_identities_without_a_configuration() {
    let settings = rest("").resolved().settings.expect("valid");
    assert_eq!(settings.client_names, crate::identity::NameOrder::default());
    let after = rest("clients: { identity: [fingerprint, spiffe] }").resolved();
    assert!(after.settings.is_some() && lines(&after.warnings).contains("never used"), "{}", lines(&after.warnings));
}
