use serde_json::json;

use super::*;
use crate::config::policy::PolicyFile;
use crate::identity::{Attribute, Description, PeerIdentity};
use crate::oci;
use crate::policy::suite::{NO_ADDRESS, facts};
use crate::policy::{Judged, Policy, compile};

fn import(acl: &Value, account_is: &str) -> Imported {
    let account_is = AccountIs::parse(account_is).expect("a kind of name");
    docker_auth(acl, &account_is).unwrap_or_else(|faults| panic!("{faults:?}"))
}

fn policy(imported: &Imported) -> Policy {
    let file: PolicyFile =
        serde_yaml::from_str(&imported.policy).unwrap_or_else(|e| panic!("{e}\n{}", imported.policy));
    compile(&file).unwrap_or_else(|faults| panic!("{faults:?}\n{}", imported.policy))
}

/// A client that has this account as its only name of the kind.
fn client(account: &str, account_is: &str) -> PeerIdentity {
    let mut description = Description::default();
    match account_is {
        "cn" => description.subject.push(Attribute { name: "CN".into(), value: account.to_owned() }),
        "dns" => description.dns.push(account.to_owned()),
        "email" => description.emails.push(account.to_owned()),
        template => description.uris.push(template.replace("${account}", account)),
    }
    PeerIdentity::described(description)
}

/// A client that has names, but none of the chosen kind, and so no account.
fn nameless(account_is: &str) -> PeerIdentity {
    let mut description = Description::default();
    if account_is == "cn" {
        description.subject.push(Attribute { name: "OU".into(), value: "joe".to_owned() });
    } else {
        description.subject.push(Attribute { name: "CN".into(), value: "joe".to_owned() });
    }
    // With the account's place taken by something else, where it is a URI.
    description.uris.push("spiffe://partner.example/user/joe".to_owned());
    PeerIdentity::described(description)
}

fn allows(policy: &Policy, client: &PeerIdentity, action: &str, name: &str) -> bool {
    let digest = format!("sha256:{}", "a".repeat(64));
    let (method, path) = match action {
        "pull" => ("GET", format!("/v2/{name}/manifests/v1")),
        "push" => ("PUT", format!("/v2/{name}/manifests/v1")),
        "delete" => ("DELETE", format!("/v2/{name}/manifests/{digest}")),
        _ => ("GET", "/v2/_catalog".to_owned()),
    };
    let route = oci::route(method, &path, None).expect("a route");
    policy.judge_route(&route, &facts(client, NO_ADDRESS, 0)).judged == Judged::Allow
}

const ACTIONS: [&str; 4] = ["pull", "push", "delete", "catalog"];

/// What docker_auth's own documentation shows, as far as it can be said here.
#[test]
fn the_example_of_its_authors_becomes_a_policy() {
    let acl = json!([
        { "match": { "ip": "127.0.0.0/8" }, "actions": ["*"], "comment": "Allow everything from localhost (IPv4)" },
        { "match": { "account": "admin" }, "actions": ["*"], "comment": "Admin has full access to everything." },
        { "match": { "account": "test", "name": "test-*" }, "actions": ["*"], "comment": "User \"test\" has full access" },
        { "match": { "account": "/.+/", "name": "${account}/*" }, "actions": ["*"], "comment": "Own namespace" },
        { "match": { "account": "/.+/", "type": "registry", "name": "catalog" }, "actions": ["*"] },
        { "match": { "account": "/.+/" }, "actions": ["pull"], "comment": "Logged in users may pull" },
        { "match": { "account": "" }, "actions": ["pull"], "comment": "Anonymous users may pull" },
    ]);
    let imported = import(&acl, "cn");
    let policy = policy(&imported);
    let lost: Vec<_> = imported.lost.iter().map(|fault| fault.path.as_str()).collect();
    // What the first entry gives can only be left out. It takes nothing from the others, for it gives everything.
    assert_eq!(lost, ["[0].match.ip"], "{:?}", imported.lost);
    for (account, action, name, expected) in [
        ("admin", "delete", "any/thing", true),
        ("admin", "catalog", "", true),
        ("test", "push", "test-app", true),
        ("test", "push", "other", false),
        ("test", "pull", "other/app", true),
        ("joe", "push", "joe/app", true),
        ("joe", "push", "joe/deep/app", false),
        ("joe", "push", "jim/app", false),
        ("joe", "pull", "jim/app", true),
        ("joe", "catalog", "", true),
    ] {
        assert_eq!(allows(&policy, &client(account, "cn"), action, name), expected, "{account} {action} {name}");
    }
    assert!(!allows(&policy, &client("x", "dns"), "pull", "a"), "without the name there is no account");
}

