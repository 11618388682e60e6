//! The image: built from the Dockerfile with the binary that was built for the tests, and run by a real engine.
//!
//! What is replaced: the stages that compile, by their result (as `--build-arg BINARY=prebuilt` does), and the image to
//! start from, by one of the libraries that the binary needs and nothing else.

use crate::support::client::H1;
use crate::support::dockerd::Dockerd;
use crate::support::gateway::{Builder, NAME, gateway};
use crate::support::pki;
use crate::support::process::{self, Finished};
use crate::support::registry::{Registry, free_address};
use crate::support::skip;
use crate::support::tls::{ALPN_BOTH, Tls};
use crate::support::upstream::Upstream;
use serde_json::{Value, json};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const BINARY: &str = env!("CARGO_BIN_EXE_portcullis");
const PATIENCE: Duration = Duration::from_secs(120);

fn read(path: &str) -> String {
    fs::read_to_string(format!("{ROOT}/{path}")).unwrap_or_else(|e| panic!("{path}: {e}"))
}

#[test]
fn the_dockerfile_is_clean() {
    let Some(hadolint) = skip::extra("hadolint") else { return };
    let file = format!("{ROOT}/Dockerfile");
    process::run(&hadolint.to_string_lossy(), &[&file], b"", PATIENCE).expect_success("hadolint");
}

#[test]
fn the_bill_of_materials_holds_what_is_linked_and_nothing_of_the_tests() {
    if !skip::have(&["python3"]) {
        return;
    }
    let printed =
        process::run(&format!("{ROOT}/conf/packaging/sbom"), &[], b"", PATIENCE).expect_success("conf/packaging/sbom");
    let bill: Value = serde_json::from_slice(&printed.stdout).expect("JSON");
    assert_eq!((&bill["bomFormat"], &bill["specVersion"]), (&json!("CycloneDX"), &json!("1.5")));
    let itself = &bill["metadata"]["component"];
    assert_eq!((&itself["name"], &itself["version"]), (&json!("portcullis"), &json!(env!("CARGO_PKG_VERSION"))));
    let components = bill["components"].as_array().expect("components");
    let named = |name: &str| components.iter().find(|component| component["name"] == name);
    for linked in ["pingora", "boring-sys", "tokio"] {
        let component = named(linked).unwrap_or_else(|| panic!("{linked} is missing"));
        assert!(component["licenses"][0]["expression"].is_string(), "{component}");
        assert_eq!(component["hashes"][0]["content"].as_str().map(str::len), Some(64), "{component}");
    }
    assert!(named("criterion").is_none() && named("tempfile").is_none());
}

#[test]
fn the_dependencies_are_compiled_from_empty_sources() {
    // What the Dockerfile caches: a manifest that cargo takes with nothing but these.
    let directory = tempfile::tempdir().expect("the temporary directory is writable");
    for file in ["Cargo.toml", "Cargo.lock"] {
        fs::copy(format!("{ROOT}/{file}"), directory.path().join(file)).expect("writable");
    }
    let inside = |program: &str, arguments: &[&str]| {
        process::run_with(program, arguments, b"", PATIENCE, |command| {
            command.current_dir(directory.path());
        })
        .expect_success(program)
    };
    inside(&format!("{ROOT}/conf/packaging/sources"), &[]);
    let metadata = inside("cargo", &["metadata", "--locked", "--offline", "--no-deps", "--format-version=1"]);
    let metadata: Value = serde_json::from_slice(&metadata.stdout).expect("JSON");
    for target in metadata["packages"][0]["targets"].as_array().expect("targets") {
        let source = target["src_path"].as_str().expect("a path");
        assert!(Path::new(source).metadata().is_ok(), "{source}");
    }
    assert!(read("Dockerfile").contains("conf/packaging/sources && cargo build --locked --release"));
}

