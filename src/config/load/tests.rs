use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;

use tempfile::TempDir;

use super::*;
use crate::config::policy::PolicyFile;
use crate::config::{Admin, AdminAddress, Authorization, CrlPlace, Endpoint, LogTarget, UploadBinding, reference};

fn directory() -> TempDir {
    TempDir::new().expect("a temporary directory")
}

fn said<T>(result: Result<Document<T>, Diagnostics>) -> String {
    result.map_or_else(|found| found.to_string(), |_| "nothing".to_owned())
}

#[test]
fn the_reference_becomes_settings_with_absolute_paths_and_defaults() {
    let directory = directory();
    let path = directory.path().join("portcullis.yaml");
    fs::write(&path, reference()).expect("written");
    let document = load(&path).expect("valid");
    let settings = &document.value;
    assert_eq!(document.warnings, []);
    assert_eq!(settings.file, path);
    assert_eq!(settings.policy, directory.path().join("policy.yaml"));
    let [listener] = settings.listeners.as_slice() else { panic!("one listener") };
    assert_eq!((listener.name.as_str(), listener.upstream.as_str()), ("listener-1", "registry"));
    assert_eq!(listener.tls.client_ca, directory.path().join("client-ca.pem"));
    assert_eq!(listener.tls.max_client_chain, 32 << 10);
    let [upstream] = settings.upstreams.as_slice() else { panic!("one upstream") };
    assert_eq!(upstream.endpoints, [Endpoint::Tcp { host: "127.0.0.1".to_owned(), port: 5000 }]);
    assert_eq!((&upstream.tls, &upstream.authorization), (&None, &Authorization::Drop));
    let address = AdminAddress::Tcp(([127, 0, 0, 1], 9091).into());
    assert_eq!(settings.admin, Some(Admin { address, token: None, tls: None }));
    assert_eq!(settings.access_log.as_ref().map(|log| &log.target), Some(&LogTarget::Stdout));
    assert!(settings.threads >= 1 && settings.health.is_some() && settings.revocation.sources.is_empty());
    let inputs: Vec<_> = settings.inputs().iter().filter_map(|path| path.file_name()?.to_str()).collect();
    assert_eq!(inputs, ["portcullis.yaml", "policy.yaml", "client-ca.pem", "server.crt", "server.key"]);
}

#[test]
fn an_empty_list_of_load_balancers_is_an_error() {
    let directory = directory();
    let path = directory.path().join("portcullis.yaml");
    let text = reference().replace("proxy_protocol: null", "proxy_protocol: { trusted_sources: [] }");
    fs::write(&path, text).expect("written");
    let said = said(load(&path));
    assert!(said.contains("listeners[0].proxy_protocol.trusted_sources"), "{said}");
}

#[test]
fn the_shipped_policy_is_valid() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/policy.yaml");
    assert_eq!(said(read_yaml_with(&path, |file: PolicyFile| crate::policy::compile(&file))), "nothing");
}

#[test]
fn a_missing_file_is_named() {
    let path = directory().path().join("absent.yaml");
    let found = load(&path).expect_err("missing").to_string();
    assert!(found.starts_with(&format!("{}: there is no such file", path.display())), "{found}");
}

#[test]
fn what_is_no_regular_file_is_refused_without_waiting_for_it() {
    let directory = directory();
    let socket = directory.path().join("socket");
    let _listener = UnixListener::bind(&socket).expect("a socket");
    let dangling = directory.path().join("dangling");
    symlink("nowhere", &dangling).expect("a link");
    let round = directory.path().join("round");
    symlink("round", &round).expect("a link");
    let file = directory.path().join("file");
    fs::write(&file, "a: b").expect("written");
    let cases = [
        (directory.path().to_owned(), "this is a directory"),
        (socket, "not a regular file"),
        ("/dev/zero".into(), "not a regular file"),
        (dangling, "no such file"),
        (round, "can't be read"),
        (file.join("below"), "not a directory"),
    ];
    for (path, expected) in cases {
        let found = said(load(&path));
        assert!(found.contains(expected), "{}: {found}", path.display());
    }
}

#[test]
fn a_file_of_100_mb_is_refused_and_not_read() {
    let path = directory().keep().join("large.yaml");
    // Sparse: it takes no room on disk, and reading it would take 100 MB of memory.
    File::create(&path).and_then(|file| file.set_len(100 << 20)).expect("a large file");
    let found = said(load(&path));
    assert!(found.contains("this is larger than 4MiB"), "{found}");
    fs::remove_dir_all(path.parent().expect("its directory")).expect("removed");
}

#[test]
fn a_file_of_the_largest_size_is_read() {
    let directory = directory();
    let path = directory.path().join("padded");
    let limit = ByteSize::from_kib(1);
    fs::write(&path, [b'x'; 1024]).expect("written");
    assert_eq!(read_bounded(&path, limit).expect("read").len(), 1024);
    fs::write(&path, [b'x'; 1025]).expect("written");
    assert!(matches!(read_bounded(&path, limit), Err(FileError::TooLarge { .. })));
}

#[test]
fn a_permission_that_is_missing_is_said_with_its_remedy() {
    let denied = FileError::from(io::Error::from(io::ErrorKind::PermissionDenied));
    assert!(denied.to_string().contains("let the user that portcullis runs as read it"));
}

