//! Where docker, containerd and podman look for a registry's certificates, and what they find there.
//!
//! All three read a directory that is named as images name the registry: `*.crt` are CAs, `*.cert` client certificates,
//! each with a `*.key` of the same name. Other files are passed over in silence, which is why this speaks of them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::report::{Check, Report};
use super::{Options, Target};
use crate::config::{FileError, list_directory};

/// A client certificate with its key.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

/// What is to be looked at closely.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) pairs: Vec<Pair>,
    pub(super) cas: Vec<PathBuf>,
}

/// More files than a directory of certificates has.
const MOST_FILES: usize = 200;

/// The files that the options name, or those of every directory for the host.
pub(super) fn find(report: &mut Report, target: &Target, options: &Options) -> Files {
    let mut files = Files::default();
    if let (Some(certificate), Some(key)) = (&options.cert, &options.key) {
        files.pairs.push(Pair { certificate: certificate.clone(), key: key.clone() });
    }
    files.cas.extend(options.ca.clone());
    if options.cert.is_some() || options.ca.is_some() {
        return files;
    }
    let bases = if options.certs_dir.is_empty() { usual_places() } else { options.certs_dir.clone() };
    let mut looked = false;
    let mut near = Vec::new();
    for base in &bases {
        for name in target.directory_names() {
            let directory = base.join(&name);
            match list_directory(&directory, MOST_FILES) {
                Ok(found) => {
                    looked = true;
                    report.ok(Check::Directory, directory.display().to_string());
                    sort(report, &directory, &found, &mut files);
                }
                Err(FileError::Missing | FileError::NotDirectory) => {}
                Err(e) => {
                    looked = true;
                    let remedy = "make it readable, or run this as the user that docker runs as (root)";
                    report.fail(Check::Directory, cause(&directory, &e), remedy);
                }
            }
        }
        near.extend(directories_alike(base, target));
    }
    if !looked {
        missing(report, target, &bases, &near);
    }
    files
}

/// Why a file or directory can't be read.
pub(super) fn cause(path: &Path, error: &FileError) -> String {
    let place = path.display();
    match error {
        FileError::Missing => format!("there is no {place}"),
        FileError::Denied => format!("{place}: permission denied"),
        other => format!("{place}: {other}"),
    }
}

fn usual_places() -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> =
        ["docker", "containers", "containerd"].map(|engine| Path::new("/etc").join(engine).join("certs.d")).into();
    if let Some(home) = std::env::var_os("HOME").map(PathBuf::from) {
        places.extend(["docker", "containers"].map(|engine| home.join(".config").join(engine).join("certs.d")));
    }
    places
}

/// Directories of the same host with another port, or with the port in another form.
fn directories_alike(base: &Path, target: &Target) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(base) else { return Vec::new() };
    let names = target.directory_names();
    let alike = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        let host = target.host.as_str();
        name.strip_prefix(host).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '_', '-', '.']))
            && !names.iter().any(|own| path.ends_with(own))
    };
    entries.flatten().map(|entry| entry.path()).filter(alike).collect()
}

fn missing(report: &mut Report, target: &Target, bases: &[PathBuf], near: &[PathBuf]) {
    let wanted = target.to_string();
    if let Some(near) = near.first() {
        let detail = format!("there is {}, but nothing for {wanted}", near.display());
        let remedy = format!("name it {wanted}, exactly as images are named, with the port if there is one");
        return report.fail(Check::Directory, detail, remedy);
    }
    let list: Vec<_> = bases.iter().map(|base| base.display().to_string()).collect();
    let first = bases.first().map(|base| base.join(&wanted).display().to_string()).unwrap_or_default();
    report.fail(
        Check::Directory,
        format!("no directory {wanted} in {}", list.join(", ")),
        format!("make {first} with ca.crt, client.cert and client.key, or name files with --cert, --key and --ca"),
    );
}

/// Tells files apart by their names, as the engines do.
fn sort(report: &mut Report, directory: &Path, found: &[PathBuf], files: &mut Files) {
    let before = report.faults();
    let own =
        |extension: &'static str| found.iter().filter(move |path| path.extension().is_some_and(|e| e == extension));
    let place = directory.display();
    for certificate in own("cert") {
        let key = certificate.with_extension("key");
        if found.contains(&key) {
            files.pairs.push(Pair { certificate: certificate.clone(), key });
        } else {
            let detail = format!("{} has no {}", certificate.display(), file_name(&key));
            report.fail(Check::FileNames, detail, "put the key beside it under this name");
        }
    }
    for key in own("key").filter(|key| !found.contains(&key.with_extension("cert"))) {
        let certificate = key.with_extension("cert");
        let detail = format!("{} has no {}", key.display(), file_name(&certificate));
        let hint = format!("put the client's certificate there as {}", file_name(&certificate));
        let crt = key.with_extension("crt");
        let remedy = if found.contains(&crt) {
            format!("is it {}? Then rename it: .crt is for CAs", file_name(&crt))
        } else {
            hint
        };
        report.fail(Check::FileNames, detail, remedy);
    }
    if own("cert").next().is_none() && own("key").next().is_none() {
        let remedy = "put client.cert and client.key there; the extension must be .cert";
        report.fail(Check::FileNames, format!("{place} holds no client certificate"), remedy);
    }
    for other in found.iter().filter(|path| !is_known(path)) {
        let remedy = "CAs end in .crt, client certificates in .cert, their keys in .key: rename it, or take it away";
        report.warn(Check::FileNames, format!("{} is passed over", other.display()), remedy);
    }
    if own("crt").next().is_none() && !found.iter().any(|path| path.ends_with("hosts.toml")) {
        let remedy = "put the CA of the server's certificate there as ca.crt, unless it is a public one";
        report.warn(Check::FileNames, format!("{place} holds no CA"), remedy);
    }
    owners(report, directory, found);
    hosts_toml(report, found);
    files.cas.extend(own("crt").cloned());
    if report.faults() == before {
        report.ok(Check::FileNames, format!("{place}: all names are as they must be"));
    }
}

fn is_known(path: &Path) -> bool {
    path.extension().is_some_and(|e| ["crt", "cert", "key"].iter().any(|known| e == *known))
        || path.ends_with("hosts.toml")
}

/// What stands in /etc is trusted by a daemon of root's.
fn owners(report: &mut Report, directory: &Path, found: &[PathBuf]) {
    if !directory.starts_with("/etc") {
        return;
    }
    for path in found {
        match fs::metadata(path) {
            Ok(metadata) if metadata.uid() != 0 => {
                let detail = format!("{} belongs to the user {}, who can replace it", path.display(), metadata.uid());
                report.warn(Check::Permissions, detail, format!("chown root {}", path.display()));
            }
            _ => {}
        }
    }
}

/// containerd reads the certificates only if its file names them; without the file it reads the directory as docker does.
fn hosts_toml(report: &mut Report, found: &[PathBuf]) {
    let Some(path) = found.iter().find(|path| path.ends_with("hosts.toml")) else { return };
    let Ok(text) = fs::read_to_string(path) else {
        return report.fail(Check::FileNames, format!("{} can't be read", path.display()), "make it readable");
    };
    let set = |key: &str| {
        text.lines().any(|line| line.trim_start().strip_prefix(key).is_some_and(|r| r.trim_start().starts_with('=')))
    };
    if !set("client") {
        let remedy = "add  client = [[\"client.cert\", \"client.key\"]]  below [host.\"https://…\"]";
        report.fail(Check::FileNames, format!("{} names no client certificate", path.display()), remedy);
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