/// An engine with an image of the gateway, `portcullis:test`. `None` where there is no engine, which has been said.
fn engine() -> Option<Dockerd> {
    if !skip::have(&["dockerd", "docker", "runc", "strip", "ldd", "tar", "python3"]) {
        return None;
    }
    let daemon = match Dockerd::start_with(free_address(), |_, _| {}) {
        Ok(daemon) => daemon,
        Err(reason) => {
            skip::skipped(&format!("no docker daemon: {reason}"));
            return None;
        }
    };
    let context = tempfile::tempdir().expect("the temporary directory is writable");
    let image = context.path().join("target/image").to_string_lossy().into_owned();
    process::run(&format!("{ROOT}/conf/packaging/image"), &[BINARY, &image], b"", PATIENCE)
        .expect_success("conf/packaging/image");
    fs::copy(format!("{ROOT}/.dockerignore"), context.path().join(".dockerignore")).expect("writable");
    let dockerfile = read("Dockerfile");
    let (head, rest) = dockerfile.split_once("FROM ${BUILD_IMAGE} AS tools").expect("the stages that compile");
    let (_, tail) = rest.split_once("FROM scratch AS prebuilt").expect("and their end");
    fs::write(context.path().join("Dockerfile"), format!("{head}FROM scratch AS prebuilt{tail}")).expect("writable");
    eprintln!("REPLACED: the stages of the Dockerfile that compile, and the image it starts from");

    daemon.docker_with_input(&["import", "-", "libraries:test"], &libraries()).expect_success("docker import");
    let place = context.path().to_string_lossy().into_owned();
    let arguments = [
        "build",
        "--build-arg=BINARY=prebuilt",
        "--build-arg=RUN_IMAGE=libraries:test",
        "--build-arg=REVISION=abc",
        "--tag=portcullis:test",
        &place,
    ];
    daemon.docker(&arguments).expect_success("docker build");
    Some(daemon)
}

/// A tar archive of the libraries that the binary is linked with, where it looks for them.
fn libraries() -> Vec<u8> {
    let root = tempfile::tempdir().expect("the temporary directory is writable");
    let linked = process::run("ldd", &[BINARY], b"", PATIENCE).expect_success("ldd").text();
    for library in linked.split_whitespace().filter(|word| word.starts_with('/')) {
        let target = root.path().join(library.trim_start_matches('/'));
        fs::create_dir_all(target.parent().expect("a directory")).expect("writable");
        fs::copy(library, target).expect("writable");
    }
    fs::create_dir_all(root.path().join("tmp")).expect("writable");
    let root = root.path().to_string_lossy().into_owned();
    process::run("tar", &["-C", &root, "-c", "."], b"", PATIENCE).expect_success("tar").stdout
}

