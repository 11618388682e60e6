//! Ways around a gateway, each as one request.

use crate::support::gateway::Client;

const FORM: &str = "application/x-www-form-urlencoded";
pub const OCI: &str = "application/vnd.oci.image.manifest.v1+json";

/// A request that asks for more than it seems to, or for what its client may not.
pub struct Attack {
    pub method: &'static str,
    /// `{s}` stands for the digest of a secret layer, `{m}` for that of the manifest of `lib/base:v1`.
    pub target: &'static str,
    headers: &'static [(&'static str, &'static str)],
    body: &'static str,
}

const fn get(target: &'static str) -> Attack {
    Attack { method: "GET", target, headers: &[], body: "" }
}

const fn post(target: &'static str, kind: &'static [(&'static str, &'static str)], body: &'static str) -> Attack {
    Attack { method: "POST", target, headers: kind, body }
}

const fn write(method: &'static str, target: &'static str, headers: &'static [(&'static str, &'static str)]) -> Attack {
    Attack { method, target, headers, body: "" }
}

pub const UPLOADS: &str = "/v2/team/own/blobs/uploads/";

pub const ATTACKS: &[Attack] = &[
    // Another repository, spelt in every way.
    get("/v2/secret/repo/blobs/{s}"),
    get("/v2/secret/repo/manifests/v1"),
    get("/v2/secret/repo/tags/list"),
    get("/v2/secret/repo/referrers/{s}"),
    get("/v2/secret%2frepo/blobs/{s}"),
    get("/v2/secret%2Frepo/blobs/{s}"),
    get("/v2/%73ecret/repo/blobs/{s}"),
    get("/v2/%2573ecret/repo/blobs/{s}"),
    get("/v2/team/../secret/repo/blobs/{s}"),
    get("/v2/team/%2e%2e/secret/repo/blobs/{s}"),
    get("/v2/team/.%2e/secret/repo/blobs/{s}"),
    get("/v2/team/..%2fsecret/repo/blobs/{s}"),
    get("/v2/team/..;/secret/repo/blobs/{s}"),
    get("/v2/team/app/../../secret/repo/blobs/{s}"),
    get("/v2/team/app/blobs/{s}/../../../../secret/repo/blobs/{s}"),
    get("/v2/team/app/manifests/../../../secret/repo/manifests/v1"),
    get("/v2//secret/repo/blobs/{s}"),
    get("//v2/secret/repo/blobs/{s}"),
    get("/v2/./secret/repo/blobs/{s}"),
    get("/v2/team//../secret/repo/blobs/{s}"),
    get("/v2/secret/repo/blobs/{s}/"),
    get("/v2/SECRET/repo/blobs/{s}"),
    get("/V2/secret/repo/blobs/{s}"),
    get("/v2/secret/repo/blobs/{s}?ns=team/app"),
    get("/v2/team/app/tags/list?last=../../secret/repo"),
    // Everything that isn't a repository.
    get("/v2/_catalog"),
    get("/v2/_catalog?n=-1"),
    get("/v2/_catalog/"),
    get("/v2/%5fcatalog"),
    get("/metrics"),
    get("/debug/vars"),
    get("/debug/pprof/"),
    get("/v1/_ping"),
    get("/"),
    // A layer of another repository, linked into one's own.
    post("/v2/team/own/blobs/uploads/?mount={s}&from=secret/repo", &[], ""),
    post("/v2/team/own/blobs/uploads/?from=secret/repo&mount={s}", &[], ""),
    post("/v2/team/own/blobs/uploads/?mount={s}", &[], ""),
    post("/v2/team/own/blobs/uploads/?mount={s}&from=lib/base&from=secret/repo", &[], ""),
    post("/v2/team/own/blobs/uploads/?mount={s}&from=lib/base;from=secret/repo", &[], ""),
    post("/v2/team/own/blobs/uploads/?mount={s}&fr%6fm=secret/repo", &[], ""),
    post("/v2/team/own/blobs/uploads/?mount={s}&from=lib/../secret/repo", &[], ""),
    post("/v2/team/own/blobs/uploads/?mount={s}&from=lib%2f..%2fsecret%2frepo", &[], ""),
    post("/v2/team/own/blobs/uploads/?mount={s}&From=secret/repo", &[], ""),
    post(UPLOADS, &[("content-type", FORM)], "mount={s}&from=secret/repo"),
    post("/v2/team/own/blobs/uploads/?mount={s}&from=lib/base", &[("content-type", FORM)], "from=secret/repo"),
    post(UPLOADS, &[("content-type", "Application/X-WWW-Form-URLencoded; charset=x")], "mount={s}&from=secret/repo"),
    post(
        UPLOADS,
        &[("content-type", "multipart/form-data; boundary=x")],
        "--x\r\nContent-Disposition: form-data; name=\"mount\"\r\n\r\n{s}\r\n--x\r\nContent-Disposition: form-data; \
         name=\"from\"\r\n\r\nsecret/repo\r\n--x--\r\n",
    ),
    post("/v2/secret/repo/blobs/uploads/", &[], ""),
    post("/v2/team/../secret/repo/blobs/uploads/", &[], ""),
    post("/v2/team//own/../../lib/base/blobs/uploads/", &[], ""),
    // Writes to what may only be read, and deletes, which nobody may.
    write("PUT", "/v2/lib/base/manifests/v1", &[("content-type", OCI)]),
    write("PUT", "/v2/lib/base/manifests/{m}?tag=v2", &[("content-type", OCI)]),
    write("PUT", "/v2/lib/base/blobs/uploads/manifests/v1", &[("content-type", OCI)]),
    write("POST", "/v2/lib/base/blobs/uploads/", &[]),
    write("PATCH", "/v2/lib/base/blobs/uploads/3f2a?_state=x", &[]),
    write("PUT", "/v2/lib/base/blobs/uploads/3f2a?_state=x&digest={s}", &[]),
    write("DELETE", "/v2/lib/base/blobs/uploads/3f2a?_state=x", &[]),
    write("DELETE", "/v2/lib/base/manifests/{m}", &[]),
    write("DELETE", "/v2/lib/base/manifests/v1", &[]),
    write("DELETE", "/v2/team/app/manifests/{m}", &[]),
    write("DELETE", "/v2/team/app/blobs/{s}", &[]),
    write("DELETE", "/v2/team/app/tags/v1", &[]),
    write("DELETE", "/v2/team/app/../../lib/base/manifests/{m}", &[]),
    write("DELETE", "/v2/team%2f..%2flib/base/manifests/{m}", &[]),
    write("delete", "/v2/lib/base/manifests/{m}", &[]),
    write("Delete", "/v2/lib/base/manifests/{m}", &[]),
    write("put", "/v2/lib/base/manifests/v1", &[("content-type", OCI)]),
    write("POST", "/v2/lib/base/manifests/{m}", &[("x-http-method-override", "DELETE")]),
    write("GET", "/v2/lib/base/manifests/{m}", &[("x-http-method-override", "DELETE"), ("x-http-method", "DELETE")]),
    write("GET", "/v2/lib/base/manifests/{m}?_method=DELETE", &[("x-method-override", "DELETE")]),
    // Somebody else's name, host or place.
    write("GET", "/v2/", &[("x-original-url", "/v2/secret/repo/blobs/{s}"), ("x-rewrite-url", "/v2/secret/repo/")]),
    write(
        "GET",
        "/v2/team/app/tags/list",
        &[("x-forwarded-prefix", "/v2/secret"), ("x-forwarded-host", "secret.test")],
    ),
    write("GET", "/v2/team/app/tags/list", &[("forwarded", "host=secret.test;proto=http"), ("x-host", "secret.test")]),
    write("GET", "/v2/team/app/tags/list", &[("x-forwarded-user", "secret"), ("x_forwarded_host", "secret.test")]),
];

impl Attack {
    fn filled(&self, secret: &str, manifest: &str) -> (String, Vec<(String, String)>, String) {
        let fill = |text: &str| text.replace("{s}", secret).replace("{m}", manifest);
        let headers = self.headers.iter().map(|(name, value)| ((*name).to_owned(), fill(value))).collect();
        (fill(self.target), headers, fill(self.body))
    }

    /// Sends it on a connection of its own: a malformed request may cost it. The answer, if there was one.
    pub fn send(&self, client: &mut Client, secret: &str, manifest: &str) -> String {
        let (target, headers, body) = self.filled(secret, manifest);
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let reply = match client {
            Client::H1(client) => {
                client.request(self.method, &target, &headers, body.as_bytes()).map_err(|e| e.to_string())
            }
            // What the client library can't express didn't happen.
            Client::H2(client) => client.request(self.method, &target, &headers, body.as_bytes()),
        };
        reply.map_or_else(|e| e, |reply| format!("{} {:?} {}", reply.status, reply.headers, reply.text()))
    }
}