#[test]
fn what_cannot_be_said_is_left_out_loudly() {
    for (entry, place, why) in [
        (json!({ "match": { "acount": "admin" }, "actions": ["*"] }), "[0].match.acount", "docker_auth ignores it"),
        (json!({ "match": { "ip": "10.0.0.0/8" }, "actions": ["*"] }), "[0].match.ip", "address range"),
        (json!({ "match": { "labels": { "group": "x" } }, "actions": ["*"] }), "[0].match.labels", "a group"),
        (json!({ "match": { "service": "x" }, "actions": ["*"] }), "[0].match.service", "no service"),
        (json!({ "match": { "name": "/^[a-z]+$/" }, "actions": ["*"] }), "[0].match.name", "character class"),
        (json!({ "match": { "name": "a?" }, "actions": ["*"] }), "[0].match.name", "\"?\""),
        (json!({ "match": { "name": "${labels:group}/*" }, "actions": ["*"] }), "[0].match.name", "${labels:group}"),
        (json!({ "match": { "name": "${account}-*" }, "actions": ["pull"] }), "[0].match.name", "beside it"),
        (json!({ "match": { "account": "a|b" }, "actions": ["*"], "notes": "x" }), "[0].notes", "unknown key"),
        (json!({ "match": { "account": ["a"] }, "actions": ["*"] }), "[0].match.account", "no text"),
        (json!({ "match": { "account": 493 }, "actions": ["*"] }), "[0].match.account", "put it in quotes"),
        (json!({ "match": { "account": 1000.0 }, "actions": ["*"] }), "[0].match.account", "put it in quotes"),
        (json!({ "match": { "name": 7 }, "actions": ["*"] }), "[0].match.name", "put it in quotes"),
        (json!({ "match": "admin", "actions": ["*"] }), "[0].match", "no list"),
        (json!({ "match": { "account": "a" }, "actions": "pull" }), "[0].actions", "no list"),
        (json!("x"), "[0]", "no entry"),
    ] {
        let imported = import(&json!([entry, { "match": { "account": "b" }, "actions": ["pull"] }]), "cn");
        let fault = imported.lost.first().unwrap_or_else(|| panic!("{entry}: nothing lost"));
        assert_eq!(fault.path, place, "{entry}");
        assert!(fault.message.starts_with("not carried over: ") && fault.message.contains(why), "{entry}: {fault}");
        policy(&imported);
    }
    let imported = import(&json!([{ "match": {}, "actions": ["*"] }]), "cn");
    assert!(imported.remarks.iter().any(|remark| remark.message.contains("everyone and everything")), "{imported:?}");
    let whole = json!({ "server": {}, "users": {}, "ext_authz": {}, "acl": [] });
    let imported = import(&whole, "cn");
    assert_eq!(imported.lost.iter().map(|fault| fault.path.as_str()).collect::<Vec<_>>(), ["ext_authz"]);
    assert_eq!(imported.remarks.iter().map(|fault| fault.path.as_str()).collect::<Vec<_>>(), ["users"]);
    for foreign in [json!({}), json!("x"), json!({ "acl": {} })] {
        assert!(docker_auth(&foreign, &AccountIs::CommonName).is_err(), "{foreign}");
    }
}