/// Waits until an engine says of a container what is wanted.
#[track_caller]
fn wait_until(daemon: &Dockerd, container: &str, format: &str, wanted: &str) {
    let end = Instant::now() + PATIENCE;
    loop {
        let said = daemon.docker(&["inspect", "--format", format, container]).all();
        if said.trim() == wanted {
            return;
        }
        let log = || daemon.docker(&["logs", container]).all();
        assert!(Instant::now() < end, "{container} is {said:?}, not {wanted}:\n{}", log());
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// A configuration that the user of the image can read, with its listener and health listener at these addresses.
fn mounted(upstream: &Upstream, listener: SocketAddr, health: SocketAddr) -> (Builder, String) {
    let builder = gateway().upstream(upstream.url()).configure(|c| {
        c["listeners"][0]["addresses"] = json!([listener.to_string()]);
        c["health"]["address"] = json!(health.to_string());
        c["access_log"]["path"] = json!("-");
        c["admin"]["address"] = Value::Null;
    });
    builder.write_config();
    let path = builder.path().to_string_lossy().into_owned();
    process::run("chmod", &["-R", "a+rX", &path], b"", PATIENCE).expect_success("chmod");
    (builder, path)
}

#[test]
fn the_image_runs_without_root_and_shell_and_says_how_it_is() {
    let Some(daemon) = engine() else { return };
    let upstream = Upstream::start();
    let (listener, health) = (free_address(), free_address());
    let (builder, path) = mounted(&upstream, listener, health);
    let volume = format!("{path}:/etc/portcullis:ro");
    let run = |more: &[&str]| -> Finished {
        let mut arguments = vec!["run", "--network=host", "--read-only", "--cap-drop=ALL", "--volume", &volume];
        arguments.extend(more);
        daemon.docker(&arguments)
    };
    run(&["--detach", "--name=gw", "--health-interval=1s", "portcullis:test"]).expect_success("docker run");
    wait_until(&daemon, "gw", "{{.State.Health.Status}}", "healthy");
    let tls = Tls {
        address: listener,
        name: Some(NAME.to_owned()),
        ca: builder.server_ca.certificate.clone(),
        identity: Some(builder.client_ca.issue(&pki::client("ci-7"))),
        alpn: ALPN_BOTH,
        source: None,
        newest: None,
    };
    assert_eq!(H1::connect(&tls).expect("connects").get("/v2/team/app/tags/list").status, 200);
    // A broken file changes nothing in a gateway that serves, and its health is still known.
    fs::write(builder.path().join("policy.yaml"), "rules: 7\n").expect("writable");
    daemon.docker(&["exec", "gw", "/usr/bin/portcullis", "healthcheck"]).expect_success("healthcheck");

    let inspected = daemon.docker(&["inspect", "portcullis:test"]).expect_success("docker inspect").text();
    let image: Value = serde_json::from_str(&inspected).expect("JSON");
    let config = &image[0]["Config"];
    assert_eq!(config["User"], "65532:65532", "{config:#}");
    let label = |name: &str| config["Labels"][format!("org.opencontainers.image.{name}")].clone();
    assert_eq!((label("version"), label("revision")), (env!("CARGO_PKG_VERSION").into(), "abc".into()), "{config:#}");
    let bill = daemon.docker(&["cp", "gw:/usr/share/portcullis/sbom.cdx.json", "-"]).expect_success("docker cp");
    assert!(bill.text().contains("CycloneDX"));
    for shell in ["/bin/sh", "/bin/bash", "/busybox/sh"] {
        let refused = run(&["--rm", "--entrypoint", shell, "portcullis:test", "-c", "true"]);
        assert_eq!(refused.code, Some(127), "{shell}: {}", refused.all());
    }

    daemon.docker(&["stop", "--time=30", "gw"]).expect_success("docker stop");
    wait_until(&daemon, "gw", "{{.State.Status}} {{.State.ExitCode}}", "exited 0");
    let log = daemon.docker(&["logs", "gw"]).all();
    assert!(log.contains("draining") && log.contains("\"repository\":\"team/app\""), "{log}");
}

/// Cargo reads no manifest that names files which aren't there, needed or not.
#[test]
fn every_file_that_the_manifest_names_comes_into_the_build() {
    let manifest = format!("{ROOT}/Cargo.toml");
    let arguments = ["metadata", "--no-deps", "--offline", "--format-version=1", "--manifest-path", &manifest];
    let told = process::run(env!("CARGO"), &arguments, b"", PATIENCE).expect_success("cargo metadata").text();
    let told: Value = serde_json::from_str(&told).expect("JSON");
    let targets = told["packages"][0]["targets"].as_array().expect("targets");
    let paths =
        targets.iter().filter(|target| target["kind"] != json!(["test"])).map(|target| target["src_path"].as_str());
    let paths: Vec<_> = paths.map(|path| path.and_then(|path| path.strip_prefix(ROOT)).expect("a path here")).collect();
    assert!(paths.len() > 4, "{paths:?}");
    let ignored = read(".dockerignore");
    let let_in: Vec<_> = ignored.lines().filter_map(|line| line.strip_prefix('!')).collect();
    let is_let_in = |path: &str| {
        let_in.iter().any(|pattern| match pattern.split_once("*.rs") {
            Some((directory, _)) => path.strip_prefix(directory).is_some_and(|name| !name.contains('/')),
            None => path.strip_prefix(pattern).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        })
    };
    for path in paths {
        assert!(is_let_in(path.trim_start_matches('/')), "{path} is not let in by .dockerignore");
    }
}

#[test]
fn what_compose_starts_serves_a_registry() {
    if !skip::have(&["docker-registry", "curl"]) {
        return;
    }
    let compose: Value = serde_yaml::from_str(&read("compose.yaml")).expect("YAML");
    let service = &compose["services"]["gateway"];
    assert_eq!(compose["services"]["registry"]["image"], "registry:2");
    assert!(compose["services"]["registry"]["ports"].is_null(), "nobody goes past the gateway");
    for hardened in ["read_only", "cap_drop", "security_opt"] {
        assert!(!service[hardened].is_null(), "{hardened}");
    }
    let Some(daemon) = engine() else { return };
    let registry = Registry::start();
    // The engine of the test has no networks: the gateway has the machine's, and a port of its own.
    let address = loop {
        let address = free_address();
        if (1..4).all(|next| std::net::TcpListener::bind(("127.0.0.1", address.port().saturating_add(next))).is_ok()) {
            break address;
        }
    };
    let words = |list: &Value| -> Vec<String> {
        let list = list.as_array().expect("a list").iter();
        list.map(|word| match word.as_str().expect("text") {
            "0.0.0.0:5443" => address.to_string(),
            "http://registry:5000" => registry.url(),
            word => word.to_owned(),
        })
        .collect()
    };
    let command = words(&service["command"]);
    assert!(command.contains(&address.to_string()) && command.contains(&registry.url()), "{command:?}");
    let volume = service["volumes"][0].as_str().expect("a volume");
    let mut arguments = vec!["run", "--detach", "--name=gw", "--network=host", "--read-only", "--cap-drop=ALL"];
    arguments.extend(["--security-opt=no-new-privileges:true", "--volume", volume, "portcullis:test"]);
    arguments.extend(command.iter().map(String::as_str));
    daemon.docker(&arguments).expect_success("docker run");
    let health = words(&service["healthcheck"]["test"]);
    let mut asked = vec!["exec", "gw"];
    asked.extend(health[1..].iter().map(String::as_str));
    let end = Instant::now() + PATIENCE;
    while !daemon.docker(&asked).success() {
        assert!(Instant::now() < end, "{}", daemon.docker(&["logs", "gw"]).all());
        std::thread::sleep(Duration::from_millis(200));
    }
    // As docs/container.md says: take the certificates out of the volume, and use them.
    let home = tempfile::tempdir().expect("the temporary directory is writable");
    let dev = home.path().join("dev").to_string_lossy().into_owned();
    daemon.docker(&["cp", "gw:/var/lib/portcullis/dev", &dev]).expect_success("docker cp");
    let printed = daemon.docker(&["logs", "gw"]).expect_success("docker logs").text();
    // What compose publishes is where the printed commands go, and docker's address is what the page says.
    assert_eq!(service["ports"], json!(["127.0.0.1:5443:5443"]));
    assert!(printed.contains("  sudo ip address add 192.0.2.1/32 dev lo\n"), "{printed}");
    for (program, answer) in [("curl", "Hello from behind the gate."), ("skopeo", "Writing manifest")] {
        if !skip::have(&[program]) {
            continue;
        }
        let (_, section) = printed.split_once(&format!("\n\n{program}\n")).expect("its commands");
        let commands = section.split("\n\n").next().unwrap_or_default();
        let said = process::run_with("sh", &["-ec", commands], b"", PATIENCE, |command| {
            command.current_dir(&dev);
        });
        let said = said.expect_success(commands).all();
        assert!(said.contains(answer), "{commands}\n{said}");
    }
    let file = |name: &str| format!("{dev}/pki/{name}");
    let (ca, certificate, key) = (file("ca.crt"), file("developer.crt"), file("developer.key"));
    let url = format!("https://{address}/v2/team/app/blobs/uploads/");
    let curl = ["-sSi", "-X", "POST", "--cacert", &ca, "--cert", &certificate, "--key", &key, &url];
    let answer = process::run("curl", &curl, b"", PATIENCE).expect_success("curl").text();
    assert!(answer.contains(" 202"), "{answer}");
}