#[test]
fn an_unreadable_directory_is_an_error_and_not_an_empty_one() {
    let directory = directory();
    let file = directory.path().join("file");
    fs::write(&file, "").expect("written");
    assert!(matches!(list_directory(&file, 10), Err(FileError::NotDirectory)));
    assert!(matches!(list_directory(&directory.path().join("absent"), 10), Err(FileError::Missing)));
    let closed = directory.path().join("closed");
    fs::create_dir(&closed).expect("created");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).expect("closed");
    match list_directory(&closed, 10) {
        Err(FileError::Denied) => {}
        // Nothing is closed to root: the mapping of the error is shown by the test above.
        other => assert!(other.is_ok_and(|files| files.is_empty()), "only root may read this"),
    }
}

#[test]
fn a_directory_lists_its_files_and_not_the_versions_kubernetes_keeps() {
    let directory = directory();
    let version = directory.path().join("..2026_01_01");
    fs::create_dir(&version).expect("created");
    fs::write(version.join("b.crl"), "").expect("written");
    symlink("..2026_01_01", directory.path().join("..data")).expect("a link");
    symlink("..data/b.crl", directory.path().join("b.crl")).expect("a link");
    symlink("nowhere", directory.path().join("c.crl")).expect("a link");
    fs::write(directory.path().join("a.crl"), "").expect("written");
    fs::create_dir(directory.path().join("old")).expect("created");
    let files = list_directory(directory.path(), 3).expect("listed");
    let names: Vec<_> = files.iter().filter_map(|path| path.file_name()?.to_str()).collect();
    assert_eq!(names, ["a.crl", "b.crl", "c.crl"]);
    let error = list_directory(directory.path(), 2).expect_err("too many").to_string();
    assert!(error.contains("more than 2 files"), "{error}");
}

#[test]
fn a_password_comes_from_its_file_and_never_shows() {
    let directory = directory();
    let path = directory.path().join("portcullis.yaml");
    let text = reference()
        .replace("authorization: drop", "authorization: replace")
        .replace("credentials: null", "credentials: { username: gateway, password_file: password }")
        .replace("crls: []", "crls: [{ file: a.crl }, { directory: /crls }]");
    fs::write(&path, text).expect("written");
    let password = directory.path().join("password");

    let found = said(load(&path));
    assert!(found.contains("credentials.password_file: ") && found.contains("no such file"), "{found}");
    for (content, expected) in [("", "is empty"), ("\n", "is empty"), ("a\nb\n", "several lines"), ("a\0", "control")] {
        fs::write(&password, content).expect("written");
        let found = said(load(&path));
        assert!(found.contains(expected), "{found}");
    }
    fs::write(&password, "hunter2\r\n").expect("written");
    fs::set_permissions(&password, fs::Permissions::from_mode(0o644)).expect("set");
    let document = load(&path).expect("valid");
    assert!(document.warnings.iter().any(|warning| warning.message.contains("mode 0600")), "{:?}", document.warnings);
    let settings = &document.value;
    let Authorization::Replace(credentials) = &settings.upstreams[0].authorization else { panic!("replace") };
    assert_eq!(credentials.password.expose(), "hunter2");
    let shown = format!("{settings:?} {} {:?}", settings.effective(), document.warnings);
    assert!(!shown.contains("hunter2"));
    assert!(settings.inputs().contains(&password.as_path()));
    assert_eq!(settings.revocation.sources[1].place, CrlPlace::Directory("/crls".into()));

    fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).expect("set");
    assert_eq!(load(&path).expect("valid").warnings, []);
}

#[test]
fn a_key_for_uploads_comes_from_its_file_and_never_shows() {
    let directory = directory();
    let path = directory.path().join("portcullis.yaml");
    fs::write(&path, reference().replace("key_file: null", "key_file: uploads.key")).expect("written");
    let key = directory.path().join("uploads.key");
    let line = reference().lines().position(|line| line.trim() == "key_file: null").expect("in the reference") + 1;
    let at = format!("{}:{line}: uploads.key_file: ", path.display());
    for (content, expected) in [(None, "no such file"), (Some("00ff"), "2 bytes"), (Some("a key"), "neither base64")] {
        if let Some(content) = content {
            fs::write(&key, content).expect("written");
        }
        let found = said(load(&path));
        assert!(found.contains(&at) && found.contains(expected), "{found}");
    }
    let text = "c2VjcmV0".repeat(8);
    fs::write(&key, format!("{text}\n")).expect("written");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("set");
    let document = load(&path).expect("valid");
    assert!(document.warnings.iter().any(|warning| warning.message.contains("mode 0600")), "{:?}", document.warnings);
    let settings = &document.value;
    let UploadBinding::SharedKey { key: bytes, .. } = &settings.uploads else { panic!("{:?}", settings.uploads) };
    assert_eq!(*bytes.expose(), b"secret".repeat(8));
    assert!(settings.inputs().contains(&key.as_path()));
    let shown = format!("{settings:?} {}", settings.effective());
    assert!(!shown.contains("c2VjcmV0") && !shown.contains("115, 101"), "{shown}");
}
