//! The listener for administration: what others can reach must know whom it serves.

use std::path::Path;

use super::Resolver;
use crate::config::model;
use crate::config::settings::{Admin, AdminAddress, AdminTls, AdminToken, KeyPair};
use crate::config::units::Shown;

/// Shortest token, in characters: no number of tries finds one that was made at random.
const MIN_TOKEN: usize = 32;

impl Resolver<'_> {
    pub(super) fn admin(&mut self, model: &model::Admin) -> Option<Admin> {
        let address = self.admin_address(model.address.as_deref()?)?;
        if matches!(address, AdminAddress::Unix(_)) && model.tls.is_some() {
            self.error(
                "admin.tls",
                "a unix socket is guarded by the mode of its file; remove tls, or listen on an address",
            );
        }
        if !address.is_local() {
            self.check_guard(model);
        }
        let token = model.token_file.as_deref().map(|file| self.admin_token(file));
        let tls = model.tls.as_ref().map(|tls| self.admin_tls(tls));
        Some(Admin { address, token, tls })
    }

    fn admin_address(&mut self, text: &str) -> Option<AdminAddress> {
        match text.strip_prefix("unix:") {
            Some(path) => Some(AdminAddress::Unix(self.path("admin.address", Path::new(path)))),
            None => self.socket_address("admin.address", text).map(AdminAddress::Tcp),
        }
    }

    /// Reports what an address that other machines reach lacks.
    fn check_guard(&mut self, model: &model::Admin) {
        let proves = model.token_file.is_some() || model.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        let lack = match (&model.tls, proves) {
            (None, _) => "admin.tls",
            (Some(_), false) => "token_file or tls.client_ca",
            (Some(_), true) => return,
        };
        let message = format!(
            "other machines could reach this, and it shows identities and orders reloads; set {lack} (docs/status-page.md), \
             or use loopback (127.0.0.1, [::1]) or unix:/path/to/socket"
        );
        self.error("admin.address", message);
    }

    fn admin_token(&mut self, file: &Path) -> AdminToken {
        const AT: &str = "admin.token_file";
        const MAKE: &str = "make one with \"openssl rand -hex 32\"";
        let file = self.path(AT, file);
        let read = (self.secrets)(&file).and_then(|read| {
            let token = read.secret.expose();
            match token.len() {
                _ if !token.bytes().all(|byte| byte.is_ascii_graphic()) => {
                    Err(format!("a token is visible ASCII without spaces; {MAKE}"))
                }
                short @ ..MIN_TOKEN => {
                    Err(format!("the token has {short} characters, and at least {MIN_TOKEN} are needed; {MAKE}"))
                }
                _ => Ok(read),
            }
        });
        match read {
            Ok(read) => {
                if read.exposed {
                    self.warning(AT, "every user of this machine can read the token; make the file's mode 0600");
                }
                AdminToken { secret: read.secret, file }
            }
            Err(message) => {
                self.error(AT, format!("\"{}\": {message}", file.display()));
                AdminToken { secret: crate::config::Secret::new(String::new()), file }
            }
        }
    }

    fn admin_tls(&mut self, model: &model::AdminTls) -> AdminTls {
        const NAMES: &str = "admin.tls.client_names";
        if model.client_ca.is_none() && !model.client_names.is_empty() {
            self.error(NAMES, "nobody is asked for a certificate; set client_ca, or remove the names");
        }
        for (index, name) in model.client_names.iter().enumerate() {
            let is_name = name.contains(['=', ':']) && !name.chars().any(char::is_control);
            if !is_name {
                let message = "is no name as records have it; write it like CN=alice or spiffe://corp.example/ops";
                self.error(format!("{NAMES}[{index}]"), format!("{} {message}", Shown(name)));
            }
        }
        let pair = KeyPair {
            certificate: self.path("admin.tls.certificate", &model.certificate),
            key: self.path("admin.tls.key", &model.key),
        };
        let client_ca = self.optional_path("admin.tls.client_ca", model.client_ca.as_deref());
        AdminTls { pair, client_ca, client_names: model.client_names.clone() }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::MIN_TOKEN;
    use crate::config::load::SecretFile;
    use crate::config::model::Config;
    use crate::config::resolve::resolve;
    use crate::config::secret::Secret;
    use crate::config::settings::Admin;

    const REST: &str = "
listeners: [{addresses: ['127.0.0.1:0'], tls: {client_ca: c, certificates: [{certificate: a, key: b}]}}]
upstreams: [{name: r, urls: ['http://127.0.0.1:5000']}]
policy: p
";

    /// What becomes of this section, with this in the file of the token.
    fn admin(section: &str, token: &str) -> Result<(Admin, String), String> {
        let config: Config = serde_yaml::from_str(&format!("{REST}admin: {section}\n")).expect("well formed");
        let secrets = |_: &Path| Ok(SecretFile { secret: Secret::new(token.to_owned()), exposed: true });
        let resolved = resolve(&config, Path::new("/etc/portcullis/portcullis.yaml"), &secrets);
        let all = |faults: &[crate::config::Fault]| format!("{faults:?}");
        match resolved.settings.and_then(|settings| settings.admin) {
            Some(admin) => Ok((admin, all(&resolved.warnings))),
            None => Err(all(&resolved.errors)),
        }
    }

    const TLS: &str = "certificate: c, key: k";

    #[test]
    fn what_others_reach_needs_tls_and_a_token_or_a_certificate() {
        let token = "t".repeat(MIN_TOKEN);
        for address in ["0.0.0.0:1", "'[::]:1'", "192.0.2.1:1"] {
            for (rest, lack) in [
                (String::new(), "admin.tls"),
                (", token_file: t".to_owned(), "admin.tls"),
                (format!(", tls: {{{TLS}}}"), "token_file or tls.client_ca"),
            ] {
                let said = admin(&format!("{{address: {address}{rest}}}"), &token).expect_err(&rest);
                let expected =
                    format!("other machines could reach this, and it shows identities and orders reloads; set {lack}");
                assert!(said.contains(&expected) && said.contains("admin.address"), "{said}");
            }
            for rest in [format!("token_file: t, tls: {{{TLS}}}"), format!("tls: {{{TLS}, client_ca: ca}}")] {
                admin(&format!("{{address: {address}, {rest}}}"), &token).unwrap_or_else(|e| panic!("{rest}: {e}"));
            }
        }
        let (admin, warnings) = admin("{token_file: t}", &token).expect("loopback may ask, too");
        assert!(admin.address.is_local() && admin.token.is_some(), "{admin:?}");
        assert!(warnings.contains("every user of this machine can read the token"), "{warnings}");
        assert!(!format!("{admin:?}").contains(&token), "{admin:?}");
    }

    #[test]
    fn what_makes_no_sense_is_refused_and_tokens_are_not_repeated() {
        let good = "t".repeat(MIN_TOKEN);
        for (section, token, said) in [
            ("{token_file: t}", "hunter2", "the token has 7 characters, and at least 32 are needed"),
            ("{token_file: t}", "correct horse battery staple and more", "without spaces"),
            ("{address: 'unix:a.sock', tls: {certificate: c, key: k}}", &good, "guarded by the mode of its file"),
            ("{tls: {certificate: c, key: k, client_names: ['CN=a']}}", &good, "nobody is asked for a certificate"),
            ("{tls: {certificate: c, key: k, client_ca: x, client_names: [alice]}}", &good, "\\\"alice\\\" is no name"),
        ] {
            let errors = admin(section, token).expect_err(section);
            assert!(errors.contains(said), "{section}: {errors}");
            assert!(!errors.contains("hunter2") && !errors.contains("horse"), "{errors}");
        }
    }
}
