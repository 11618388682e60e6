//! `portcullis policy explain`

use std::net::IpAddr;
use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser as Text;

use super::certificate::{self, Problem};
use super::{Failure, leaf_rules, load_policy, log, now};
use crate::cli::emit;
use crate::config::policy::cases::{ClientFile, Texts};
use crate::config::{self, Fault, TlsVersion};
use crate::identity::{CertificateFault, LeafRules, NameOrder, PeerIdentity};
use crate::inquiry::{self, Answer};
use crate::policy;
use crate::policy::suite::{Circumstances, NO_ADDRESS, Request};
use crate::telemetry::Past;

/// What `portcullis policy explain` takes from the command line.
#[derive(Debug, Clone, clap::Args)]
#[command(after_long_help = HELP)]
#[command(group = clap::ArgGroup::new("names").required(true).multiple(true)
    .args(["certificate", "uri", "subject", "dns", "email", "ip", "decision"]))]
pub(super) struct Options {
    /// The configuration that names the policy
    #[arg(short, long, default_value_os_t = super::super::configuration())]
    config: PathBuf,
    /// The policy itself, in place of the one that the configuration names
    #[arg(short, long)]
    policy: Option<PathBuf>,
    /// The client's certificate, PEM or DER; of a chain the first certificate. Nobody needs to have signed it
    #[arg(long, value_name = "FILE",
        conflicts_with_all = ["uri", "subject", "issuer", "dns", "email", "ip", "fingerprint", "spki"])]
    certificate: Option<PathBuf>,
    /// A URI of the client, such as its SPIFFE ID
    #[arg(long, visible_alias = "spiffe", value_parser = Text::new())]
    uri: Vec<String>,
    /// An attribute of the client's subject, such as CN=ci-7
    #[arg(long, value_name = "TYPE=VALUE", value_parser = Text::new())]
    subject: Vec<String>,
    /// An attribute of its issuer's name
    #[arg(long, value_name = "TYPE=VALUE", value_parser = Text::new())]
    issuer: Vec<String>,
    /// A DNS name of the client
    #[arg(long, value_name = "NAME", value_parser = Text::new())]
    dns: Vec<String>,
    /// An email address of the client
    #[arg(long, value_name = "ADDRESS", value_parser = Text::new())]
    email: Vec<String>,
    /// An IP address in the client's certificate
    #[arg(long, value_name = "ADDRESS", value_parser = Text::new())]
    ip: Vec<String>,
    /// The certificate's SHA-256, as `sha256:<hex>`
    #[arg(long, value_name = "HASH")]
    fingerprint: Option<String>,
    /// The SHA-256 of the certificate's public key, as `sha256:<hex>`
    #[arg(long, value_name = "HASH")]
    spki: Option<String>,
    /// When the client's certificate runs out, such as 2026-01-31T08:00:00Z
    #[arg(long, value_name = "TIME", conflicts_with = "certificate")]
    not_after: Option<String>,
    /// The address that the client connects from
    #[arg(long, value_name = "ADDRESS")]
    client: Option<IpAddr>,
    /// A decision of the past: the id that refusals and access records name
    #[arg(long, value_name = "ID", requires = "log", value_parser = Text::new(), conflicts_with_all = ["certificate",
        "uri", "subject", "issuer", "dns", "email", "ip", "fingerprint", "spki", "not_after", "client", "at", "exists",
        "method"])]
    decision: Option<String>,
    /// An access log that holds the decision's record, `-` for standard input; may be given several times
    #[arg(long, value_name = "FILE", requires = "decision", conflicts_with = "method")]
    log: Vec<PathBuf>,
    /// The time of the request, such as 2026-01-31T08:00:00Z; now if left out
    #[arg(long, value_name = "TIME", value_parser = policy::parse_time)]
    at: Option<u64>,
    /// The TLS version of the connection
    #[arg(long, value_name = "VERSION", default_value = "1.3", value_parser = ["1.2", "1.3"])]
    tls: String,
    /// Whether the tags to be pushed exist; both are shown if left out
    #[arg(long, value_name = "true|false")]
    exists: Option<bool>,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
    /// The request's method
    #[arg(required_unless_present = "decision")]
    method: Option<String>,
    /// The request's URL or path; scheme and host are left out
    #[arg(required_unless_present = "decision")]
    url: Option<String>,
}

const HELP: &str = "\
Names can be given several times. Trust, dates and revocation of a certificate are not looked at: that is decided before
the policy is asked.