#[test]
fn an_entry_that_was_lost_still_stands_before_what_comes_behind_it() {
    // Who is kept out by a pattern that can't be said must not get in by the next entry.
    let acl = json!([
        { "match": { "account": "/^ci-[0-9]+$/", "name": "secret" }, "actions": [] },
        { "match": { "account": "ci-*" }, "actions": ["pull"] },
        { "match": { "account": "joe" }, "actions": ["pull"] },
    ]);
    let imported = import(&acl, "cn");
    let lost: Vec<_> = imported.lost.iter().map(|fault| fault.path.as_str()).collect();
    assert_eq!(lost, ["[0].match.account", "[1]", "[2]"], "{:?}", imported.lost);
    assert_eq!(imported.carried, 0);
}

#[test]
fn the_first_entry_decides_also_where_it_gives_less() {
    let acl = json!([
        { "match": { "account": "boss" }, "actions": ["*"] },
        { "match": { "name": "secret/*" }, "actions": [] },
        { "match": { "account": "*" }, "actions": ["pull"] },
    ]);
    // A denial of the secrets would take them from the boss, too, so what stands behind it is left out.
    let imported = import(&acl, "cn");
    assert_eq!(imported.lost.iter().map(|fault| fault.path.as_str()).collect::<Vec<_>>(), ["[2]"]);
    let policy_of_it = policy(&imported);
    assert!(allows(&policy_of_it, &client("boss", "cn"), "push", "secret/x"));
    assert!(!allows(&policy_of_it, &client("joe", "cn"), "pull", "open/x"));
    // Without the boss it can be said.
    let imported = import(&json!([acl[1], acl[2]]), "cn");
    assert!(imported.lost.is_empty(), "{:?}", imported.lost);
    let policy_of_it = policy(&imported);
    assert!(allows(&policy_of_it, &client("joe", "cn"), "pull", "open/x"));
    assert!(!allows(&policy_of_it, &client("joe", "cn"), "pull", "secret/x"));
}

/// In docker_auth a client without the chosen name would have the empty account, which `*` and the like match.
#[test]
fn nothing_is_granted_to_who_lacks_the_chosen_name() {
    for account in ["*", "/.*/", "", "/^(|joe)$/"] {
        let acl = json!([
            { "match": { "account": account, "name": "secret/*" }, "actions": [] },
            { "match": {}, "actions": ["pull"] },
        ]);
        for account_is in ["cn", "spiffe://example.com/user/${account}"] {
            let imported = import(&acl, account_is);
            assert!(imported.lost.is_empty(), "{:?}", imported.lost);
            let policy = policy(&imported);
            for name in ["secret/x", "open/x"] {
                assert!(!allows(&policy, &nameless(account_is), "pull", name), "{account} {name}\n{}", imported.policy);
            }
            assert!(allows(&policy, &client("jim", account_is), "pull", "open/x"), "{account}\n{}", imported.policy);
        }
    }
    // For some kinds of name there is no pattern that all of them fit. What everyone is denied can be said all the same.
    let acl = json!([
        { "match": { "name": "secret/*" }, "actions": ["pull"] },
        { "match": { "name": "${account}/*" }, "actions": ["push"] },
        { "match": { "account": "joe.example" }, "actions": ["pull", "push"] },
    ]);
    for (account_is, expected) in [("dns", &["[0]"][..]), ("email", &["[0]", "[1].match.name", "[2].match.account"])] {
        let imported = import(&acl, account_is);
        let lost: Vec<_> = imported.lost.iter().map(|fault| fault.path.as_str()).collect();
        assert_eq!(lost, expected, "{:?}", imported.lost);
        assert!(imported.lost[0].message.contains("there is no pattern for any"), "{:?}", imported.lost);
    }
    let policy = policy(&import(&acl, "dns"));
    let (joe, jim) = (client("joe.example", "dns"), client("jim", "dns"));
    assert!(allows(&policy, &joe, "push", "open/x") && !allows(&policy, &joe, "push", "secret/x"));
    assert!(!allows(&policy, &jim, "pull", "secret/x") && allows(&policy, &jim, "push", "jim/x"));
}

