//! The guides of docs/, followed to the letter on machines that are thrown away, and what they show of files.

mod files;

use crate::support::machine::{follow, follow_with};

/// What must be true after docs/registry-vm.md: the list that the service signed and brought is in force, administrators have
/// what the policy gives them, and a certificate that is renewed fits the key that was handed over, if that is kept.
const SET_UP: &str = "
cd /srv/ca/pki/clients/alice
curl --fail --silent --cacert ca.crt --cert client.crt --key client.key https://registry.example.com/v2/_catalog | grep team-a/tool
tries=0
until [[ $(docker pull registry.example.com/team-a/tool:1 2>&1) == *'tls: revoked certificate'* ]]; do
  ((tries++ < 100)); sleep 0.1
done
cd /srv/ca
portcullis pki renew registry.example.com --same-key --passphrase-file pass
cp pki/servers/registry.example.com/server.crt /etc/portcullis/server.crt
portcullis check
portcullis pki renew registry.example.com --passphrase-file pass
cp pki/servers/registry.example.com/server.crt /etc/portcullis/server.crt
{ portcullis check 2>&1 || true; } | grep 'systemd handed the key over'
";

#[test]
fn a_registry_vm_is_set_up() {
    follow_with("docs/registry-vm.md", "package_at portcullis_1.0-1_amd64.deb; given_docker", SET_UP);
}

#[test]
fn a_client_is_looked_at() {
    follow("docs/doctor.md", "given_gateway; given_certs");
}

#[test]
fn a_gateway_is_upgraded() {
    follow("docs/lifecycle.md", "given_gateway");
}

#[test]
fn a_ca_is_run() {
    follow("docs/pki.md", "given_package");
}

#[test]
fn a_service_is_installed_by_hand() {
    follow("docs/systemd.md", "");
}

#[test]
fn records_are_asked() {
    follow("docs/monitoring.md", "given_gateway");
    follow("docs/runbook.md", "given_gateway");
}

#[test]
fn lists_are_signed() {
    follow("docs/revocation.md", "given_portcullis");
}

#[test]
fn a_policy_is_asked() {
    follow("docs/policy-tools.md", "given_example_policy");
}

#[test]
fn a_client_learns_what_is_left() {
    follow("docs/quotas.md", "given_quotas");
}

#[test]
fn envoy_is_replaced_and_comes_back() {
    let named = std::env::var_os("ENVOY").map(std::path::PathBuf::from).or_else(|| crate::support::skip::find("envoy"));
    let Some(envoy) = named.or_else(|| crate::support::skip::extra("envoy")) else { return };
    follow("docs/migration-from-envoy.md", &format!("ENVOY={}", envoy.display()));
}

#[test]
fn clients_of_every_kind_are_set_up() {
    follow("docs/clients.md", "given_client_files");
}

#[test]
fn what_clients_say_is_what_the_guide_shows() {
    follow("docs/troubleshooting.md", "given_trouble");
}

/// Each hand-over happened, and nobody was refused meanwhile.
const HANDED_OVER: &str = "
[[ $(grep -c 'has taken over' /var/log/portcullis.out) == 4 ]]
[[ ! -s refused ]] || { echo \"refused: $(cat refused)\"; exit 1; }
";

#[test]
fn packages_and_programs_are_upgraded_and_rolled_back() {
    follow_with("docs/upgrade-and-roll-back.md", ":", HANDED_OVER);
}

#[test]
fn capacity_is_reckoned_and_measured() {
    follow("docs/capacity.md", "given_gateway");
}