Examples:
  Why is this push refused?
    portcullis policy explain --certificate ci-7.crt PUT /v2/team-a/app/manifests/v1
  What may a workload do that has no certificate yet?
    portcullis policy explain --policy policy.yaml --spiffe spiffe://example.com/team-a/build \\
      GET https://registry.example.com/v2/team-b/app/manifests/v1
  A client with several names
    portcullis policy explain --subject CN=ci-7 --subject OU=build --dns ci-7.ci.example.com GET /v2/_catalog
  Why was that refused, and would it be today?
    portcullis policy explain --decision 01HF7YAT3V0000000000000007 --log /var/log/portcullis/access.log

Exit codes:
  0  the request is allowed
  1  a file is at fault, or the logs have no such decision
  2  the command line is at fault
  4  the request is refused, or that depends on whether a tag exists; of a past one: would be today";

/// Whether the request is allowed.
pub(super) fn run(options: &Options) -> Result<bool, Failure> {
    let (file, rules, names) = match &options.policy {
        Some(policy) => (policy.clone(), LeafRules::default(), NameOrder::default()),
        None => {
            let settings = config::load(&options.config)?.value;
            (settings.policy.clone(), leaf_rules(&settings), settings.client_names)
        }
    };
    if let Some(decision) = &options.decision {
        let past = find(decision, &options.log)?;
        let policy = load_policy(&file)?.value;
        let answer = Answer::replay(&policy, &past).map_err(|why| Failure::Answerless(why.to_string()))?;
        return Ok(print(options, &answer));
    }
    let (client, request) = options.question(&rules)?;
    let policy = load_policy(&file)?.value;
    let client = client.map(|client| client.named_by(&names));
    let circumstances = Circumstances {
        address: options.client.unwrap_or(NO_ADDRESS),
        at: options.at.unwrap_or_else(now),
        tls: if options.tls == "1.2" { TlsVersion::Tls12 } else { TlsVersion::Tls13 },
        exists: options.exists,
    };
    Ok(print(options, &Answer::ask(&policy, client, request, circumstances)))
}

fn print(options: &Options, answer: &Answer<'_>) -> bool {
    emit(&if options.json { inquiry::json(answer) } else { inquiry::text(answer) });
    answer.is_allowed()
}

/// The record of a decision.
fn find(decision: &str, logs: &[PathBuf]) -> Result<Past, Failure> {
    let decision = decision.trim().to_ascii_uppercase();
    let mut found = None;
    let mut lines = 0_u64;
    log::each_line(logs, |line| {
        lines += 1;
        // Most lines are others: only what may be the one is read as a record.
        let candidate = line.text.filter(|text| text.contains(&decision)).map(Past::read);
        if let Some(Ok(past)) = candidate
            && past.decision_id == decision
        {
            found = Some(past);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    found.ok_or_else(|| {
        Failure::Answerless(format!(
            "no record of decision {decision} in {lines} lines; is it in an older log (--log can be given several times)?"
        ))
    })
}

impl Options {
    /// Who asks for what.
    fn question(&self, rules: &LeafRules) -> Result<(Result<PeerIdentity, CertificateFault>, Request), Failure> {
        let (Some(method), Some(url)) = (&self.method, &self.url) else {
            return Err(Failure::Usage("name the request: its method and its URL".to_owned()));
        };
        let request = Request::new(method, url).map_err(Failure::Usage)?;
        Ok((self.identity(rules)?, request))
    }

    /// The client, or why the gateway refuses its certificate.
    fn identity(&self, rules: &LeafRules) -> Result<Result<PeerIdentity, CertificateFault>, Failure> {
        if let Some(path) = &self.certificate {
            return match certificate::read(path, rules) {
                Ok(identity) => Ok(Ok(identity)),
                Err(Problem::Refused(fault)) => Ok(Err(fault)),
                Err(Problem::File(message)) => Err(Failure::File { path: path.clone(), message }),
            };
        }
        let texts = |values: &[String]| Texts::Many(values.to_vec());
        let description = ClientFile {
            certificate: None,
            subject: texts(&self.subject),
            issuer: texts(&self.issuer),
            dns: texts(&self.dns),
            uri: texts(&self.uri),
            email: texts(&self.email),
            ip: texts(&self.ip),
            fingerprint: self.fingerprint.clone(),
            spki: self.spki.clone(),
            not_after: self.not_after.clone(),
        };
        let mut faults = Vec::new();
        let identity = policy::describe(&description, "", &|_| Err(String::new()), &mut faults);
        identity.map(Ok).ok_or_else(|| {
            let option = |fault: &Fault| {
                let name = fault.path.split('[').next().unwrap_or_default();
                format!("--{name}: {}", fault.message)
            };
            Failure::Usage(faults.iter().map(option).collect::<Vec<_>>().join("\n"))
        })
    }
}
