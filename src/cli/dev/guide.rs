//! What `portcullis dev` prints: every command complete, to be copied into another terminal.

use std::fmt;
use std::path::Path;

use super::pki::{DEVELOPER, READER};
use super::sample::{MANIFEST, Sample, TAG};
use super::site::Site;

/// The commands for one running development set-up.
pub(super) struct Guide<'a> {
    site: &'a Site,
    sample: &'a Sample,
}

impl<'a> Guide<'a> {
    pub(super) fn new(site: &'a Site, sample: &'a Sample) -> Self {
        Self { site, sample }
    }

    fn intro(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Site { dir, health, admin, upstream, .. } = self.site;
        let gateway = self.site.client_address();
        writeln!(f, "Portcullis at https://{gateway}, a registry behind it at {upstream}.")?;
        writeln!(f, "Clients: {DEVELOPER} may push and pull under team/, {READER} may only pull there.")?;
        writeln!(f, "\nIn another terminal:\n  cd {}", quoted(dir))?;
        writeln!(f, "\nlook inside (policy.yaml may be edited: it is read again at once)")?;
        writeln!(f, "  curl http://{health}/metrics")?;
        writeln!(f, "  curl http://{admin}/config")?;
        writeln!(f, "  tail -f access.log")
    }

    fn curl(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sample { layer, config, manifest } = self.sample;
        let gateway = self.site.client_address();
        let base = format!("https://{gateway}/v2/team/curl");
        writeln!(f, "\ncurl")?;
        writeln!(f, "  {}", function(DEVELOPER))?;
        writeln!(f, "  for blob in {config} {layer}; do")?;
        writeln!(f, "    at=$({DEVELOPER} -X POST -o /dev/null -w '%header{{location}}' {base}/blobs/uploads/)")?;
        writeln!(f, "    {DEVELOPER} -T sample/blobs/sha256/$blob \"https://{gateway}$at&digest=sha256:$blob\"")?;
        writeln!(f, "  done")?;
        writeln!(f, "  {DEVELOPER} -H 'Content-Type: {MANIFEST}' \\")?;
        writeln!(f, "    -T sample/blobs/sha256/{manifest} {base}/manifests/{TAG}")?;
        writeln!(f, "  {DEVELOPER} -H 'Accept: {MANIFEST}' {base}/manifests/{TAG}; echo")?;
        writeln!(f, "  {DEVELOPER} {base}/blobs/sha256:{layer} | tar -xO")?;
        writeln!(f, "\nwhat a refusal looks like")?;
        writeln!(f, "  {}", function(READER))?;
        writeln!(f, "  {READER} -X POST {base}/blobs/uploads/")
    }

    fn skopeo(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gateway = self.site.client_address();
        let image = format!("docker://{gateway}/team/skopeo:{TAG}");
        writeln!(f, "\nskopeo")?;
        writeln!(f, "  skopeo copy --dest-cert-dir certs.d/{gateway} oci:sample:{TAG} {image}")?;
        writeln!(f, "  skopeo copy --src-cert-dir certs.d/{gateway} {image} oci:pulled:{TAG}")
    }

    fn docker(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.site.docker_address();
        let image = format!("{address}/team/docker:{TAG}");
        if address == self.site.client_address() {
            writeln!(f, "\ndocker")?;
        } else {
            writeln!(
                f,
                "\ndocker (it sends no client certificate to 127.0.0.0/8; this address stays on the machine too)"
            )?;
            writeln!(f, "  sudo ip address add {}/32 dev lo", address.ip())?;
        }
        writeln!(f, "  sudo mkdir -p /etc/docker/certs.d")?;
        writeln!(f, "  sudo cp -rT certs.d/{address} /etc/docker/certs.d/{address}")?;
        writeln!(f, "  docker import sample/blobs/sha256/{} {image}", self.sample.layer)?;
        writeln!(f, "  docker push {image}")?;
        writeln!(f, "  docker image rm {image}")?;
        writeln!(f, "  docker pull {image}")
    }
}

impl fmt::Display for Guide<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.intro(f)?;
        self.curl(f)?;
        self.skopeo(f)?;
        self.docker(f)?;
        writeln!(f, "\nCtrl-C ends both the gateway and the registry.")
    }
}

/// A shell function: curl with the certificates of the client it is named after.
fn function(client: &str) -> String {
    format!(
        "{client}() {{ curl -sS --fail-with-body --cacert pki/ca.crt --cert pki/{client}.crt --key pki/{client}.key \"$@\"; }}"
    )
}

/// A path as one word of a POSIX shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    if text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-:+@%".contains(c)) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_paths_stay_one_word() {
        assert_eq!(quoted(Path::new("/srv/dev-1/ca.crt")), "/srv/dev-1/ca.crt");
        assert_eq!(quoted(Path::new("/my files/$x")), "'/my files/$x'");
        assert_eq!(quoted(Path::new("/it's")), r"'/it'\''s'");
    }
}