#[test]
fn accounts_are_the_names_that_are_chosen() {
    let acl = json!([{ "match": { "account": "joe", "name": "${account}/*" }, "actions": ["push"] }]);
    let template = "spiffe://example.com/user/${account}";
    for (account_is, expected) in
        [("cn", "CN: \"joe\""), ("dns", "dns: \"joe\""), (template, "uri: \"spiffe://example.com/user/joe\"")]
    {
        let imported = import(&acl, account_is);
        assert!(imported.lost.is_empty() && imported.policy.contains(expected), "{imported:?}");
        let policy = policy(&imported);
        assert!(allows(&policy, &client("joe", account_is), "push", "joe/app"), "{account_is}");
        assert!(!allows(&policy, &client("jim", account_is), "push", "jim/app"), "{account_is}");
    }
    let imported = import(&json!([{ "match": { "account": "joe@example.com" }, "actions": ["push"] }]), "email");
    assert!(allows(&policy(&imported), &client("joe@example.com", "email"), "push", "x"));
    assert_eq!(import(&acl, "email").lost.len(), 1, "an address is no part of a repository's name");
    for wrong in [
        "",
        "CN",
        "spiffe://example.com/user",
        "spiffe://${account}/x",
        "spiffe://a/x-${account}",
        "spiffe://a/*/${account}",
    ] {
        assert!(AccountIs::parse(wrong).is_err(), "{wrong}");
    }
}

/// What docker_auth's code makes of a pattern, told by hand.
type Pattern = (&'static str, fn(account: &str, text: &str) -> bool);

fn one(text: &str) -> bool {
    !text.contains('/')
}

const ACCOUNT_PATTERNS: &[Pattern] = &[
    ("joe", |_, text| text == "joe"),
    ("ci-*", |_, text| text.starts_with("ci-") && one(text)),
    ("*", |_, text| one(text)),
    ("/.+/", |_, text| !text.is_empty()),
    ("/^ci-/", |_, text| text.starts_with("ci-")),
    ("/^(joe|jim)$/", |_, text| text == "joe" || text == "jim"),
    ("/^ci-[0-9]+$/", |_, text| {
        text.strip_prefix("ci-").is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
    }),
    ("", |_, text| text.is_empty()),
];

const NAME_PATTERNS: &[Pattern] = &[
    ("*", |_, text| one(text)),
    ("*/*", |_, text| text.matches('/').count() == 1),
    ("team/*", |_, text| text.strip_prefix("team/").is_some_and(one)),
    ("team-*", |_, text| text.starts_with("team-") && one(text)),
    ("${account}/*", |account, text| {
        text.strip_prefix(account).and_then(|rest| rest.strip_prefix('/')).is_some_and(one)
    }),
    ("/^team\\/.*$/", |_, text| text.starts_with("team/")),
    ("/^team/", |_, text| text.starts_with("team")),
    ("/app$/", |_, text| text.ends_with("app")),
    ("/.*/", |_, _| true),
    ("/^${account}\\/.+$/", |account, text| {
        text.strip_prefix(account).is_some_and(|rest| rest.len() > 1 && rest.starts_with('/'))
    }),
    ("/^(team|base)\\/[^\\/]+$/", |_, text| {
        text.split_once('/').is_some_and(|(team, rest)| (team == "team" || team == "base") && one(rest))
    }),
    ("te?m/app", |_, text| {
        text.len() == 8 && text.starts_with("te") && text.ends_with("m/app") && !text.starts_with("te/")
    }),
    ("catalog", |_, text| text == "catalog"),
    ("Upper/*", |_, _| false),
];

const TYPE_PATTERNS: &[Pattern] = &[
    ("repository", |_, text| text == "repository"),
    ("registry", |_, text| text == "registry"),
    ("/reg/", |_, text| text == "registry"),
    ("rep*", |_, text| text == "repository"),
];

/// What docker_auth answers: the first entry that matches gives what it lists.
fn answers(entries: &[Described], account: &str, action: &str, name: &str) -> bool {
    let (kind, name, asked) = match action {
        "catalog" => ("registry", "catalog", "*"),
        action => ("repository", name, action),
    };
    let first = entries.iter().find(|entry| {
        let fits = |pattern: &Option<Pattern>, text: &str| pattern.is_none_or(|(_, matches)| matches(account, text));
        fits(&entry.account, account) && fits(&entry.kind, kind) && fits(&entry.name, name)
    });
    first.is_some_and(|entry| entry.actions == ["*"] || entry.actions.contains(&asked))
}

struct Described {
    account: Option<Pattern>,
    kind: Option<Pattern>,
    name: Option<Pattern>,
    actions: Vec<&'static str>,
}

impl Described {
    fn random(dice: &mut fastrand::Rng) -> Self {
        let mut pick = |of: &[Pattern]| (dice.u8(..3) > 0).then(|| of[dice.usize(..of.len())]);
        let (account, name) = (pick(ACCOUNT_PATTERNS), pick(NAME_PATTERNS));
        let kind = if dice.u8(..4) == 0 { Some(TYPE_PATTERNS[dice.usize(..TYPE_PATTERNS.len())]) } else { None };
        let choices: [&[&str]; 6] = [&["*"], &["pull"], &["pull", "push"], &[], &["push", "delete"], &["pull", "*"]];
        Self { account, kind, name, actions: choices[dice.usize(..choices.len())].to_vec() }
    }

    fn entry(&self) -> Value {
        let mut conditions = serde_json::Map::new();
        for (key, pattern) in [("account", &self.account), ("type", &self.kind), ("name", &self.name)] {
            if let Some((pattern, _)) = pattern {
                conditions.insert(key.to_owned(), (*pattern).into());
            }
        }
        json!({ "match": conditions, "actions": self.actions })
    }
}

/// Whatever the list is, the policy allows nothing that it does not; and where nothing was lost, all that it does.
#[test]
fn an_imported_policy_never_allows_more() {
    let accounts = ["joe", "jim", "ci-7", "ci-x", "team"];
    let names =
        ["team/app", "team/deep/app", "team", "team-a", "joe/app", "ci-7/x", "joe/a/b", "base/app", "app", "catalog"];
    let mut dice = fastrand::Rng::with_seed(20_261_122);
    let (mut whole, mut allowed) = (0, 0);
    for _ in 0..400 {
        let count = dice.usize(1..5);
        let entries: Vec<_> = (0..count).map(|_| Described::random(&mut dice)).collect();
        let acl: Value = entries.iter().map(Described::entry).collect::<Vec<_>>().into();
        for account_is in ["cn", "dns", "spiffe://example.com/user/${account}"] {
            let imported = import(&acl, account_is);
            let policy = policy(&imported);
            whole += usize::from(imported.lost.is_empty());
            // Who has no such name has the empty account there, which many patterns match.
            for account in accounts.into_iter().chain([""]) {
                let client = if account.is_empty() { nameless(account_is) } else { client(account, account_is) };
                for (action, name) in ACTIONS.iter().flat_map(|action| names.iter().map(move |name| (*action, *name))) {
                    let ours = allows(&policy, &client, action, name);
                    let theirs = answers(&entries, account, action, name);
                    let why = || {
                        format!(
                            "{account_is} {account} {action} {name}\n{acl:#}\n{}\n{:?}",
                            imported.policy, imported.lost
                        )
                    };
                    assert!(theirs || !ours, "more than the list allows: {}", why());
                    let told = !imported.lost.is_empty() || account.is_empty();
                    assert!(ours || !theirs || told, "less, and nothing is said of it: {}", why());
                    allowed += usize::from(ours);
                }
            }
        }
    }
    assert!(whole > 130 && allowed > 1500, "the dice made too few that could be carried over: {whole}, {allowed}");
}
